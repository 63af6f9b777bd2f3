"""Scores the journal of served forecasts by the market store, for commands."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

from llm_trader.app.ingestion import intraday_timeframe
from llm_trader.app.job import Job
from llm_trader.errors import SymbolNotFoundError
from llm_trader.forecasts.journal import FORECASTS
from llm_trader.forecasts.outcomes import newest_candles, score
from llm_trader.forecasts.quality import ForecastQuality, quality_of
from llm_trader.forecasts.reading import JournalReader
from llm_trader.forecasts.scoring import ForecastScores, Scored, in_order_of_misses
from llm_trader.market.store import MarketStore
from llm_trader.storage.chain.verification import ChainsReport, chains_in, verify
from llm_trader.timeframe import Millis

_LINES_AT_ONCE: Final = 5000


class ListedForecasts(NamedTuple):
    """Scores, misses first, and the symbols and times of what waits for an outcome."""

    scored: list[Scored]
    waiting: list[tuple[str, Millis]]


def verify_journal(job: Job, expected: tuple[str, ...]) -> ChainsReport:
    return verify(FORECASTS, journal_folder(job), expected)


def score_journal(job: Job, symbol: str | None, days: int) -> ForecastQuality:
    """Over the last days, of one symbol or of all."""
    scores, _ = _scored(job, symbol)
    return quality_of(scores, symbol, days, job.now_ms)


def list_journal(job: Job, symbol: str | None) -> ListedForecasts:
    scores, scored = _scored(job, symbol)
    own = [one for one in scored if symbol in (None, one.symbol)]
    waiting = sorted(scores.waiting_of(symbol), key=lambda key: key[1], reverse=True)
    return ListedForecasts(in_order_of_misses(own), waiting)


def journal_folder(job: Job) -> Path:
    return job.settings.forecasts.folder_beside(job.settings.index.path)


def _scored(job: Job, symbol: str | None) -> tuple[ForecastScores, list[Scored]]:
    folder, settings = journal_folder(job), job.settings
    chains_in(FORECASTS, folder)  # raises where there is no journal
    made: list[Scored] = []
    scores = ForecastScores(max_waiting=1 << 62, on_scored=made.append)
    reader = JournalReader(folder)
    with MarketStore.open(settings.market.store) as store:
        stored = store.symbols()
        if symbol is not None and symbol not in stored:
            raise SymbolNotFoundError(symbol, stored)
        intraday = intraday_timeframe(settings, store, stored)
        newest = newest_candles(store, intraday, job.now_ms)
        while lines := reader.read(_LINES_AT_ONCE):
            for line in lines:
                line.add_to(scores)
            for due in scores.due(newest, job.now_ms):
                score(store, intraday, scores, due, newest)
    return scores, made
