"""The whole corridor on a simulated market: what the tests of `app`, `rag.*` and `cli` stand on.

LMDB opens a folder once per process, so a test that opens one closes it before its end, and
whoever writes does so in a copy.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from llm_trader.app.ingestion import ingest_from_store
from llm_trader.app.job import Job
from llm_trader.app.server import query_server
from llm_trader.market.history import MarketHistory
from llm_trader.market.simulation import simulate
from llm_trader.market.store import MarketStore
from llm_trader.rpc.client import RpcClient
from llm_trader.settings.loading import load_settings
from llm_trader.settings.tree import Settings
from llm_trader.snapshot.builder import build_snapshots
from llm_trader.snapshot.table import SnapshotTable
from llm_trader.timeframe import DAY_MS, HOUR_MS, M5, Millis
from tests.processes import Forked

START_MS: Millis = 1_735_689_600_000  # 2025-01-01
DAYS = 60
END_MS: Millis = START_MS + DAYS * DAY_MS  # when the last candle closes
WARM_MS: Millis = START_MS + 20 * DAY_MS  # 120 candles of 4h have closed
AT_MS: Millis = START_MS + 55 * DAY_MS + 12 * HOUR_MS
QUARTER_MS: Millis = 900_000
SYMBOLS = ("BTCUSDT", "ETHUSDT")
SYMBOL = SYMBOLS[0]
# Every quarter-hour from the warm one to the last whose outcome is known, both included.
POINTS = (END_MS - DAY_MS - WARM_MS) // QUARTER_MS + 1


@dataclass(frozen=True)
class Corridor:
    """A store and an index of it; not to be written to."""

    store: Path
    index: Path
    histories: Mapping[str, MarketHistory]

    def settings(self, environ: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
        """Overrides are named `serving__port` for `serving.port`. Without a folder of their own,
        forecasts are not recorded: all tests share the folder of the index.
        """
        given = {"market__store": self.store, "index__path": self.index, "serving__port": 0}
        if "forecasts__folder" not in overrides:
            given["forecasts__journal"] = False
        flags = {key.replace("__", "."): value for key, value in (given | overrides).items()}
        return load_settings(environ=environ or {}, overrides=flags)

    def state_at(self, time_ms: Millis, symbol: str = SYMBOL) -> SnapshotTable:
        """The state of a time on the grid, from the candles and not through the store."""
        return build_snapshots(self.histories[symbol], np.array([time_ms], dtype=np.int64))

    def fields_at(self, time_ms: Millis, *names: str) -> dict[str, float]:
        state = self.state_at(time_ms)
        return {name: float(state.column(name)[0]) for name in names}


def make_corridor(folder: Path) -> Corridor:
    histories = {
        symbol: simulate(symbol, start_ms=START_MS, days=DAYS, seed=7, timeframe=M5)
        for symbol in SYMBOLS
    }
    with MarketStore.open(folder / "store", write=True, exchange="simulated") as store:
        for history in histories.values():
            write(store, history)
    corridor = Corridor(folder / "store", folder / "index", histories)
    ingest_from_store(Job(corridor.settings(), {}, END_MS), [], START_MS, END_MS)
    return corridor


def write(store: MarketStore, history: MarketHistory) -> None:
    name = history.symbol
    for candles in (history.intraday, history.four_hour):
        store.write(name, candles, "simulated", written_at_ms=END_MS)
    store.write(name, history.funding, "simulated", written_at_ms=END_MS)
    store.write(
        name,
        history.open_interest,
        "simulated",
        written_at_ms=END_MS,
        interval_ms=history.open_interest_interval_ms,
    )


def copied(folder: Path, to: Path) -> Path:
    """A copy of a store or an index, for those who write."""
    return Path(shutil.copytree(folder, to))


@asynccontextmanager
async def answering(
    corridor: Corridor,
    environ: Mapping[str, str] | None = None,
    clock: Callable[[], Millis] | None = None,
    **overrides: Any,
) -> AsyncIterator[RpcClient]:
    """A client of a server on a free port, both in this process."""
    settings = corridor.settings(environ, **overrides)
    async with query_server(settings, environ or {}, clock) as server:
        await server.start()
        try:
            async with await RpcClient.connect(*server.address) as client:
                yield client
        finally:
            await server.stop()


def console_script(name: str) -> str:
    """A program as it was installed beside the interpreter."""
    return str(Path(sys.executable).parent / name)


@contextmanager
def serving_process(
    *arguments: str, env: Mapping[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """`rag-rpc-server` on a free port, and the port; killed at the end unless it has ended."""
    with Forked(
        [console_script("rag-rpc-server"), "--port", "0", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env=env,
    ) as process:
        try:
            yield process, listening_port(process.stderr)
        finally:
            process.kill()


def listening_port(log: IO[str] | None) -> int:
    said = []
    for line in log or ():
        said.append(line)
        event = json.loads(line) if line.startswith("{") else {}
        if event.get("event") == "rpc_listening":
            return int(event["port"])
    raise RuntimeError(f"the server did not start: {''.join(said)}")


def until(condition: Any, seconds: float) -> bool:
    """Whether a condition becomes true in time; asks again and again."""
    deadline = time.monotonic() + seconds
    while not (met := bool(condition())) and time.monotonic() < deadline:
        time.sleep(0.005)
    return met
