"""What past evidence is worth: fitted from a market store, and loaded for a server."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import structlog

from llm_trader.app.ingestion import spaces_of
from llm_trader.errors import InvalidInputError
from llm_trader.evaluation.calibrating import Fitted, fit
from llm_trader.evaluation.calibration_study import study_of
from llm_trader.evaluation.dataset import Progress, read_dataset
from llm_trader.evaluation.trials import Ledger
from llm_trader.evaluation.walk import Search
from llm_trader.evaluation.writing import write_study
from llm_trader.index.protocol import Collection
from llm_trader.market.store import MarketStore
from llm_trader.retrieval.calibration import LoadedCalibration, read_calibration
from llm_trader.retrieval.retriever import QueryConfig, scope_of
from llm_trader.settings.tree import Settings
from llm_trader.timeframe import MINUTE_MS, Millis, iso8601

_NOT_OF_A_QUERY: Final = {"calibration", "max_calibration_age_days"}


def query_defaults(settings: Settings) -> QueryConfig:
    """What a query gets where its own `query_config` says nothing."""
    return QueryConfig(**settings.retrieval.model_dump(exclude=_NOT_OF_A_QUERY))


def loaded_calibration(settings: Settings) -> LoadedCalibration | None:
    """None where none is set. Raises `ConfigurationError` where the file is no calibration."""
    path = settings.retrieval.calibration
    if path is None:
        return None
    return LoadedCalibration(read_calibration(path), settings.retrieval.max_calibration_age_days)


def log_loaded(loaded: LoadedCalibration | None, index: Collection, defaults: QueryConfig) -> None:
    """Also whether queries will be answered with it; each reply says so, too."""
    if loaded is None:
        return
    known, log = loaded.calibration, structlog.get_logger(__name__)
    log.info("calibration_loaded", digest=known.digest, known_by=iso8601(known.known_by_ms))
    for symbol in known.scope.symbols[:1]:
        if objections := loaded.scope_objections(scope_of(index, symbol, defaults)):
            log.warning("calibration_not_used", digest=known.digest, because=objections)


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
    interval_ms = settings.snapshot.interval_minutes * MINUTE_MS
    search = search_of(query_defaults(settings))
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
    search = search_of(query_defaults(settings))
    write_study(study_of(fitted, search, tried, seconds), folder)


def search_of(config: QueryConfig) -> Search:
    return Search(
        vector=config.vector,
        lookback_days=config.lookback_days,
        episodes=config.evidence_k,
        min_gap_hours=config.min_gap_hours,
        include_regime_filters=config.include_regime_filters,
    )
