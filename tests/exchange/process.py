"""The exchange in a process of its own, so that its work is not that of who hears it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import tests
from llm_trader.timeframe import Millis
from tests.exchange.clock import SimulatedClock
from tests.exchange.server import exchange_environ
from tests.processes import Forked

_PROJECT = Path(tests.__file__).parents[1]


class ExchangeProcess:
    """A context manager; `data` is a folder of real data, else the data are simulated.

    The same `clock` can be given to who hears it.
    """

    def __init__(
        self,
        symbols: Sequence[str],
        clock: SimulatedClock,
        *,
        updates_per_candle: int | None = None,
        start_ms: Millis | None = None,
        days: int = 2,
        seed: int = 1,
        data: Path | None = None,
    ) -> None:
        self.clock = clock
        self.url = ""
        self._arguments = [f"--clock={clock}", f"--symbols={','.join(symbols)}"]
        self._arguments += [f"--days={days}", f"--seed={seed}"]
        given = {"updates-per-candle": updates_per_candle, "start-ms": start_ms, "data": data}
        self._arguments += [f"--{key}={value}" for key, value in given.items() if value is not None]
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self._process = Forked(
            [sys.executable, "-m", "tests.exchange", *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=_PROJECT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        self.url = self._line()
        return self

    def __exit__(self, *raised: object) -> None:
        if self._process is not None:
            self._process.communicate(timeout=10)

    @property
    def stream_url(self) -> str:
        return self.url.replace("http://", "ws://")

    @property
    def pid(self) -> int:
        return 0 if self._process is None else self._process.pid

    def environ(self, *, streams: bool = False) -> dict[str, str]:
        return exchange_environ(self.url, streams=streams)

    def tell(self, **commands: Any) -> dict[str, Any]:
        """Commands of `__main__.py`; the reply says what has happened so far."""
        if self._process is None or self._process.stdin is None:
            raise RuntimeError("the fake exchange is not running")
        self._process.stdin.write(json.dumps(commands) + "\n")
        self._process.stdin.flush()
        reply: dict[str, Any] = json.loads(self._line())
        if "error" in reply:
            raise ValueError(reply["error"])
        return reply

    def _line(self) -> str:
        if self._process is None or self._process.stdout is None:
            raise RuntimeError("the fake exchange is not running")
        line = self._process.stdout.readline().strip()
        if not line:
            raise RuntimeError("the fake exchange ended; its output says why")
        return line
