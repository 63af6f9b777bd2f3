"""The forecasts that served ones are compared with: what they are, and no future in them."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from llm_trader.index.asof import visible_window
from llm_trader.index.points import COLUMN_ROW
from llm_trader.index.protocol import FieldRange
from llm_trader.retrieval.answer import Answer, ReferenceForecasts
from llm_trader.retrieval.forecast import NEIGHBOURS, WEIGHT_OF_NEIGHBOURS
from llm_trader.retrieval.reference_forecasts import random_rows
from llm_trader.retrieval.retriever import Question, Retriever
from llm_trader.retrieval.search_spec import SearchSpec
from llm_trader.snapshot.outcome import resolved_at
from llm_trader.timeframe import DAY_MS, HORIZONS, Millis
from tests.index.builders import at
from tests.retrieval.builders import SPACE, comparable, index_of, of_symbol, past, state_of, varied

SLOTS = 1200
POINTS = past(range(SLOTS), seed=3)
LATE_MS = int(at([SLOTS])[0]) + DAY_MS
SPEC = SearchSpec(include_regime_filters=False, min_similarity=0.0)
LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)


async def answer_at(
    retriever: Retriever, as_of_ms: Millis = LATE_MS, spec: SearchSpec = SPEC, **fields: float
) -> Answer:
    state = varied(state_of(POINTS, 700, as_of_ms), **fields)
    return await retriever.query(state, as_of_ms, spec, with_references=True)


def references_of(answer: Answer) -> ReferenceForecasts:
    assert answer.references is not None
    return answer.references


def weighted_quantile(values: list[float], weights: list[float], level: float) -> float:
    """The least value at or below which at least that share of the weight lies."""
    total = 0.0
    for value, weight in sorted(zip(values, weights, strict=True)):
        total += weight
        if total >= level - 1e-9:
            return value
    raise AssertionError("the weights do not sum to 1")


async def test_they_are_the_quantiles_of_the_outcomes_that_they_say() -> None:
    async with index_of(POINTS) as index:
        answer = await answer_at(Retriever(index, SPACE))
    references = references_of(answer)
    then_pct = POINTS.column("realized_volatility_24h")
    now_pct = then_pct[700]
    drawn = random_rows(POINTS, (), NEIGHBOURS, LATE_MS)
    for row, (name, share) in enumerate(WEIGHT_OF_NEIGHBOURS.items()):
        outcomes = POINTS.column(f"outcome_{name}")
        rescaled = np.quantile(outcomes * now_pct / then_pct, LEVELS, method="inverted_cdf")
        assert references.rescaled is not None
        assert references.rescaled[row] == pytest.approx(rescaled)
        expected_pct = POINTS.column(f"expected_volatility_{name}")
        relative = outcomes / expected_pct
        mixed = [*relative, *relative[drawn]]
        weights = [(1 - share) / SLOTS] * SLOTS + [share / NEIGHBOURS] * NEIGHBOURS
        random = [weighted_quantile(mixed, weights, level) for level in LEVELS]
        assert references.random[row] == pytest.approx(np.array(random) * expected_pct[700])


async def test_an_answer_has_them_where_it_is_asked_to_and_is_otherwise_the_same() -> None:
    state = state_of(POINTS, 700, LATE_MS)
    async with index_of(POINTS) as index:
        retriever = Retriever(index, SPACE)
        plain = await retriever.query(state, LATE_MS, SPEC)
        answer = await answer_at(retriever)
        again = await answer_at(Retriever(index, SPACE))
        questions = [Question(state, LATE_MS, True), Question(state, LATE_MS)]
        many = [one async for one in retriever.query_many(questions, SPEC)]
    assert plain.references is None
    assert comparable(msgspec.structs.replace(answer, references=None)) == comparable(plain)
    # The same states are drawn at any time, in any process, and among other questions.
    assert comparable(again) == comparable(answer)
    assert [comparable(one) for one in many if isinstance(one, Answer)] == [
        comparable(answer),
        comparable(plain),
    ]


async def test_no_state_whose_outcome_was_not_known_then_is_in_them() -> None:
    as_of_ms = int(POINTS.timestamp_ms[900])
    known = resolved_at(POINTS.timestamp_ms) <= as_of_ms
    assert NEIGHBOURS < known.sum() < SLOTS - 100
    values = POINTS.values.copy()
    for name in HORIZONS:
        values[COLUMN_ROW[f"outcome_{name}"], ~known] = 1000.0
    later = type(POINTS)(*(POINTS.symbol, POINTS.timestamp_ms, values, POINTS.vectors, POINTS.run))
    async with index_of(later) as index, index_of(POINTS.take(known)) as cut_off:
        answers = [await answer_at(Retriever(one, SPACE), as_of_ms) for one in (index, cut_off)]
        window = await index.scan(POINTS.symbol, visible_window(as_of_ms, SPEC.lookback_days))
    assert comparable(answers[0]) == comparable(answers[1])
    assert np.max(references_of(answers[0]).random) < 1000
    drawn = random_rows(window, (), NEIGHBOURS, as_of_ms)
    assert resolved_at(window.timestamp_ms[drawn]).max() <= as_of_ms


def test_symbol_and_time_decide_which_of_the_states_that_pass_the_filters_are_drawn() -> None:
    positive = FieldRange("funding_rate", 0.0, 1.0)
    rows = random_rows(POINTS, (positive,), 200, LATE_MS)
    assert len(set(rows.tolist())) == 200
    assert (POINTS.column("funding_rate")[rows] >= 0).all()
    assert rows.tolist() == random_rows(POINTS, (positive,), 200, LATE_MS).tolist()
    other = of_symbol(POINTS, "ETHUSDT")
    assert rows.tolist() != random_rows(other, (positive,), 200, LATE_MS).tolist()
    assert rows.tolist() != random_rows(POINTS, (positive,), 200, LATE_MS + 1).tolist()
    passing = np.flatnonzero(POINTS.column("funding_rate") >= 0)
    every = random_rows(POINTS, (positive,), SLOTS, LATE_MS)
    assert sorted(every.tolist()) == passing.tolist()


async def test_with_too_few_states_to_draw_the_window_stands_alone_as_in_the_forecast() -> None:
    async with index_of(POINTS.take(slice(0, NEIGHBOURS - 1))) as index:
        answer = await answer_at(Retriever(index, SPACE))
    assert references_of(answer).random == answer.without_neighbours


async def test_what_is_unknown_has_none() -> None:
    async with index_of(POINTS) as index:
        retriever = Retriever(index, SPACE)
        answer = await answer_at(retriever, realized_volatility_24h=np.nan)
        assert references_of(answer).rescaled is None
        too_early = await answer_at(retriever, int(POINTS.timestamp_ms[0]))
        assert too_early.references is None
