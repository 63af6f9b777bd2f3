"""Makes the snapshot of a symbol at a boundary, and hands it to every intake.

1. Wait until the data of the boundary is in the store, or for `max_wait_s` (`boundary.py`).
2. Make the snapshot of the store, without what is late.
3. Each intake gets it with ids that say which one it is (`jobs.py`), and is sent it again until it
   answers or the deadline has passed (`intake.py`).

At most one snapshot of a symbol and a time is made by one process. After a restart it may be made
again, with the same ids. A snapshot that was sent stays as it is: where its data is corrected
later, that is logged and counted (`recheck`).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
import structlog

from llm_trader.clock import Clock
from llm_trader.delivery.boundary import DataEnds, decide
from llm_trader.delivery.config import DeliveryConfig
from llm_trader.delivery.intake import DeliveryCounts, Intake
from llm_trader.delivery.jobs import SnapshotPost, job_id, snapshot_id
from llm_trader.errors import InvalidInputError, LlmTraderError
from llm_trader.market.series_ages import SeriesAge
from llm_trader.snapshot.model import REQUIRED
from llm_trader.snapshot.source import SnapshotSource
from llm_trader.snapshot.table import SnapshotTable
from llm_trader.timeframe import H4, HOUR_MS, SECOND_MS, Millis, iso8601

# A look at the ends of four series takes some 50 µs.
_LOOK_EVERY_S: Final = 0.1
# A collector compares what it has from streams within about an hour; some attempts may fail.
_REMEMBERED_MS: Final = 4 * HOUR_MS

_log = structlog.get_logger(__name__)


class LiveNumbers(msgspec.Struct, frozen=True):
    """What a monitor reads: how old each series is, and what became of the snapshots."""

    series: list[SeriesAge]
    intakes: dict[str, DeliveryCounts]


@dataclass(eq=False)
class SnapshotSender:
    """`boundary` is called at each boundary; `close` at the end."""

    source: SnapshotSource
    intakes: Sequence[Intake]
    config: DeliveryConfig
    clock: Clock
    feature_version: str
    _begun: dict[str, Millis] = field(default_factory=dict, init=False)
    _making: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    # Digests of what was posted lately with all its data, by symbol and time.
    _posted: dict[str, dict[Millis, bytes]] = field(default_factory=dict, init=False)

    async def boundary(self, symbol: str, as_of_ms: Millis) -> bool:
        """Make a snapshot and post it; whether that was done. Deliveries go on after it returns.

        A time at or before the last one of the symbol is left alone. Raises `InvalidInputError`
        for a time that is not on the grid of snapshots.
        """
        if as_of_ms % self.source.grid.ms:
            raise InvalidInputError(
                f"{iso8601(as_of_ms)} is no boundary of {self.source.grid} snapshots"
            )
        if as_of_ms <= self._begun.get(symbol, -1):
            return False
        self._begun[symbol] = as_of_ms
        try:
            late = await self._wait_for_data(symbol, as_of_ms)
            # One in a turn of the event loop, so that replies and streams are heard in between.
            async with self._making:
                await asyncio.sleep(0)
                table = self.source.view(symbol).exactly_at(as_of_ms)
        except LlmTraderError as error:
            return self._drop(symbol, as_of_ms, error.message)
        if not table.usable()[0]:
            reasons = "; ".join(table.refusals(REQUIRED))
            return self._drop(symbol, as_of_ms, reasons)
        if late:
            _log.warning("snapshot_without_late_data", **_named(symbol, as_of_ms), late=late)
        exchange = self.source.store.exchange
        identity = snapshot_id(symbol, as_of_ms, exchange, self.feature_version)
        for intake in self.intakes:
            job = SnapshotPost(
                job_id=job_id(identity, intake.name),
                snapshot_id=identity,
                deadline_ms=as_of_ms + round(self.config.deadline_s * SECOND_MS),
                snapshot=table.snapshot(0),
                late=late,
            )
            intake.post(job)
        if not late:
            recent = self._posted.setdefault(symbol, {})
            recent[as_of_ms] = _digest(table)
            for old_ms in [ms for ms in recent if ms < as_of_ms - _REMEMBERED_MS]:
                del recent[old_ms]
        return True

    def recheck(self, symbol: str) -> list[Millis]:
        """Count the snapshots that would be others now; to be called after a correction."""
        recent = self._posted.get(symbol, {})
        view = self.source.view(symbol)
        wrong = [ms for ms, digest in recent.items() if _digest(view.exactly_at(ms)) != digest]
        for as_of_ms in wrong:
            del recent[as_of_ms]
            _log.warning("snapshot_corrected_later", **_named(symbol, as_of_ms))
            for intake in self.intakes:
                intake.counts.corrected += 1
        return wrong

    def counts(self) -> dict[str, DeliveryCounts]:
        """By intake."""
        return {intake.name: intake.counts for intake in self.intakes}

    def numbers(self) -> LiveNumbers:
        return LiveNumbers(self.source.store.series_ages(self.clock.now_ms()), self.counts())

    async def settled(self) -> None:
        """Returns when every delivery has ended."""
        for intake in self.intakes:
            await intake.settled()

    async def close(self) -> None:
        for intake in self.intakes:
            await intake.close()

    async def _wait_for_data(self, symbol: str, as_of_ms: Millis) -> tuple[str, ...]:
        """What is late in the end."""
        max_wait_ms = round(self.config.max_wait_s * SECOND_MS)
        while True:
            ends = data_ends(self.source, symbol)
            decision = decide(ends, as_of_ms, self.clock.now_ms(), max_wait_ms)
            if decision.is_due:
                return decision.late
            await self.clock.sleep(_LOOK_EVERY_S)

    def _drop(self, symbol: str, as_of_ms: Millis, reason: str) -> bool:
        _log.warning("snapshot_not_made", **_named(symbol, as_of_ms), reason=reason)
        for intake in self.intakes:
            intake.counts.dropped += 1
        return False


def data_ends(source: SnapshotSource, symbol: str) -> DataEnds:
    store, intraday = source.store, source.intraday
    fine = store.first_and_last_ms(symbol, intraday)
    coarse = store.first_and_last_ms(symbol, H4)
    funding = store.last_funding(symbol)
    settled_ms = int(funding.time_ms[-1]) if len(funding) else None
    hours = float(funding.interval_hours[-1]) if len(funding) else None
    return DataEnds(
        intraday=intraday,
        intraday_close_ms=None if fine is None else fine[1] + intraday.ms,
        four_hour_close_ms=None if coarse is None else coarse[1] + H4.ms,
        open_interest_ms=store.last_open_interest_ms(symbol),
        open_interest_interval_ms=store.open_interest_interval_ms(symbol),
        funding_ms=settled_ms,
        funding_interval_hours=hours,
    )


def _digest(table: SnapshotTable) -> bytes:
    return hashlib.blake2b(msgspec.json.encode(table.snapshot(0)), digest_size=16).digest()


def _named(symbol: str, as_of_ms: Millis) -> dict[str, str]:
    return {"symbol": symbol, "as_of": iso8601(as_of_ms)}
