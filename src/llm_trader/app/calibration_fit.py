"""What past evidence is worth, fitted from a market store."""

from __future__ import annotations

from pathlib import Path

from llm_trader.app.ingestion import spaces_of
from llm_trader.errors import InvalidInputError
from llm_trader.evaluation.calibration_study import study_of
from llm_trader.evaluation.conformal.calibration_fit import Fitted, fit
from llm_trader.evaluation.dataset import read_dataset
from llm_trader.evaluation.forecast.neighbour_search import Search
from llm_trader.evaluation.result_files import write_study
from llm_trader.evaluation.verdict.multiple_testing import Ledger
from llm_trader.market.store import MarketStore
from llm_trader.progress import Progress
from llm_trader.retrieval.search_spec import EpisodeSearch
from llm_trader.settings.tree import Settings
from llm_trader.timeframe import Millis, iso8601


def calibrate_from_store(
    settings: Settings,
    symbols: list[str],
    start_ms: Millis,
    end_ms: Millis,
    now_ms: Millis,
    *,
    holdout: float,
    seed: int,
    reading: Progress,
    searching: Progress,
) -> Fitted:
    """Fit for the search that a server with these settings does; no symbols means all."""
    if start_ms >= end_ms:
        raise InvalidInputError("--start lies after --end; give the earlier time first")
    interval_ms = settings.snapshot.interval_ms
    search = search_of(settings.retrieval)
    with MarketStore.open(settings.market.store) as store:
        named = symbols or store.symbols()
        spaces = spaces_of(settings, store, named)
        dataset = read_dataset(
            store,
            spaces,
            named,
            start_ms,
            end_ms,
            lookback_days=search.lookback_days,
            interval_ms=interval_ms,
            progress=reading,
        )
    return fit(
        dataset,
        spaces,
        search,
        step_ms=interval_ms,
        holdout=holdout,
        seed=seed,
        created_at=iso8601(now_ms),
        progress=searching,
    )


def write_calibration_report(
    settings: Settings, fitted: Fitted, folder: Path, seconds: float
) -> None:
    """The files of an evaluation, of what was measured on the way."""
    tried = Ledger(folder).configurations()
    search = search_of(settings.retrieval)
    write_study(study_of(fitted, search, tried, seconds), folder)


def search_of(spec: EpisodeSearch) -> Search:
    return Search(**spec.episode_fields())
