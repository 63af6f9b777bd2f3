"""The forecasts of a running server: written down as they are served, and scored beside it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Final

import structlog

from llm_trader.forecasts.journal import ForecastJournal, ForecastLine
from llm_trader.forecasts.outcomes import newest_candles, score
from llm_trader.forecasts.quality import ForecastQuality, quality_of
from llm_trader.forecasts.reading import JournalReader
from llm_trader.forecasts.scoring import ForecastScores
from llm_trader.retrieval.answer import Answer
from llm_trader.snapshot.source import SnapshotSource
from llm_trader.timeframe import Millis

# Some 5 ms of reading; queries wait meanwhile.
_LINES_AT_ONCE: Final = 100
_STEP_S: Final = 0.005
_PAUSE_S: Final = 30.0

_log = structlog.get_logger(__name__)


class ServedForecasts:
    """All processes of a server write to the journal, and each reads all of it: so all know the
    same scores, also after a restart.
    """

    def __init__(
        self,
        journal: ForecastJournal,
        reader: JournalReader,
        market: SnapshotSource | None,
        clock: Callable[[], Millis],
    ) -> None:
        self.scores = ForecastScores()
        self._journal, self._reader = journal, reader
        self._market, self._clock = market, clock
        self._catching_up = True
        self._passes = self._read_and_score()

    def wants_references(self, symbol: str, as_of_ms: Millis) -> bool:
        """Whether an answer about this state should have its `references`."""
        return self._journal.wants_references(symbol, as_of_ms)

    def served(self, symbol: str, as_of_ms: Millis, answer: Answer, request_id: str) -> None:
        """To be called before the reply is sent; `as_of_ms` is the time of the query's state."""
        self._journal.record(symbol, as_of_ms, answer, request_id)

    def quality(self, symbol: str | None, days: int) -> ForecastQuality:
        now_ms, catching_up = self._clock(), self._catching_up
        return quality_of(self.scores, symbol, days, now_ms, catching_up=catching_up)

    def advance(self, budget_s: float) -> bool:
        """Reads and scores for about so long; whether it has come to the end of what is there."""
        end_s = time.monotonic() + budget_s
        for is_at_end in self._passes:
            if is_at_end:
                self._catching_up = False
                return True
            if time.monotonic() >= end_s:
                break
        return False

    async def follow(self) -> None:
        """Never ends."""
        while True:
            is_at_end = self.advance(_STEP_S)
            await asyncio.sleep(_PAUSE_S if is_at_end else 0)

    def _read_and_score(self) -> Iterator[bool]:
        """Passes without an end, in steps; the last step of each is true."""
        while True:
            lines = self._read()
            for line in lines:
                line.add_to(self.scores)
            yield False
            yield from self._score()
            yield len(lines) < _LINES_AT_ONCE

    def _read(self) -> list[ForecastLine]:
        try:
            return self._reader.read(_LINES_AT_ONCE)
        except OSError as error:
            _log.warning("forecasts_not_read", reason=error.strerror)
            return []

    def _score(self) -> Iterator[bool]:
        now_ms, market = self._clock(), self._market
        newest = {} if market is None else newest_candles(market.store, market.intraday, now_ms)
        for due in self.scores.due(newest, now_ms):
            if market is not None:
                score(market.store, market.intraday, self.scores, due, newest)
            yield False
