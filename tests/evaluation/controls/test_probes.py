"""A probe is quiet where nothing was known too early, and speaks where anything was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_trader.evaluation.controls.probes import (
    CANARY,
    TRUNCATION,
    probe_future_canary,
    probe_truncation,
)
from llm_trader.evaluation.dataset import Dataset, read_dataset
from llm_trader.evaluation.forecast import neighbour_search as walking
from llm_trader.evaluation.forecast.ensembles import HorizonOutcomes
from llm_trader.evaluation.forecast.neighbour_search import reweight_features
from llm_trader.evaluation.forecast.skills import WalkForward, walk_forward
from llm_trader.evaluation.plan import Search, StudyPlan
from llm_trader.evaluation.results import Probe
from llm_trader.index.ingestion import Spaces
from llm_trader.index.points import COLUMN_ROW, STATE, TEXT, PointTable
from llm_trader.market.store import MarketStore
from llm_trader.timeframe import DAY_MS, HOUR_MS, M5
from tests.index.builders import unit_vectors
from tests.index.markets import SPACE, SYMBOL, WARM_MS, make_store, market

SEARCH = Search(include_regime_filters=False, lookback_days=3, neighbours=6, gap_hours=2.0)
START_MS = WARM_MS + 5 * DAY_MS
END_MS = START_MS + 3 * DAY_MS
SEED = 3
PLAN = StudyPlan(search=SEARCH, seed=SEED)


@pytest.fixture(scope="module")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("probes") / "store", market())


@pytest.fixture(scope="module")
def store(store_path: Path) -> Iterator[MarketStore]:
    with MarketStore.open(store_path) as opened:
        yield opened


@pytest.fixture(scope="module")
def dataset(store: MarketStore) -> Dataset:
    return read_dataset(
        store,
        Spaces(SPACE),
        [SYMBOL],
        START_MS,
        END_MS,
        lookback_days=SEARCH.lookback_days,
        interval_ms=HOUR_MS,
    )


def walk_over(
    dataset: Dataset, search: Search = SEARCH, points: PointTable | None = None
) -> WalkForward:
    """As an evaluation walks; queries are rows of the points, whatever was done to these."""
    held = dataset if points is None else replace(dataset, points={SYMBOL: points})
    both = (held.points[SYMBOL], held.queries(SYMBOL, HOUR_MS))
    table, queries = (reweight_features(of, SPACE, search.feature_weights) for of in both)
    return walk_forward(table, queries, search, intraday=M5, step_ms=HOUR_MS, seed=SEED)


def probed(walk: WalkForward, store: MarketStore, search: Search = SEARCH) -> tuple[Probe, Probe]:
    return (
        probe_future_canary(walk, StudyPlan(search=search, seed=SEED)),
        probe_truncation(walk, StudyPlan(search=search, seed=SEED), Spaces(SPACE), store),
    )


def with_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search that takes a point's own time for the one at which its outcome is known."""
    honest = walking.visible_rows

    def leaking(timestamp_ms: Any, as_of_ms: Any, *more: Any) -> Any:
        return honest(timestamp_ms, as_of_ms + DAY_MS, *more)

    monkeypatch.setattr(walking, "visible_rows", leaking)


# --- Quiet


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gap_hours": 0.0},
        {"vector": "random"},
        {"include_regime_filters": True},
        {"embargo_hours": 5.0},
        {"feature_weights": {"rsi_7": 4.0, "hour_sine": 0.0}},
    ],
    ids=str,
)
def test_an_honest_walk_has_no_problem(
    dataset: Dataset, store: MarketStore, changes: dict[str, Any]
) -> None:
    plain = {"lookback_days": 3, "neighbours": 4, "include_regime_filters": False}
    search = Search(**(plain | {"gap_hours": 2.0} | changes))  # type: ignore[arg-type]
    canary, cut = probed(walk_over(dataset, search), store, search)
    assert (canary.problem, cut.problem) == (None, None)
    assert (canary.name, cut.name) == (CANARY, TRUNCATION)
    assert (canary.symbol, cut.symbol) == (SYMBOL, SYMBOL)
    assert (canary.checked, cut.checked) == (20, 4)


def test_a_walk_with_texts_is_probed_with_them(dataset: Dataset, store: MarketStore) -> None:
    points = dataset.points[SYMBOL]
    texts = unit_vectors(len(points), 1, 5)
    told = replace(points, vectors={**points.vectors, TEXT: texts})
    for vector in ("text", "hybrid"):
        search = Search(
            include_regime_filters=False,
            vector=vector,  # type: ignore[arg-type]
            lookback_days=3,
            neighbours=4,
            gap_hours=4.0,
        )
        assert [one.problem for one in probed(walk_over(dataset, search, told), store, search)] == [
            None,
            None,
        ]


def test_where_no_query_found_its_neighbours_nothing_is_checked(
    dataset: Dataset, store: MarketStore
) -> None:
    search = Search(include_regime_filters=False, lookback_days=1, neighbours=6)
    canary, cut = probed(walk_over(dataset, search), store, search)
    assert (canary.checked, cut.checked) == (0, 0)


# --- Speaking


def test_a_walk_that_saw_outcomes_before_they_were_known_is_found_out_by_both(
    dataset: Dataset, store: MarketStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as leaking:
        with_leak(leaking)
        seen = walk_over(dataset)
    canary, cut = probed(seen, store)
    assert canary.problem is not None
    assert canary.problem.startswith("what is not known yet changes the answer at 2024-")
    assert cut.problem is not None
    assert cut.problem.startswith("other neighbours are found at 2024-")


def test_so_is_a_search_that_always_does(
    dataset: Dataset, store: MarketStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_leak(monkeypatch)
    canary, cut = probed(walk_over(dataset), store)
    assert canary.problem is not None
    assert cut.problem is not None


def test_an_oracle_that_picks_what_will_turn_out_alike_is_found_out(
    dataset: Dataset, store: MarketStore
) -> None:
    walk = walk_over(dataset)
    rows = walk.neighbours.rows.copy()
    outcomes, observed = (of.column("outcome_4h") for of in (walk.points, walk.queries))
    for i in np.flatnonzero(walk.neighbours.complete):
        first, last = int(walk.neighbours.first[i]), int(walk.neighbours.last[i])
        near = np.argsort(np.abs(outcomes[first:last] - observed[i]))
        rows[i] = first + near[: rows.shape[1]]
    canary, cut = probed(walk._replace(neighbours=walk.neighbours._replace(rows=rows)), store)
    assert canary.problem is not None
    assert cut.problem is not None


def test_a_forecast_that_knows_what_followed_its_query_is_found_out(
    dataset: Dataset, store: MarketStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk, honest = walk_over(dataset), HorizonOutcomes.outcomes

    def peeking(self: HorizonOutcomes, rows: Any) -> Any:
        return honest(self, rows) + 0.1 * self.observed[:, None]

    monkeypatch.setattr(HorizonOutcomes, "outcomes", peeking)
    assert probed(walk, store)[0].problem is not None


def shifted(array: np.ndarray) -> np.ndarray:
    """Each row with what the next one should have."""
    return np.concatenate([array[1:], array[-1:]])


def vectors_of_later(points: PointTable) -> PointTable:
    return replace(points, vectors={STATE: shifted(points.vectors[STATE])})


def values_of_later(points: PointTable) -> PointTable:
    return replace(points, values=shifted(points.values.T).T)


def changed(
    name: str, of: Callable[[np.ndarray], np.ndarray]
) -> Callable[[PointTable], PointTable]:
    def change(points: PointTable) -> PointTable:
        values = points.values.copy()
        values[COLUMN_ROW[name]] = of(values[COLUMN_ROW[name]])
        return replace(points, values=values)

    return change


@pytest.mark.parametrize(
    ("leak", "told"),
    [
        (vectors_of_later, "the state's vector at 2024-"),
        (values_of_later, "the state at 2024-"),
        (changed("rsi_14", shifted), "the state at 2024-"),
        (changed("outcome_4h", lambda of: 1.01 * of), "outcome_4h of points is another"),
        (changed("outcome_24h", shifted), "outcome_24h of points is another"),
        (lambda points: points.take(np.arange(len(points)) % 29 != 0), "the points are others"),
    ],
    ids=["vectors", "values", "one field", "tampered", "outcomes", "lost points"],
)
def test_points_that_are_not_what_was_known_then_are_found_out_by_truncation(
    dataset: Dataset, store: MarketStore, leak: Callable[[PointTable], PointTable], told: str
) -> None:
    walk = walk_over(dataset, points=leak(dataset.points[SYMBOL]))
    cut = probe_truncation(walk, PLAN, Spaces(SPACE), store)
    assert cut.problem is not None
    assert cut.problem.startswith(told)


def test_queries_whose_vectors_alone_know_more_are_found_out(
    dataset: Dataset, store: MarketStore
) -> None:
    points, queries = dataset.points[SYMBOL], dataset.queries(SYMBOL, HOUR_MS)
    walk = walk_forward(
        points, vectors_of_later(queries), SEARCH, intraday=M5, step_ms=HOUR_MS, seed=SEED
    )
    cut = probe_truncation(walk, PLAN, Spaces(SPACE), store)
    assert cut.problem is not None
