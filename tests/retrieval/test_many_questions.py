"""Many questions at once are answered bit for bit as one at a time."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.arrays import Kinds, Times
from llm_trader.errors import EmbeddingError, LlmTraderError, SymbolNotFoundError
from llm_trader.retrieval.answer import Answer
from llm_trader.retrieval.forecast import EXPECTED_ROWS, MIXED, ForecastBase
from llm_trader.retrieval.reference import BaseRates
from llm_trader.retrieval.retriever import Question, Retriever
from llm_trader.retrieval.search_spec import SearchSpec
from llm_trader.retrieval.shared_windows import SharedBases, SharedWindows
from llm_trader.retrieval.statistics import OUTCOME_ROWS
from llm_trader.snapshot.table import SnapshotTable
from llm_trader.timeframe import DAY_MS
from tests.index.builders import at
from tests.index.test_partial_points import lacking_as, mixed_points
from tests.retrieval.builders import SPACE, comparable, index_of, past, states_at

SLOTS = 600


async def together(
    retriever: Retriever, questions: list[Question], spec: SearchSpec
) -> list[Answer | LlmTraderError]:
    return [answer async for answer in retriever.query_many(questions, spec)]


async def alone(retriever: Retriever, question: Question, spec: SearchSpec) -> bytes:
    return comparable(await retriever.query(question.state, question.as_of_ms, spec))


def questions_at(times: Times, seed: int, kinds: Kinds) -> list[Question]:
    states = lacking_as(states_at(np.unique(times), seed), kinds[: len(np.unique(times))])
    rows = np.searchsorted(states.as_of_ms, times)
    return [Question(states.take(np.array([r])), int(t)) for r, t in zip(rows, times, strict=True)]


specs = st.builds(
    SearchSpec,
    top_k=st.integers(1, 20),
    evidence_k=st.integers(10, 60),
    lookback_days=st.sampled_from([1, 3, 90]),
    min_gap_hours=st.sampled_from([0.0, 1.0, 4.0]),
    min_similarity=st.sampled_from([0.0, 0.5]),
    include_regime_filters=st.booleans(),
    detail=st.sampled_from(["normal", "full"]),
)


@given(seed=st.integers(0, 1000), spec=specs, choice=st.sampled_from([[0], [0, 1, 2, 3]]))
async def test_answers_of_many_are_those_of_each_bit_for_bit(
    seed: int, spec: SearchSpec, choice: list[int]
) -> None:
    rng = np.random.default_rng(seed)
    kinds = rng.choice(np.array(choice, np.uint8), SLOTS)
    slots = rng.integers(-50, SLOTS + 200, 12)
    questions = questions_at(at(slots), seed + 1, kinds[:12])
    async with index_of(mixed_points(kinds, seed)) as index:
        answers = await together(Retriever(index, SPACE), questions, spec)
        single = Retriever(index, SPACE)
        for question, answer in zip(questions, answers, strict=True):
            assert isinstance(answer, Answer)
            assert comparable(answer) == await alone(single, question, spec)


async def test_a_question_that_says_too_little_is_refused_alone() -> None:
    time_ms = int(at([SLOTS])[0]) + DAY_MS
    good = states_at(np.array([time_ms]))
    poor = SnapshotTable.of_fields(good.symbol, good.intraday, time_ms, {"price": 1.0})
    async with index_of(past(range(SLOTS))) as index:
        retriever = Retriever(index, SPACE)
        questions = [Question(good, time_ms), Question(poor, time_ms), Question(good, time_ms)]
        first, second, third = await together(retriever, questions, SearchSpec())
    assert isinstance(second, EmbeddingError)
    assert isinstance(first, Answer)
    assert isinstance(third, Answer)
    assert comparable(first) == comparable(third)


async def test_a_symbol_without_states_is_an_error_of_each_question() -> None:
    states = states_at(at([SLOTS]))
    stranger = SnapshotTable(
        "NOSUCHUSDT", states.intraday, states.as_of_ms, states.scalars, states.series
    )
    async with index_of(past(range(50))) as index:
        questions = [Question(stranger, int(stranger.as_of_ms[0]))] * 2
        answers = await together(Retriever(index, SPACE), questions, SearchSpec())
    assert [type(answer) for answer in answers] == [SymbolNotFoundError] * 2


@given(
    seed=st.integers(0, 1000),
    windows=st.lists(st.tuples(st.integers(0, 299), st.integers(1, 300)), min_size=1, max_size=5),
    step=st.sampled_from([0.0, 0.25, 2.0]),
)
def test_bases_of_shared_windows_are_those_of_each_also_where_outcomes_are_equal(
    seed: int, windows: list[tuple[int, int]], step: float
) -> None:
    points = past(range(300), seed)
    if step:
        points.values[OUTCOME_ROWS] = np.round(points.values[OUTCOME_ROWS] / step) * step + 0.0
        points.values[EXPECTED_ROWS] = 1.0
    shared = SharedWindows(points)
    parts = [points.take(slice(first, first + count)) for first, count in windows]
    bases = SharedBases(shared, parts)
    for number, part in enumerate(parts):
        own = ForecastBase.of(part)
        for together, one in zip(bases.numbers, own.numbers, strict=True):
            assert together[:, number].tolist() == one[:, 0].tolist()
        places = np.broadcast_to(np.arange(len(part)), (len(MIXED), len(parts), len(part)))
        assert bases.at(np.minimum(places, bases.counts[:, None] - 1))[:, number].tolist() == (
            own.ascending[MIXED].tolist()
        )
        base_rates, expected = shared.base_rates(part), BaseRates.of(part)
        assert base_rates.quantiles.tolist() == expected.quantiles.tolist()
        assert base_rates.mean.tolist() == expected.mean.tolist()


def test_shared_windows_are_only_of_the_table_that_they_were_sorted_for() -> None:
    points = past(range(40))
    shared = SharedWindows(points.take(slice(5, 30)))
    assert shared.holds(points.take(slice(5, 30)))
    assert shared.holds(points.take(slice(10, 12)))
    assert not shared.holds(points.take(slice(4, 20)))
    assert not shared.holds(points.take(slice(20, 31)))
    assert not shared.holds(points.take(slice(10, 10)))
    assert not shared.holds(past(range(40)).take(slice(10, 12)))
