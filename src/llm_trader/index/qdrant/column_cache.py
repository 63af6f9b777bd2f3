"""Times, columns and runs of a collection's points, kept in the process by symbol.

Every answer needs the outcomes of its whole window, far more than its nearest points; fetching
them each time would cost more than the search. Vectors stay with the server. A symbol is kept as
far back as a query has reached, and brought up to date when the head says that more was written.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from llm_trader.errors import SymbolNotFoundError
from llm_trader.index.asof import Window
from llm_trader.index.memory import SymbolArrays
from llm_trader.index.points import PointTable
from llm_trader.index.qdrant.layout import Head
from llm_trader.index.qdrant.reader import Reader
from llm_trader.index.qdrant.single_flight import SingleFlight
from llm_trader.timeframe import DAY_MS, Millis

_STEP_MS: Final = 4 * DAY_MS  # so that windows that begin a little earlier need no request


class MovedError(Exception):
    """The alias may lead to another collection by now."""


@dataclass(slots=True)
class _SymbolColumns:
    """One symbol's points from `from_ms` on, as of the transaction `seen`."""

    flight: SingleFlight = field(default_factory=SingleFlight)
    arrays: SymbolArrays | None = None
    from_ms: Millis = 0
    seen: int = 0

    def merge(self, table: PointTable) -> None:
        new = table.take(table.timestamp_ms >= self.from_ms)
        if self.arrays is not None and len(new):
            self.arrays.merge(new)


class ColumnCache:
    """The cache of one collection. `head` is that of the newest run that was seen."""

    def __init__(self, reader: Reader, head: Head) -> None:
        self.reader = reader
        self.head = head
        # How often a symbol was there as far back as a query reached, and how often it was not.
        self.hits = self.misses = 0
        self._entries: dict[str, _SymbolColumns] = {}

    def seen(self, symbol: str) -> int:
        """The last transaction that was taken over; note it before you request a head."""
        entry = self._entries.get(symbol)
        return entry.seen if entry else 0

    def scan(self, symbol: str, window: Window) -> PointTable:
        """The points of a window of a symbol that was loaded that far back, without vectors."""
        arrays = self._loaded(symbol).arrays
        if arrays is None:
            raise MovedError
        return arrays.scan(window)

    async def load(self, symbol: str, earliest_ms: Millis) -> None:
        """Keep a symbol from a time on. Raises `SymbolNotFoundError` if it has no points."""
        entry = self._entries.setdefault(symbol, _SymbolColumns())
        if entry.arrays is not None and entry.from_ms <= earliest_ms:
            self.hits += 1
            return
        self.misses += 1
        async with entry.flight.turn():
            from_ms = earliest_ms - earliest_ms % _STEP_MS
            if entry.arrays is None:
                # Before the rows: what is written meanwhile is read again rather than missed.
                head = await self.reader.head()
                table = await self.reader.rows(symbol, from_ms, None)
                if not len(table):
                    await self.require(symbol)
                entry.arrays, entry.from_ms, entry.seen = SymbolArrays(table), from_ms, head.written
            elif from_ms < entry.from_ms:
                older = await self.reader.rows(symbol, from_ms, entry.from_ms)
                entry.from_ms = from_ms
                entry.merge(older)

    def check(self, head: Head) -> None:
        """Raises `MovedError` for a head of another collection, or of a run that began since."""
        if head.token != self.head.token:
            raise MovedError

    async def catch_up(self, symbol: str, head: Head, seen_before: int) -> None:
        """Take over what was written up to a head that was requested after `seen_before`."""
        self.check(head)
        entry = self._loaded(symbol)
        # An older state was restored, or points were removed, which a look for new ones misses.
        if head.written < seen_before or entry.seen < head.removed <= head.written:
            self._entries.clear()
            raise MovedError
        if head.written > entry.seen:
            await self._take_over(symbol, entry, head.written)

    async def look_again(self, symbol: str) -> None:
        """Take over the stored points of an unfinished transaction."""
        entry = self._loaded(symbol)
        await self._take_over(symbol, entry, entry.seen)

    async def _take_over(self, symbol: str, entry: _SymbolColumns, written: int) -> None:
        async with entry.flight.turn():
            if entry.seen > written or entry.arrays is None:
                return
            entry.merge(await self.reader.changes(symbol, entry.seen))
            entry.seen = max(entry.seen, written)

    def add_written(self, points: PointTable, previous: int, written: int) -> None:
        """Add what this process wrote itself, if the transactions up to `previous` are cached."""
        entry = self._entries.get(points.symbol)
        if entry and entry.arrays and entry.seen == previous and not entry.flight.busy():
            entry.merge(replace(points, vectors={}))
            entry.seen = written

    def drop(self, symbol: str) -> None:
        """Load the symbol anew before the next answer."""
        self._entries.pop(symbol, None)

    async def require(self, symbol: str) -> None:
        """Raises `SymbolNotFoundError` for a symbol without points."""
        if symbol not in (counts := await self.reader.counts()):
            self._entries.pop(symbol, None)  # otherwise made-up symbols would pile up
            raise SymbolNotFoundError(symbol, list(counts))

    def _loaded(self, symbol: str) -> _SymbolColumns:
        try:
            return self._entries[symbol]
        except KeyError:  # an older state was restored meanwhile
            raise MovedError from None
