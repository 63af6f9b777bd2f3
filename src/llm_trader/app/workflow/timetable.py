"""Snapshots that the process makes by itself, where the graph's input has an `every`.

They come from the local market store, with the ids that a collector would give them, so that a
snapshot which comes both ways is decided once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import structlog

from llm_trader.app.indexes import snapshot_rules
from llm_trader.app.ingestion import intraday_timeframe
from llm_trader.clock import Clock
from llm_trader.delivery.config import IntakeAddress
from llm_trader.delivery.intake import Intake
from llm_trader.delivery.jobs import SnapshotPost
from llm_trader.delivery.sender import SnapshotSender
from llm_trader.embedding.state import StateSpace
from llm_trader.errors import InvalidInputError, LlmTraderError
from llm_trader.market.store import MarketStore
from llm_trader.settings.tree import Settings
from llm_trader.snapshot.source import SnapshotSource
from llm_trader.timeframe import SECOND_MS, Millis, Timeframe
from llm_trader.workflow.graph.document import InputNode
from llm_trader.workflow.graph.model import Graph

_log = structlog.get_logger(__name__)

Take = Callable[[SnapshotPost], Awaitable[object]]


def intervals_of(graph: Graph, settings: Settings) -> dict[str, Timeframe]:
    """How often each input of a graph takes snapshots by itself, by its name.

    Raises `InvalidInputError` where that is no multiple of the snapshots' interval.
    """
    found = {}
    grid = Timeframe(settings.snapshot.interval_ms)
    for node in graph.nodes:
        if not isinstance(node.document, InputNode) or node.document.config.every is None:
            continue
        every = Timeframe.parse(node.document.config.every)
        if every.ms % grid.ms:
            raise InvalidInputError(
                f"{node.name} of the graph has every: {every}, which is no multiple of the "
                f"snapshots' interval, {grid} (snapshot.interval_minutes)"
            )
        found[node.name] = every
    return found


@dataclass(eq=False)
class LocalIntake(Intake):
    """This process's own intake: the same attempts, without a connection."""

    take: Take | None = field(default=None, kw_only=True)

    async def _attempt(self, job: SnapshotPost) -> None:
        if self.take is not None:
            await self.take(job)


@dataclass(eq=False)
class Timetable:
    """Makes snapshots of `symbols`, or of all of the store, at each boundary of `every`.

    `every` is a multiple of the snapshots' interval; see `intervals_of`.
    """

    settings: Settings
    store: MarketStore
    symbols: Sequence[str]
    every: Timeframe
    clock: Clock

    async def follow(self, take: Take) -> None:
        """Until it is cancelled."""
        symbols = list(self.symbols) or self.store.symbols()
        if not symbols:
            raise InvalidInputError(f"{self.store.path} has no symbols; collect some first")
        sender = self._sender(symbols, take)
        making: set[asyncio.Task[bool]] = set()
        try:
            while True:
                now_ms = self.clock.now_ms()
                boundary_ms = self.every.floor(now_ms) + self.every.ms
                await self.clock.sleep((boundary_ms - now_ms) / SECOND_MS)
                for symbol in symbols:
                    task = asyncio.create_task(self._boundary(sender, symbol, boundary_ms))
                    making.add(task)
                    task.add_done_callback(making.discard)
        finally:
            for task in making:
                task.cancel()
            await sender.close()

    async def _boundary(self, sender: SnapshotSender, symbol: str, boundary_ms: Millis) -> bool:
        try:
            return await sender.boundary(symbol, boundary_ms)
        except LlmTraderError as error:
            _log.warning("snapshot_not_made", symbol=symbol, reason=error.message)
            return False

    def _sender(self, symbols: list[str], take: Take) -> SnapshotSender:
        settings, config = self.settings, self.settings.delivery
        interval_ms = settings.snapshot.interval_ms
        intraday = intraday_timeframe(settings, self.store, symbols)
        source = SnapshotSource(self.store, intraday, interval_ms, snapshot_rules(settings))
        here = LocalIntake(
            IntakeAddress("this process", 0), self.clock, config.attempt_timeout_s, take=take
        )
        version = StateSpace(intraday).feature_version
        return SnapshotSender(source, [here], config, self.clock, version)
