from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from llm_trader.arrays import Floats
from llm_trader.index.points import PointTable
from llm_trader.retrieval.answer import OutcomeStatistics, Statistics
from llm_trader.retrieval.statistics import OUTCOME_ROWS, quantiles, summarise
from llm_trader.timeframe import HORIZONS
from tests.index.builders import at
from tests.retrieval.builders import outcome_table

changes = st.one_of(st.sampled_from([-2.0, -1.0, 0.0, 1.0, 3.0]), st.floats(-100, 1000))


@st.composite
def outcome_blocks(draw: st.DrawFn) -> Floats:
    n = draw(st.integers(1, 50))
    return draw(arrays(np.float64, (4, n), elements=changes))


def summed_up(matches: PointTable, similarity: Floats) -> Statistics:
    return summarise(matches.values.T.tolist(), similarity.tolist())


@given(outcome_blocks(), st.data())
def test_statistics_are_numpys_and_plain_counts(outcomes: Floats, data: st.DataObject) -> None:
    n = outcomes.shape[1]
    moves = st.sampled_from([0.0, 1.0, 2.0, 2.999, 3.0, 3.1])
    runup = data.draw(arrays(np.float64, n, elements=moves))
    drawdown = -data.draw(arrays(np.float64, n, elements=moves))
    similarity = np.sort(data.draw(arrays(np.float64, n, elements=st.floats(0, 1))))[::-1]
    named = {f"outcome_{h}": outcomes[row] for row, h in enumerate(HORIZONS)}
    statistics = summed_up(
        outcome_table(at(range(n)), **named, max_runup_1h=runup, max_drawdown_1h=drawdown),
        similarity,
    )
    assert statistics.total_matches == n
    assert statistics.avg_similarity == pytest.approx(sum(similarity) / n)
    assert statistics.similarity_range == (min(similarity), max(similarity))
    assert statistics.stop_loss_hits == sum(1 for d in drawdown if d <= -2)
    assert statistics.take_profit_hits == sum(1 for r in runup if r >= 3)
    for name, values in named.items():
        block: OutcomeStatistics = getattr(statistics, name)
        size = np.abs(values).max()
        assert block.mean == pytest.approx(sum(values.tolist()) / n, abs=1e-9 * size)
        p10, median, p90 = np.quantile(values, [0.1, 0.5, 0.9])
        assert (block.p10, block.median, block.p90) == pytest.approx(
            (p10, median, p90), abs=1e-12 * size
        )
        assert block.positive_count == sum(1 for v in values if v > 0)
        assert block.negative_count == sum(1 for v in values if v < 0)
        assert block.win_rate == pytest.approx(sum(1 for v in values if v > 0) / n)


def test_without_matches_nothing_is_known_and_nothing_is_zero_but_counts() -> None:
    nothing = OutcomeStatistics(None, None, None, None, 0, 0, None)
    statistics = summed_up(outcome_table(at([])), np.empty(0))
    assert statistics.total_matches == statistics.stop_loss_hits == statistics.take_profit_hits == 0
    assert statistics.avg_similarity is None
    assert statistics.similarity_range is None
    for horizon in HORIZONS:
        assert getattr(statistics, f"outcome_{horizon}") == nothing


def test_a_change_of_nothing_is_neither_a_gain_nor_a_loss() -> None:
    statistics = summed_up(
        outcome_table(at(range(4)), outcome_4h=[0.0, 0.0, 1.0, -1.0]), np.ones(4)
    )
    assert (statistics.outcome_4h.positive_count, statistics.outcome_4h.negative_count) == (1, 1)
    assert statistics.outcome_4h.win_rate == 0.25


def test_the_outcome_rows_are_the_horizons_in_order() -> None:
    marks = {f"outcome_{h}": float(row) for row, h in enumerate(HORIZONS)}
    assert outcome_table(at([0]), **marks).values[OUTCOME_ROWS, 0].tolist() == [0, 1, 2, 3]


@given(
    arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 60)), elements=changes),
    st.lists(st.floats(0, 1), min_size=1, max_size=6),
)
def test_quantiles_are_numpys_linear_ones(values: Floats, levels: list[float]) -> None:
    actual = quantiles(np.sort(values, axis=1), np.array([levels]))
    expected = np.quantile(values, levels, axis=1).T
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12 * np.abs(values).max())


def test_levels_beyond_the_ends_are_the_ends() -> None:
    ascending = np.array([[1.0, 2.0, 5.0]])
    assert quantiles(ascending, np.array([[-0.2, 0.0, 1.0, 1.3]])).tolist() == [[1, 1, 5, 5]]
