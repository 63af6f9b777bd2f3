"""What is read when Prometheus scrapes: data, index, caches, queue, calibration, and scores.

What cannot be read is absent, and `llm_trader_store_up` or `llm_trader_index_up` is 0. Symbols are
those of the store and the index, the first 200 by name.
"""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import structlog

from llm_trader.errors import LlmTraderError
from llm_trader.forecasts.scoring import ForecastScores
from llm_trader.forecasts.served import ServedForecasts
from llm_trader.index.protocol import CountsCacheUse, IndexInfo
from llm_trader.market.series_ages import SeriesAge
from llm_trader.retrieval.retriever import Retriever
from llm_trader.rpc.admission import Admission
from llm_trader.serving.metrics import definitions
from llm_trader.serving.metrics.registry import Readings
from llm_trader.snapshot.source import SnapshotSource
from llm_trader.timeframe import Millis

MAX_SYMBOLS: Final = 200
# Queries wait meanwhile; the rest is scored in the background.
_SCORING_S: Final = 0.02

# Prometheus waits for 10 s by default.
_PATIENCE_S: Final = 5.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Sources:
    """What a server is made of. Without a clock nothing has an age."""

    retriever: Retriever
    market: SnapshotSource | None
    gate: Admission
    forecasts: ServedForecasts | None
    version: str
    clock: Callable[[], Millis] | None


async def read(sources: Sources) -> Readings:
    readings = Readings()
    now_ms = None if sources.clock is None else sources.clock()
    ages = _read_ages(readings, sources.market, now_ms)
    index = await _read_index(readings, sources.retriever)
    indexed = index.symbols if index else []
    symbols = sorted({age.symbol for age in ages} | {held.symbol for held in indexed})
    shown = frozenset(symbols[:MAX_SYMBOLS])
    readings.add(definitions.SYMBOLS_LEFT_OUT, len(symbols) - len(shown))
    _add_ages(readings, ages, shown)
    _add_extents(readings, sources.market, shown)
    if index is not None:
        _add_index(readings, index, shown, now_ms)
    _add_caches(readings, sources.retriever, sources.market)
    _add_load(readings, sources.gate)
    if now_ms is not None:
        _add_calibration(readings, sources.retriever, now_ms)
    if now_ms is not None and sources.forecasts is not None:
        sources.forecasts.advance(_SCORING_S)
        _add_scores(readings, sources.forecasts.scores, now_ms)
    _add_build(readings, sources, index)
    return readings


def _read_ages(
    readings: Readings, market: SnapshotSource | None, now_ms: Millis | None
) -> list[SeriesAge]:
    if market is None:
        return []
    try:
        ages = market.store.series_ages(now_ms)
    except LlmTraderError as error:
        _log.warning("metrics_without_store", error=error.message)
        ages = []
        readings.add(definitions.STORE_UP, 0)
    else:
        readings.add(definitions.STORE_UP, 1)
    return ages


async def _read_index(readings: Readings, retriever: Retriever) -> IndexInfo | None:
    try:
        async with asyncio.timeout(_PATIENCE_S):
            info = await retriever.index.info()
    except (LlmTraderError, TimeoutError) as error:
        _log.warning("metrics_without_index", error=str(error) or "no answer in time")
        readings.add(definitions.INDEX_UP, 0)
        return None
    readings.add(definitions.INDEX_UP, 1)
    return info


def _add_ages(readings: Readings, ages: list[SeriesAge], shown: frozenset[str]) -> None:
    for age in ages:
        if age.symbol in shown and age.age_seconds is not None:
            readings.add(definitions.FRESHNESS, age.age_seconds, age.symbol, age.series)


def _add_extents(readings: Readings, market: SnapshotSource | None, shown: frozenset[str]) -> None:
    if market is None:
        return
    try:
        extents = market.store.series_extents()
    except LlmTraderError:
        return  # the ages have told of it
    for extent in extents:
        if extent.symbol in shown:
            labels = extent.symbol, extent.series
            readings.add(definitions.REFUSED, extent.refused, *labels)
            if extent.gaps is not None and extent.missing is not None:
                readings.add(definitions.GAPS, extent.gaps, *labels)
                readings.add(definitions.MISSING, extent.missing, *labels)


def _add_index(
    readings: Readings, index: IndexInfo, shown: frozenset[str], now_ms: Millis | None
) -> None:
    for held in index.symbols:
        if held.symbol in shown:
            readings.add(definitions.INDEX_POINTS, held.points, held.symbol)
            if now_ms is not None:
                age_s = (now_ms - held.last_timestamp_ms) / 1000
                readings.add(definitions.INDEX_NEWEST, age_s, held.symbol)
    if index.size_bytes is not None:
        readings.add(definitions.INDEX_BYTES, index.size_bytes)


def _add_caches(readings: Readings, retriever: Retriever, market: SnapshotSource | None) -> None:
    for name, hits, misses in _cache_use(retriever, market):
        readings.add(definitions.CACHE, hits, name, "hit")
        readings.add(definitions.CACHE, misses, name, "miss")


def _cache_use(
    retriever: Retriever, market: SnapshotSource | None
) -> Iterator[tuple[str, int, int]]:
    if market is not None:
        yield "days", market.day_hits, market.day_misses
    for name, cache in retriever.caches.items():
        yield name, cache.hits, cache.misses
    if (texts := retriever.texts) is not None:
        yield "text_vectors", texts.local_hits, texts.shared_hits + texts.encoded
        yield "shared_text_vectors", texts.shared_hits, texts.encoded
    if isinstance(retriever.index, CountsCacheUse):
        for name, (hits, misses) in retriever.index.cache_use().items():
            yield name, hits, misses


def _add_load(readings: Readings, gate: Admission) -> None:
    readings.add(definitions.CONNECTIONS, gate.connections)
    readings.add(definitions.WAITING, gate.waiting)
    readings.add(definitions.IN_FLIGHT, gate.in_flight)
    readings.add(definitions.RECEIVED, gate.received_bytes)
    readings.add(definitions.UNSENT, gate.budget.total_bytes)


def _add_calibration(readings: Readings, retriever: Retriever, now_ms: Millis) -> None:
    if (loaded := retriever.calibration) is not None:
        age_s = (now_ms - loaded.calibration.known_by_ms) / 1000
        readings.add(definitions.CALIBRATION_AGE, age_s)


def _add_scores(readings: Readings, scores: ForecastScores, now_ms: Millis) -> None:
    readings.add(definitions.FORECASTS_WAITING, scores.waiting)
    for reason, count in scores.unscored.items():
        readings.add(definitions.FORECASTS_UNSCORED, count, reason)
    for name, score in scores.summary(now_ms).items():
        readings.add(definitions.FORECASTS_SCORED, score.scored, name)
        readings.add(definitions.CALIBRATED_SCORED, score.calibrated, name)
        values = (
            (definitions.COVERAGE, score.coverage, "forecast"),
            (definitions.COVERAGE, score.calibrated_coverage, "calibrated"),
            (definitions.CRPS, score.crps, "forecast"),
            (definitions.CRPS, score.base_crps, "base_rate"),
        )
        for definition, value, label in values:
            if value is not None:
                readings.add(definition, value, name, label)
        if score.skill is not None:
            readings.add(definitions.CRPS_SKILL, score.skill, name)


def _add_build(readings: Readings, sources: Sources, index: IndexInfo | None) -> None:
    python, features = platform.python_version(), sources.retriever.space.feature_version
    backend = "unknown" if index is None else index.backend
    readings.add(definitions.BUILD, 1, sources.version, python, features, backend)
