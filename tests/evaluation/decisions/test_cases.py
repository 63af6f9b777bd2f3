"""Altered evidence: answers whose every figure agrees with the alteration."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import pytest

from llm_trader.evaluation.dataset import Dataset
from llm_trader.evaluation.decisions.cases import (
    Evidences,
    altered_cases,
    draw_times,
    most_leaning,
)
from llm_trader.evaluation.decisions.reading import lean
from llm_trader.index.points import PointTable
from llm_trader.retrieval.answer import Answer
from llm_trader.retrieval.search_spec import SearchSpec
from llm_trader.snapshot.table import SnapshotTable
from llm_trader.timeframe import M5
from tests.evaluation.small_market import LOOKBACK_DAYS, PER_DAY, made_market
from tests.index.builders import SYMBOL
from tests.retrieval.builders import COLLECTION, comparable, state_of

SPEC = SearchSpec(lookback_days=LOOKBACK_DAYS, include_regime_filters=False, min_similarity=0.1)


def dataset_of(points: PointTable) -> Dataset:
    start, end = points.timestamp_ms[25 * PER_DAY], points.timestamp_ms[-1]
    return Dataset({SYMBOL: points}, M5, "bybit", int(start), int(end))


@pytest.fixture(scope="module")
def evidences() -> Evidences:
    return Evidences(dataset_of(made_market().points), COLLECTION, SPEC)


def states(rows: Sequence[int]) -> list[SnapshotTable]:
    points = made_market().points
    return [state_of(points, row, int(points.timestamp_ms[row])) for row in rows]


ROWS = range(26 * PER_DAY, 60 * PER_DAY, 397)


async def answered(evidences: Evidences, rows: Sequence[int] = ROWS) -> list[Answer]:
    answers = await evidences.answers(states(rows))
    assert all(isinstance(answer, Answer) for answer in answers)
    return answers  # type: ignore[return-value]


async def test_a_flipped_answer_has_the_same_matches_with_the_opposite_outcomes(
    evidences: Evidences,
) -> None:
    for state, answer in zip(states(ROWS), await answered(evidences), strict=True):
        flipped = await evidences.flipped(state)
        assert [match.id for match in flipped.matches] == [match.id for match in answer.matches]
        for match, other in zip(answer.matches, flipped.matches, strict=True):
            assert other.similarity == match.similarity
            assert other.market_state == match.market_state
            assert other.outcomes.outcome_4h == -match.outcomes.outcome_4h  # type: ignore[operator]
            assert other.outcomes.max_runup_1h == -match.outcomes.max_drawdown_1h  # type: ignore[operator]
        true, opposite = answer.statistics.outcome_4h, flipped.statistics.outcome_4h
        assert opposite.mean == pytest.approx(-true.mean)  # type: ignore[operator]
        assert opposite.p10 == pytest.approx(-true.p90)  # type: ignore[operator]
        assert (opposite.positive_count, opposite.negative_count) == (
            true.negative_count,
            true.positive_count,
        )


async def test_all_figures_of_flipped_evidence_are_inverted_together(evidences: Evidences) -> None:
    answers = await answered(evidences)
    verdicts, tested = set(), 0
    for state, answer in zip(states(ROWS), answers, strict=True):
        true, opposite = answer.evidence, (await evidences.flipped(state)).evidence
        assert opposite.episodes == true.episodes
        assert opposite.novelty == true.novelty
        assert opposite.similarity_range == true.similarity_range
        # The sides of a test are alike, so whether there is something to say does not change.
        assert opposite.verdict == true.verdict
        verdicts.add(true.verdict)
        for horizon, inverted in opposite.horizons.items():
            before = true.horizons[horizon]
            assert inverted.mean.value == pytest.approx(-before.mean.value)
            assert inverted.mean.base_rate == pytest.approx(-before.mean.base_rate)
            assert inverted.mean.low == pytest.approx(-before.mean.high)  # type: ignore[operator]
            assert inverted.p50.value == pytest.approx(-before.p50.value)
            assert inverted.p10.value == pytest.approx(-before.p90.value)
            assert inverted.p_up.value == pytest.approx(1 - before.p_up.value)
            assert inverted.expected_volatility_pct == before.expected_volatility_pct
            assert inverted.forecast is not None
            assert before.forecast is not None
            assert inverted.forecast.mean == pytest.approx(-before.forecast.mean)
            assert inverted.forecast.p_up == pytest.approx(1 - before.forecast.p_up)
            if before.direction is None or before.scale is None:
                assert (inverted.direction, inverted.scale) == (before.direction, before.scale)
                continue
            tested += 1
            assert inverted.direction is not None
            assert inverted.direction.deviation == pytest.approx(-before.direction.deviation)
            assert inverted.scale is not None
            assert inverted.scale.deviation == pytest.approx(before.scale.deviation)
    assert verdicts >= {"weak", "none"}
    assert tested


async def test_the_words_of_flipped_evidence_say_what_its_figures_say(
    evidences: Evidences,
) -> None:
    said = 0
    for state in states(ROWS):
        for horizon in (await evidences.flipped(state)).evidence.horizons.values():
            if horizon.direction and "the price rose after" in (horizon.summary or ""):
                assert horizon.summary is not None
                share = f"{horizon.direction.value * 100:.0f} % of them"
                assert share in horizon.summary
                said += 1
    assert said


async def test_a_lean_has_the_opposite_sign_when_outcomes_are_inverted(
    evidences: Evidences,
) -> None:
    leans = [lean(answer) for answer in await answered(evidences)]
    flipped = [lean(await evidences.flipped(state)) for state in states(ROWS)]
    assert flipped == pytest.approx([-one for one in leans])
    assert {np.sign(one) for one in leans} == {-1.0, 1.0}


async def test_shuffled_evidence_has_another_states_neighbours_and_this_states_volatility(
    evidences: Evidences,
) -> None:
    state, other = states([40 * PER_DAY, 50 * PER_DAY + 7])
    [own] = await answered(evidences, [40 * PER_DAY])
    shuffled = await evidences.of_another(state, other)
    assert {m.id for m in shuffled.matches} != {m.id for m in own.matches}
    # As of this state's time: nothing later was known.
    assert all(m.resolved_at <= int(state.as_of_ms[0]) for m in shuffled.matches)
    for horizon, evidence in shuffled.evidence.horizons.items():
        own_evidence = own.evidence.horizons[horizon]
        assert evidence.expected_volatility_pct == own_evidence.expected_volatility_pct
    assert msgspec.json.encode(shuffled.evidence) != msgspec.json.encode(own.evidence)
    unchanged = await evidences.of_another(state, state)
    assert comparable(unchanged) == comparable(own)


async def test_of_each_run_of_seeded_candidates_the_state_that_leans_most_is_taken(
    evidences: Evidences,
) -> None:
    dataset = dataset_of(made_market().points)
    times = draw_times(dataset, 3_600_000, 5, seed=3)[SYMBOL]
    assert len(times) == 20
    assert np.array_equal(times, draw_times(dataset, 3_600_000, 5, seed=3)[SYMBOL])
    assert not np.array_equal(times, draw_times(dataset, 3_600_000, 5, seed=4)[SYMBOL])
    assert ((times >= dataset.start_ms) & (times <= dataset.end_ms)).all()
    rows = np.searchsorted(made_market().points.timestamp_ms, times)
    candidates = states(rows.tolist())
    chosen = await most_leaning(evidences, candidates, 5)
    leans = [abs(lean(answer)) for answer in await answered(evidences, rows.tolist())]
    assert [abs(lean(answer)) for _, answer in chosen] == [
        max(leans[first : first + 4]) for first in range(0, 20, 4)
    ]
    in_time = [int(state.as_of_ms[0]) for state, _ in chosen]
    assert in_time == sorted(in_time)


async def test_each_state_has_its_evidence_in_five_versions(evidences: Evidences) -> None:
    chosen = await most_leaning(evidences, states(ROWS), 8)
    for one in await altered_cases(evidences, chosen, seed=0):
        assert set(one.cases) == {"original", "repeat", "flip", "shuffle", "removal"}
        assert all(case.state is one.state for case in one.cases.values())
        assert one.cases["repeat"].answer is one.cases["original"].answer
        assert one.cases["removal"].answer is None
        assert one.leans["flip"] == pytest.approx(-one.leans["original"])
        # Partners lean to the other side where there are any.
        assert np.sign(one.leans["shuffle"]) in (-1.0, 1.0)
