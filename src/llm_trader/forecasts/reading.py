"""Reads a journal of forecasts: the lines of all its chains, in the order of their times.

It can be asked again, and then goes on with what was written meanwhile. Lines that do not fit their
hash are left out; `llm-trader forecasts verify` names them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from llm_trader.forecasts.journal import FORECASTS, ForecastLine
from llm_trader.storage.chain.lines import first_seq_of
from llm_trader.timeframe import Millis

# Some hundred lines.
_READ_BYTES: Final = 1 << 18


class JournalReader:
    """Lines at or after `since_ms`."""

    def __init__(self, folder: Path, since_ms: Millis = 0) -> None:
        self._folder = folder
        self._since_ms = since_ms
        self._chains: dict[int, _ChainTail] = {}

    def read(self, limit: int) -> list[ForecastLine]:
        """The next forecasts, at most so many; fewer where these are all that are written."""
        for chain, paths in FORECASTS.chains_of(self._folder).items():
            self._chains.setdefault(chain, _ChainTail()).follow(paths)
        found: list[ForecastLine] = []
        while len(found) < limit:
            tails = [tail for tail in self._chains.values() if tail.fill()]
            if not tails:
                break
            earliest = min(tails, key=lambda tail: tail.lines[0].at_ms)
            line = earliest.lines.popleft()
            if line.at_ms >= self._since_ms:
                found.append(line)
        return found

    def all(self) -> Iterator[ForecastLine]:
        while lines := self.read(1000):
            yield from lines


class _ChainTail:
    """The forecasts of a chain that were read and not yet taken."""

    def __init__(self) -> None:
        self.lines: deque[ForecastLine] = deque()
        self._paths: list[Path] = []
        self._path: Path | None = None
        self._offset = 0

    def follow(self, paths: list[Path]) -> None:
        self._paths = paths
        if self._path is None and paths:
            self._path = paths[0]

    def fill(self) -> bool:
        """Whether there is a line."""
        while not self.lines and self._path is not None:
            raw = self._next_bytes(self._path)
            if raw:
                self._take(raw)
            elif not self._begin_next(self._path):
                break
        return bool(self.lines)

    def _next_bytes(self, path: Path) -> bytes:
        """Whole lines; nothing at the end of the file."""
        size = _READ_BYTES
        try:
            with path.open("rb") as file:
                while True:
                    file.seek(self._offset)
                    raw = file.read(size)
                    whole = raw[: raw.rfind(b"\n") + 1]
                    if whole or len(raw) < size:
                        return whole
                    size *= 2
        except FileNotFoundError:  # it was removed for its age
            return b""

    def _begin_next(self, path: Path) -> bool:
        later = [other for other in self._paths if first_seq_of(other) > first_seq_of(path)]
        if not later:
            return False
        self._path, self._offset = later[0], 0
        return True

    def _take(self, raw: bytes) -> None:
        self._offset += len(raw)
        for line in raw.splitlines():
            sealed = FORECASTS.unseal(line)
            if sealed is not None and sealed.line.horizons:
                self.lines.append(sealed.line)
