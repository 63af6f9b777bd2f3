"""Regimes divide the queries, and a slice's skill is that of its queries alone."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from math import nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.evaluation import significance
from llm_trader.evaluation.forecast.skills import measure_regimes, regimes, score_forecasts
from llm_trader.evaluation.plan import StudyPlan
from llm_trader.index.points import COLUMN_ROW, PointTable
from llm_trader.timeframe import DAY_MS, HOUR_MS
from tests.evaluation.small_market import (
    LOOKBACK_DAYS,
    RULE,
    asked,
    early_walk,
    made_market,
    made_score,
)
from tests.index.builders import START_MS, points_at

CHANCE = {"reps": 100, "seed": 1}
RESAMPLING = StudyPlan(**CHANCE)
FIELDS = {
    "volatility": "realized_volatility_24h",
    "funding": "funding_rate",
    "trend": "ema_ratio",
    "hour (UTC)": "hour_of_day",
}
DIVISIONS = [*FIELDS, "weekday"]


def queries() -> PointTable:
    return asked(made_market().points, HOUR_MS, LOOKBACK_DAYS)


def unknown_in(table: PointTable, rows: np.ndarray) -> PointTable:
    values = table.values.copy()
    for name in FIELDS.values():
        values[COLUMN_ROW[name], rows] = nan
    return replace(table, values=values)


def by_division(table: PointTable) -> dict[str, dict[str, np.ndarray]]:
    found: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
    for by, value, chosen in regimes(table):
        assert chosen.shape == (len(table),)
        found[by][value] = chosen
    return found


def test_every_query_is_in_one_regime_of_each_division() -> None:
    found = by_division(queries())
    assert list(found) == ["volatility", "funding", "trend", "hour (UTC)", "weekday"]
    for by, chosen in found.items():
        assert (np.sum(list(chosen.values()), axis=0) == 1).all(), by


@given(
    volatility=st.lists(st.sampled_from([0.5, 1.0, 1.5, 2.0]) | st.floats(0, 9), min_size=1),
    rate=st.floats(-0.01, 0.01),
    ratio=st.floats(0.98, 1.02),
)
def test_any_known_values_fall_into_one_regime(
    volatility: list[float], rate: float, ratio: float
) -> None:
    n = len(volatility)
    points = points_at(
        range(n),
        realized_volatility_24h=volatility,
        funding_rate=rate,
        ema_ratio=ratio,
        hour_of_day=np.arange(n) / 4 % 24,
    )
    for by, chosen in by_division(points).items():
        assert (np.sum(list(chosen.values()), axis=0) == 1).all(), by


def test_a_query_whose_field_is_unknown_is_in_no_regime_of_it_and_moves_no_other() -> None:
    table = queries()
    rows = np.arange(0, len(table), 7)
    found, known = by_division(unknown_in(table, rows)), np.delete(np.arange(len(table)), rows)
    alone = by_division(table.take(known))
    for by in FIELDS:
        for value, chosen in found[by].items():
            assert not chosen[rows].any()
            assert np.array_equal(chosen[known], alone[by][value]), (by, value)
    assert (np.sum(list(found["weekday"].values()), axis=0) == 1).all()


def test_where_a_field_is_never_known_its_regimes_are_empty() -> None:
    table = queries()
    found = by_division(unknown_in(table, np.arange(len(table))))
    for by in FIELDS:
        assert not any(chosen.any() for chosen in found[by].values())


def test_volatility_is_divided_into_thirds_in_order() -> None:
    table = queries()
    volatility = table.column("realized_volatility_24h")
    chosen = by_division(table)["volatility"]
    assert list(chosen) == ["low", "middle", "high"]
    for one in chosen.values():
        assert one.sum() == pytest.approx(len(table) / 3, abs=1)
    for below, above in pairwise(chosen.values()):
        assert volatility[below].max() <= volatility[above].min()


def test_regimes_hold_what_they_are_called() -> None:
    table = queries()
    found = by_division(table)
    stamps = [datetime.fromtimestamp(ms / 1000, UTC) for ms in table.timestamp_ms.tolist()]
    for value, chosen in found["weekday"].items():
        assert [one.strftime("%A") == value for one in stamps] == chosen.tolist()
    for value, chosen in found["hour (UTC)"].items():
        start, end = map(int, value.split("-"))
        assert [start <= one.hour < end for one in stamps] == chosen.tolist()
    funding, ratio = table.column("funding_rate"), table.column("ema_ratio")
    assert np.array_equal(found["funding"]["negative"], funding < 0)
    assert np.array_equal(found["trend"]["up"], ratio > 1.005)
    assert np.array_equal(found["trend"]["down"], ratio < 0.995)


@pytest.mark.parametrize(
    ("day", "name"), [(0, "Monday"), (3, "Thursday"), (6, "Sunday"), (59, "Thursday")]
)
def test_a_known_date_has_its_weekday(day: int, name: str) -> None:
    # 1 January 2024 was a Monday; 29 February 2024 a Thursday.
    point = replace(points_at([0]), timestamp_ms=np.array([START_MS + (day + 1) * DAY_MS - 1]))
    (there,) = (value for by, value, chosen in regimes(point) if by == "weekday" and chosen[0])
    assert there == name


def test_a_slice_has_the_skill_of_its_queries_alone() -> None:
    scored = made_score("1h")
    slices = measure_regimes(scored, RESAMPLING)
    found = list(regimes(scored.walk.queries))
    assert [(one.by, one.value) for one in slices] == [(by, value) for by, value, _ in found]
    for one, (_, _, chosen) in zip(slices, found, strict=True):
        model = scored.losses.volatility_model
        direct = significance.skill_interval(
            scored.losses.forecast[chosen], model[chosen], scored.block, **CHANCE
        )
        assert one.queries == chosen.sum()
        assert (one.skill is None) == (one.queries == 0)
        if one.skill is not None:
            np.testing.assert_equal(
                [one.skill.value, one.skill.low, one.skill.high],
                [direct.value, direct.low, direct.high],
            )


def test_queries_without_a_score_or_a_regime_are_not_counted() -> None:
    (scored,) = score_forecasts(early_walk(), {"4h": RULE})
    known = np.isfinite(scored.losses.forecast)
    rows = np.arange(0, len(known), 5)
    walk = scored.walk._replace(queries=unknown_in(scored.walk.queries, rows))
    counts: dict[str, int] = defaultdict(int)
    for one in measure_regimes(scored._replace(walk=walk), RESAMPLING):
        counts[one.by] += one.queries
    assert known.sum() < len(known)
    assert counts["weekday"] == known.sum()
    for by in FIELDS:
        assert counts[by] == np.delete(known, rows).sum()


def test_an_empty_slice_has_no_skill() -> None:
    scored = made_score("4h")
    nothing = scored._replace(losses=type(scored.losses)(*(of * nan for of in scored.losses)))
    for one in measure_regimes(nothing, RESAMPLING):
        assert one.queries == 0
        assert one.skill is None
