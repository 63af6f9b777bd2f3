"""A year of one symbol evaluated, and its search against bare products and against the server's."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.timing import Figure, in_turn
from benchmarks.workload import SPACE, START_MS, write_market
from llm_trader.evaluation.dataset import Dataset, read_dataset
from llm_trader.evaluation.forecast.neighbour_search import find_neighbours
from llm_trader.evaluation.plan import Search, StudyPlan
from llm_trader.evaluation.study import StudyRun, evaluate
from llm_trader.evaluation.symbol_study import Subject
from llm_trader.evaluation.verdict.multiple_testing import Ledger
from llm_trader.evaluation.workers import available_cores
from llm_trader.index.ingestion import Spaces
from llm_trader.index.points import STATE
from llm_trader.market.store import MarketStore
from llm_trader.progress import no_progress
from llm_trader.timeframe import DAY_MS, M15, Millis

_SYMBOL: Final = "BTCUSDT"
_LOOKBACK_DAYS: Final = 90
_WARM_UP_DAYS: Final = 21
_YEAR_DAYS: Final = 365
_FIRST_MS: Final[Millis] = START_MS + (_WARM_UP_DAYS + _LOOKBACK_DAYS) * DAY_MS
_LAST_MS: Final[Millis] = _FIRST_MS + _YEAR_DAYS * DAY_MS - M15.ms
_BLOCK: Final = 96
_HITS: Final = 300


def evaluation(folder: Path) -> list[Figure]:
    store = folder / "year"
    days = _WARM_UP_DAYS + _LOOKBACK_DAYS + _YEAR_DAYS + 1
    write_market(store, (_SYMBOL,), days)
    with MarketStore.open(store) as opened:
        dataset = read_dataset(
            opened,
            Spaces(SPACE),
            [_SYMBOL],
            _FIRST_MS,
            _LAST_MS,
            lookback_days=_LOOKBACK_DAYS,
            interval_ms=M15.ms,
        )
    return [_year(Subject(dataset, store), folder / "results"), _search(dataset)]


def _year(subject: Subject, out: Path) -> Figure:
    """Everything: walk, scores, controls, probes, decisions; on all cores there are."""
    running = StudyRun(Ledger(out), available_cores(), no_progress, "", None)
    started = time.perf_counter()
    metrics = evaluate(subject, StudyPlan(), running).metrics
    took_s = time.perf_counter() - started
    asked = len(subject.dataset.queries(_SYMBOL, M15.ms))
    return Figure(
        f"evaluating {asked:,} queries, {len({of.horizon for of in metrics.skills})} horizons, "
        f"{metrics.origin.plan.search.neighbours} neighbours, with controls and probes",
        f"{took_s:.0f} s on {available_cores()} cores",
        "60 s",
        took_s <= 60,
    )


def _search(dataset: Dataset) -> Figure:
    """Of a week of queries, against the bare product and partial sorts of their window."""
    points, search = dataset.points[_SYMBOL], Search(lookback_days=_LOOKBACK_DAYS)
    week = dataset.queries(_SYMBOL, M15.ms).take(slice(-7 * _BLOCK, None))
    vectors = points.vectors[STATE]
    last = np.searchsorted(points.timestamp_ms, week.timestamp_ms[0] - DAY_MS)
    window = vectors[last - _LOOKBACK_DAYS * _BLOCK : last]

    def subject() -> None:
        find_neighbours(points, week, search)

    def floor() -> None:
        for start in range(0, len(week), _BLOCK):
            cosine = week.vectors[STATE][start : start + _BLOCK] @ window.T
            np.argpartition(cosine, cosine.shape[1] - _HITS, axis=1)

    pair = in_turn(subject, floor, rounds=5, calls=1)
    each = 1e6 / len(week)
    return Figure(
        "neighbours of a week of queries, against bare NumPy products and partial sorts",
        f"{pair.ratio:.2f} x ({pair.subject_s * each:.0f} µs a query, floor "
        f"{pair.floor_s * each:.0f} µs)",
        "",
        None,
    )
