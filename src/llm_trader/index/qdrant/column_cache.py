"""What a process keeps of a collection: times, columns and runs of the symbols it was asked for.

Every answer needs the outcomes of its whole window, far more than its nearest points; fetching
them each time would cost more than the search. Vectors stay with the server. A symbol is kept as
far back as was asked for, and brought up to date when the head says that more was written.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from llm_trader.errors import SymbolNotFoundError
from llm_trader.index.asof import Window
from llm_trader.index.memory import SymbolArrays
from llm_trader.index.points import PointTable
from llm_trader.index.qdrant.layout import Head
from llm_trader.index.qdrant.reader import Reader
from llm_trader.index.qdrant.single_flight import Turns
from llm_trader.timeframe import DAY_MS, Millis

_STEP_MS: Final = 4 * DAY_MS  # so that windows that begin a little earlier need nothing more


class MovedError(Exception):
    """The alias may lead to another collection by now."""


class _Kept:
    """One symbol's points from `from_ms` on, as of the transaction `seen`."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.arrays: SymbolArrays | None = None
        self.from_ms: Millis = 0
        self.seen = 0

    def merge(self, table: PointTable) -> None:
        new = table.take(table.timestamp_ms >= self.from_ms)
        if self.arrays is not None and len(new):
            self.arrays.merge(new)


class Mirror:
    """Of one collection. `head` is that of the newest run that is known of."""

    def __init__(self, reader: Reader, head: Head) -> None:
        self.reader = reader
        self.head = head
        self._kept: dict[str, _Kept] = {}

    def seen(self, symbol: str) -> int:
        """The last transaction that is known of; to be noted before a head is asked for."""
        kept = self._kept.get(symbol)
        return kept.seen if kept else 0

    def scan(self, symbol: str, window: Window) -> PointTable:
        """The points of a window of a symbol that was loaded that far back, without vectors."""
        arrays = self._loaded(symbol).arrays
        if arrays is None:
            raise MovedError
        return arrays.scan(window)

    async def load(self, symbol: str, earliest_ms: Millis) -> None:
        """Keep a symbol from a time on. Raises `SymbolNotFoundError` if it has no points."""
        kept = self._kept.setdefault(symbol, _Kept())
        if kept.arrays is not None and kept.from_ms <= earliest_ms:
            return
        async with kept.turns.one():
            from_ms = earliest_ms - earliest_ms % _STEP_MS
            if kept.arrays is None:
                head = await self.reader.head()
                table = await self.reader.rows(symbol, from_ms, None)
                if not len(table):
                    await self._require_kept(symbol)
                kept.arrays, kept.from_ms, kept.seen = SymbolArrays(table), from_ms, head.written
            elif from_ms < kept.from_ms:
                older = await self.reader.rows(symbol, from_ms, kept.from_ms)
                kept.from_ms = from_ms
                kept.merge(older)

    def check(self, head: Head) -> None:
        """Raises `MovedError` for a head of another collection, or of a run that began since."""
        if head.token != self.head.token:
            raise MovedError

    async def catch_up(self, symbol: str, head: Head, seen_before: int) -> None:
        """Take over what was written up to a head that was asked for after `seen_before`."""
        self.check(head)
        kept = self._loaded(symbol)
        if head.written < seen_before:  # an older state was restored
            self._kept.clear()
            raise MovedError
        if head.written > kept.seen:
            await self._take_over(symbol, kept, head.written)

    async def look_again(self, symbol: str) -> None:
        """Take over what is there of a transaction under way."""
        kept = self._loaded(symbol)
        await self._take_over(symbol, kept, kept.seen)

    async def _take_over(self, symbol: str, kept: _Kept, written: int) -> None:
        async with kept.turns.one():
            if kept.seen > written or kept.arrays is None:
                return
            kept.merge(await self.reader.changes(symbol, kept.seen))
            kept.seen = max(kept.seen, written)

    def wrote(self, points: PointTable, before: int, written: int) -> None:
        """Take over what this process wrote itself, if nothing before it is missing."""
        kept = self._kept.get(points.symbol)
        if kept and kept.arrays is not None and kept.seen == before and not kept.turns.taken():
            kept.merge(replace(points, vectors={}))
            kept.seen = written

    async def require(self, symbol: str) -> None:
        """Raises `SymbolNotFoundError` for a symbol without points."""
        if symbol not in (counts := await self.reader.counts()):
            raise SymbolNotFoundError(symbol, list(counts))

    async def _require_kept(self, symbol: str) -> None:
        try:
            await self.require(symbol)
        except SymbolNotFoundError:
            self._kept.pop(symbol, None)  # or made-up symbols would pile up
            raise

    def _loaded(self, symbol: str) -> _Kept:
        try:
            return self._kept[symbol]
        except KeyError:  # an older state was restored meanwhile
            raise MovedError from None
