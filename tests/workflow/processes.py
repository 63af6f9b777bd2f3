"""Processes that serve a workflow, to be killed.

They are forked like those of `tests/processes.py`; each opens its own database, record, ledger and
sockets.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec

from llm_trader.app.job import Job
from llm_trader.app.llm_deciders import DeciderChoice
from llm_trader.app.workflow.server import WorkflowChoice, workflow_server
from llm_trader.client import AsyncClient
from llm_trader.client.calls import other
from llm_trader.delivery.jobs import SnapshotPost
from llm_trader.errors import ConfigurationError, LlmTraderError
from llm_trader.logs import configure_logging
from llm_trader.rpc.server import stop_on_signals
from llm_trader.settings.loading import load_settings
from llm_trader.snapshot.model import MarketSnapshot
from llm_trader.timeframe import Millis
from tests.exchange.clock import SimulatedClock
from tests.exchange.signatures import KEY_VARIABLES
from tests.llm.stub.server import TEST_KEY
from tests.workflow.graphs import MAIN

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.preloaded"])


@dataclass
class Surroundings:
    """What all processes of a test share. `graph` may be changed between two starts.

    Without a `clock` it is that of the machine.
    """

    folder: Path
    llm_url: str
    graph: Path = MAIN
    more: dict[str, Any] = field(default_factory=dict)
    clock: SimulatedClock | None = None

    def overrides(self) -> dict[str, Any]:
        return {
            "market.store": self.folder / "none",
            "decisions.record": self.folder / "decisions",
            "workflow.runs.folder": self.folder / "runs",
            "workflow.runs.poll_ms": 20,
            # Nobody listens there, so the baseline prompt is used.
            "workflow.runs.rag_url": "tcp://127.0.0.1:1",
            "workflow.paper.ledger": self.folder / "paper.sqlite",
            "workflow.guards.kill_switch": self.folder / "kill",
            "workflow.guards.min_reward_risk": 0,
            "workflow.guards.max_trades_per_day": 100_000,
            "workflow.guards.max_exposure_pct": 10_000,
            "workflow.guards.max_leverage": 100,
            "intake.port": 0,
            "intake.http": False,
            "llm.base_url": self.llm_url,
            "llm.requests_per_minute": 10_000,
            "llm.daily_budget_usd": 1000,
            "snapshot.intraday": "5m",
            "logging.level": "error",
            **self.more,
        }

    @contextmanager
    def serving(self, kill_at: str | None = None) -> Iterator[ServingProcess]:
        """A process that serves; `kill_at` such as `decide ends` makes it kill itself there."""
        mine, its = _CONTEXT.Pipe()
        process = _CONTEXT.Process(
            target=_serve, args=(self.overrides(), str(self.graph), kill_at, its, self.clock)
        )
        process.start()
        its.close()
        try:
            yield ServingProcess(process, mine)
        finally:
            if process.is_alive():
                process.kill()
            process.join()


@dataclass
class ServingProcess:
    process: Any
    _pipe: Connection
    _port: int | None = None
    _asking: threading.Lock = field(default_factory=threading.Lock)

    @property
    def port(self) -> int:
        """Waits until it listens. Raises `EOFError` if it has died before, and what it refused."""
        with self._asking:
            if self._port is None:
                if not self._pipe.poll(60):
                    raise TimeoutError("the process did not begin to serve")
                told = self._pipe.recv()
                if isinstance(told, str):
                    raise ConfigurationError(told)
                self._port = told
            return self._port

    def kill(self) -> None:
        self.process.kill()
        self.process.join()

    def ended_by(self) -> signal.Signals | None:
        """Waits for its end."""
        self.process.join(60)
        code = self.process.exitcode
        return signal.Signals(-code) if code is not None and code < 0 else None

    async def post(self, post: SnapshotPost, timeout_s: float = 10.0) -> dict[str, Any]:
        url = f"tcp://127.0.0.1:{self.port}"
        async with AsyncClient(url, timeout_s=timeout_s) as client:
            receipt: dict[str, Any] = await client.send(
                other("snapshot.post", msgspec.to_builtins(post))
            )
            return receipt


def post_of(snapshot: MarketSnapshot, symbol: str, as_of_ms: Millis) -> SnapshotPost:
    """That state as if it were of another symbol and time."""
    return SnapshotPost(
        job_id=f"job of {symbol}",
        snapshot_id=f"{symbol} at {as_of_ms}",
        deadline_ms=as_of_ms + 240_000,
        snapshot=msgspec.structs.replace(snapshot, symbol=symbol, timestamp=as_of_ms),
    )


def _serve(
    overrides: Mapping[str, Any],
    graph: str,
    kill_at: str | None,
    pipe: Connection,
    clock: SimulatedClock | None,
) -> None:
    from llm_trader.cli.options import now_ms

    time_ms = now_ms if clock is None else clock.now_ms

    def watch(run: str, node: str, what: str) -> None:
        if f"{node} {what}" == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    async def main() -> None:
        settings = load_settings(environ={}, overrides=dict(overrides))
        configure_logging(settings.logging.level, settings.logging.format)
        environ = {"ANTHROPIC_API_KEY": TEST_KEY, **KEY_VARIABLES}
        job = Job(settings, environ, time_ms())
        choice = WorkflowChoice(DeciderChoice("anthropic"))
        opened = workflow_server(job, Path(graph), choice, time_ms, watch=watch)
        async with opened as workflow:
            await workflow.server.start()
            pipe.send(workflow.server.address[1])
            stop = asyncio.Event()
            stop_on_signals(stop)
            await stop.wait()
            await workflow.server.stop()

    try:
        asyncio.run(main())
    except LlmTraderError as error:
        pipe.send(error.message)
