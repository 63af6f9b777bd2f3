"""Margins that cover what they say, from what was known, of the very bands a server gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_trader.errors import InvalidInputError
from llm_trader.evaluation.conformal.bands import (
    WINDOW_DAYS,
    band_scores,
    conformal_quantile,
    trailing_margins,
)
from llm_trader.evaluation.conformal.calibration_fit import fit
from llm_trader.evaluation.dataset import Dataset, read_dataset
from llm_trader.evaluation.forecast.ensembles import HorizonOutcomes
from llm_trader.evaluation.forecast.neighbour_search import find_neighbours
from llm_trader.evaluation.plan import ForecastRule, Search
from llm_trader.index.ingestion import Spaces
from llm_trader.index.points import COLUMN_ROW, PointTable
from llm_trader.market.file_import import import_folder
from llm_trader.market.store import MarketStore
from llm_trader.retrieval.calibration import Calibration, LoadedCalibration, scope_of
from llm_trader.retrieval.retriever import Retriever
from llm_trader.retrieval.search_spec import SearchSpec
from llm_trader.timeframe import DAY_MS, HORIZONS, HOUR_MS, M5, M15, parse_rfc3339
from tests.index.builders import SYMBOL, at
from tests.retrieval.builders import (
    COLLECTION,
    SPACE,
    index_of,
    of_symbol,
    outcomes_at,
    points_of,
    state_of,
    states_at,
)

SLOTS = 48 * 96
SEARCH = Search(include_regime_filters=False, lookback_days=8, evidence_k=20)
CONFIG = SearchSpec(lookback_days=8, evidence_k=20, include_regime_filters=False)
STEP_MS = HOUR_MS


def made_up(seed: int = 0) -> PointTable:
    """Outcomes in proportion to the volatility, so that rescaled ones are exchangeable."""
    states = states_at(at(range(SLOTS)), seed)
    outcomes = outcomes_at(SLOTS, seed)
    outcomes[:4] *= states.column("realized_volatility_24h") / 2
    return points_of(states, outcomes)


def dataset_of(*tables: PointTable) -> Dataset:
    stamps = tables[0].timestamp_ms
    points = {table.symbol: table for table in tables}
    return Dataset(points, M5, "bybit", int(stamps[0]) + 9 * DAY_MS, int(stamps[-1]))


def fitted(dataset: Dataset, search: Search = SEARCH, **more: object) -> Calibration:
    given = {"step_ms": STEP_MS, "created_at": "2025-01-01T00:00:00Z"} | more
    return fit(dataset, Spaces(SPACE), search, **given).calibration  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return dataset_of(made_up())


@pytest.fixture(scope="module")
def calibration(dataset: Dataset) -> Calibration:
    return fitted(dataset)


# --- Margins


@settings(max_examples=12)
@given(
    st.integers(5, 60),
    st.sampled_from(["normal", "heavy", "ties"]),
    st.integers(0, 1000),
)
def test_a_conformal_margin_covers_new_exchangeable_scores_as_often_as_it_says(
    n: int, kind: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    draw = {
        "normal": lambda: rng.standard_normal((2000, n + 1)),
        "heavy": lambda: rng.standard_cauchy((2000, n + 1)),
        "ties": lambda: rng.integers(0, 4, (2000, n + 1)).astype(float),
    }
    scores = draw[kind]()
    margins = np.array([conformal_quantile(row[:n], n) for row in scores])
    covered = (scores[:, n] <= margins).mean()
    assert covered >= 0.8 - 0.04
    if kind != "ties":
        assert covered <= 0.8 + 1 / (n + 1) + 0.04


def test_fewer_effective_scores_give_a_wider_margin() -> None:
    scores = np.random.default_rng(0).standard_normal(1000)
    margins = [conformal_quantile(scores, n) for n in (10, 60, 1000)]
    assert margins == sorted(margins, reverse=True)
    assert margins[0] > margins[2]


def test_a_score_is_how_far_outside_the_band_in_units_of_volatility() -> None:
    low, high = np.full(4, -1.0), np.full(4, 2.0)
    observed = np.array([-3.0, 3.0, 0.5, np.nan])
    scores = band_scores(low, high, observed, np.full(4, 2.0))
    assert scores[:3].tolist() == [1.0, 0.5, -0.75]
    assert np.isnan(scores[3])


@settings(max_examples=15)
@given(st.integers(0, 100))
def test_no_margin_depends_on_outcomes_that_were_not_known_by_then(seed: int) -> None:
    rng = np.random.default_rng(seed)
    times = np.arange(0, 100 * DAY_MS, HOUR_MS)
    scores = rng.standard_normal(len(times))
    days = np.arange(0, 100) * DAY_MS
    day = int(rng.integers(20, 100))
    unknown = times > days[day] - DAY_MS
    changed = np.where(unknown, scores + 100, scores)
    before, after = (
        trailing_margins(times, of, days, HOUR_MS, HOUR_MS) for of in (scores, changed)
    )
    assert np.isfinite(before[day])
    assert np.array_equal(before[: day + 1], after[: day + 1], equal_nan=True)
    resolved_just_now = np.where(times == days[day] - DAY_MS, 1e9, scores)
    largest = trailing_margins(times, resolved_just_now, days, HOUR_MS, HOUR_MS)
    assert largest[day] >= before[day]


def test_a_margin_forgets_what_is_older_than_its_window() -> None:
    times = np.arange(0, 150 * DAY_MS, HOUR_MS)
    scores = np.where(times < 50 * DAY_MS, 100.0, 1.0)
    days = np.arange(0, 150) * DAY_MS
    margins = trailing_margins(times, scores, days, HOUR_MS, HOUR_MS)
    assert margins[40] == 100
    assert margins[50 + 1 + WINDOW_DAYS] == 1


def test_a_margin_takes_ten_outcomes_that_do_not_overlap() -> None:
    times = np.arange(0, 20 * DAY_MS, HOUR_MS)
    days = np.arange(0, 20) * DAY_MS
    margins = trailing_margins(times, np.ones(len(times)), days, DAY_MS, HOUR_MS)
    assert np.isfinite(margins).tolist() == [day >= 11 for day in range(20)]


# --- The fit


def test_on_exchangeable_outcomes_eight_of_ten_fall_inside(calibration: Calibration) -> None:
    for of in calibration.horizons.values():
        assert 0.76 <= of.coverage_after.value <= 0.86
        assert of.coverage_before.value < of.coverage_after.value
        assert of.margin > 0


async def test_the_served_band_is_the_one_that_was_scored(dataset: Dataset) -> None:
    points, queries = dataset.points[SYMBOL], dataset.queries(SYMBOL, STEP_MS)
    neighbours = find_neighbours(points, queries, SEARCH)
    async with index_of(points) as index:
        retriever = Retriever(index, SPACE)
        for row in range(0, len(queries), 150):
            as_of_ms = int(queries.timestamp_ms[row])
            state = state_of(queries, row, as_of_ms)
            told = (await retriever.query(state, as_of_ms, CONFIG)).evidence.horizons
            for name, served in told.items():
                horizon = HorizonOutcomes(points, queries, neighbours, name, ForecastRule())
                ensemble = horizon.outcomes(neighbours.rows)[row]
                assert served.rescaled is not None
                band = served.rescaled.p10, served.rescaled.p90
                assert band == pytest.approx(np.quantile(ensemble, [0.1, 0.9]), rel=1e-6)


def test_it_knows_until_when_it_knows(dataset: Dataset, calibration: Calibration) -> None:
    last_ms = int(dataset.queries(SYMBOL, STEP_MS).timestamp_ms[-1])
    assert calibration.known_by_ms == last_ms + DAY_MS
    split_ms = calibration.held_out_from_ms - DAY_MS
    held_out = (last_ms - split_ms) / (last_ms - calibration.fitted_from_ms)
    assert held_out == pytest.approx(0.3, abs=0.001)


def test_it_is_of_the_search_that_a_server_with_these_settings_does(
    calibration: Calibration,
) -> None:
    asked = scope_of(COLLECTION, SYMBOL, CONFIG)
    assert calibration.scope == asked
    loaded = LoadedCalibration(calibration, 30)
    assert loaded.objections(asked, calibration.known_by_ms, 20, ()) == []


def test_equal_data_and_seeds_give_equal_files(dataset: Dataset, calibration: Calibration) -> None:
    assert fitted(dataset).digest == calibration.digest
    other = fitted(dataset_of(made_up(1)))
    assert (other.digest, other.data_digest) != (calibration.digest, calibration.data_digest)


def test_what_comes_after_its_end_changes_nothing(dataset: Dataset) -> None:
    points = dataset.points[SYMBOL]
    end_ms = dataset.end_ms - 6 * DAY_MS
    shorter = replace(dataset, end_ms=end_ms)
    cut = points.take(slice(0, int(np.searchsorted(points.timestamp_ms, end_ms, "right"))))
    with_future, without = (fitted(replace(shorter, points={SYMBOL: of})) for of in (points, cut))
    assert with_future.horizons == without.horizons


def test_neighbours_that_tell_of_what_follows_have_skill_and_others_have_not() -> None:
    times = at(range(SLOTS))
    slow = np.repeat(np.random.default_rng(3).standard_normal(SLOTS // 16), 16)
    states = states_at(times, 3, latent=slow)
    telling = points_of(states, outcomes_at(SLOTS, 3, pull=2 * slow))
    search = Search(include_regime_filters=False, lookback_days=8, evidence_k=20, min_gap_hours=0)
    told, silent = (fitted(dataset_of(of), search, holdout=0.65) for of in (telling, made_up(5)))
    assert {"15m", "1h"} <= told.skilled_horizons
    assert not silent.skilled_horizons


def test_symbols_are_pooled_and_told_apart() -> None:
    one, other = made_up(7), of_symbol(made_up(8), "ETHUSDT")
    pooled = fitted(dataset_of(one, other))
    assert pooled.scope.symbols == (SYMBOL, "ETHUSDT") == tuple(pooled.horizons["1h"].by_symbol)
    single = fitted(dataset_of(one)).horizons["1h"]
    assert pooled.horizons["1h"].effective_scores == single.effective_scores


def test_every_query_is_told_of(dataset: Dataset) -> None:
    told: list[tuple[str, int, int]] = []
    fitted(dataset, progress=lambda *of: told.append(of))
    total = len(dataset.queries(SYMBOL, STEP_MS))
    assert told[-1] == (SYMBOL, total, total)


def test_less_than_a_day_is_too_little_to_measure_on(dataset: Dataset) -> None:
    short = replace(dataset, start_ms=dataset.end_ms - 3 * DAY_MS)
    with pytest.raises(InvalidInputError, match="hold out more of it"):
        fitted(short)


@pytest.mark.parametrize(
    ("search", "holdout", "told"),
    [
        (Search(include_regime_filters=False, vector="random"), 0.3, "calibrate its own search"),
        (Search(include_regime_filters=False, embargo_hours=24), 0.3, "calibrate its own search"),
        (SEARCH, 0.01, "held out"),
        (SEARCH, float("nan"), "held out"),
        (SEARCH, 0.8, "give a longer time"),
        (
            Search(include_regime_filters=False, lookback_days=2, evidence_k=60),
            0.3,
            "look back less far",
        ),
    ],
)
def test_what_cannot_be_calibrated_is_refused_with_the_reason(
    dataset: Dataset, search: Search, holdout: float, told: str
) -> None:
    with pytest.raises(InvalidInputError, match=told):
        fitted(dataset, search, holdout=holdout)


# --- Real data


@pytest.fixture(scope="module")
def bitcoin(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """BTC from May to December 2023, asked about each half-hour."""
    folder = real_data / "binance_5m_2023"
    with MarketStore.open(tmp_path_factory.mktemp("store"), write=True, exchange="binance") as to:
        for file in sorted(folder.glob("*_BTCUSDT_*")):
            import_folder(file, to, exchange="binance", written_at_ms=0)
        start_ms, end_ms = (
            parse_rfc3339(f"{day}T00:00:00Z") for day in ("2023-05-01", "2024-01-01")
        )
        return read_dataset(
            to,
            Spaces(SPACE),
            ["BTCUSDT"],
            start_ms,
            end_ms,
            lookback_days=90,
            interval_ms=M15.ms,
        )


@pytest.mark.soak
def test_on_a_real_year_the_bands_cover_78_to_82_percent_of_what_was_held_out(
    bitcoin: Dataset,
) -> None:
    made = fitted(bitcoin, Search(include_regime_filters=False), step_ms=2 * M15.ms)
    for name, of in made.horizons.items():
        assert 0.78 <= of.coverage_after.value <= 0.82, name
        assert of.coverage_after.low is not None
        assert of.coverage_after.high is not None
        assert of.coverage_after.low < 0.8 < of.coverage_after.high
        assert abs(of.after_kept_days[7] - of.coverage_after.value) < 0.01
    assert set(made.horizons) == set(HORIZONS)


@pytest.mark.soak
def test_on_a_real_year_whose_outcomes_are_shifted_no_horizon_has_skill(bitcoin: Dataset) -> None:
    points = bitcoin.points["BTCUSDT"]
    values = points.values.copy()
    rows = [COLUMN_ROW[f"outcome_{name}"] for name in HORIZONS]
    volatility = points.column("realized_volatility_24h")
    # In units of volatility, or the link between volatility and outcomes would be cut as well.
    values[rows] = np.roll(values[rows] / volatility, 23 * 96 + 13, axis=1) * volatility
    shifted = replace(bitcoin, points={"BTCUSDT": replace(points, values=values)})
    assert not fitted(
        shifted, Search(include_regime_filters=False), step_ms=8 * M15.ms
    ).skilled_horizons
