"""Whether two indexes give equal answers to the same sampled questions.

A question is the state of a stored point, searched for at a time when that point was known. That
time is never later than the newest point was known, so points appended meanwhile change no answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from math import isfinite
from typing import Any, Final

import msgspec
import numpy as np

from llm_trader.arrays import VECTOR_ROUNDING
from llm_trader.errors import InvalidInputError
from llm_trader.index.points import STATE, TEXT, PointTable
from llm_trader.progress import Progress, no_progress
from llm_trader.retrieval.retriever import Retriever
from llm_trader.retrieval.search_spec import QueryVectors, SearchSpec
from llm_trader.snapshot.model import SCALARS
from llm_trader.snapshot.outcome import LONGEST_HORIZON_MS
from llm_trader.snapshot.table import SnapshotTable
from llm_trader.timeframe import DAY_MS, M15, Millis, iso8601

_LONGEST_DELAY_MS: Final = 30 * DAY_MS  # within the default lookback, so the point can be found
_SHOWN_DIFFERENCES: Final = 5  # tells what is wrong; an answer has over 1,000 numbers


class Question(SearchSpec, frozen=True, kw_only=True):
    """A search for the scalar fields of a state, as of a time."""

    symbol: str
    at_ms: Millis
    state: dict[str, float]
    # Recorded questions of earlier versions leave these out.
    top_k: int = 50
    min_similarity: float = 0.0


class RecordedAnswer(msgspec.Struct, frozen=True):
    """A question, and the document that answered it, without durations."""

    question: Question
    answer: dict[str, Any]


class Disagreement(msgspec.Struct, frozen=True, kw_only=True):
    """A question with two answers, and the first few of their `count` differences.

    `of_rounding`: only last digits differ, as between two processors.
    """

    symbol: str
    at: str
    include_regime_filters: bool
    vector: str
    count: int
    differences: list[str]
    of_rounding: bool


class AgreementReport(msgspec.Struct, frozen=True):
    """`identical` answers are equal to the last bit."""

    questions: int
    identical: int
    disagreements: list[Disagreement]


async def compare_answers(
    reference: Retriever,
    other: Retriever,
    samples: int,
    seed: int,
    progress: Progress = no_progress,
) -> AgreementReport:
    """Ask both `samples` questions about the points of `reference`, all symbols in turn.

    Raises `InvalidInputError` where `reference` is empty.
    """
    both_have_text = all(
        retriever.texts and TEXT in retriever.index.collection.dimensions
        for retriever in (reference, other)
    )
    vectors: list[QueryVectors] = ["hybrid", STATE, TEXT] if both_have_text else [STATE]
    questions = await _sample_questions(reference, samples, seed, vectors)
    if not questions:
        raise InvalidInputError("the index is empty, so no question can be asked of it")
    disagreements = []
    for done, question in enumerate(questions, start=1):
        record = RecordedAnswer(question, await _answer(reference, question))
        disagreements += (await compare_recorded([record], other)).disagreements
        progress("comparing answers", done, samples)
    return AgreementReport(samples, samples - len(disagreements), disagreements)


async def record_answers(retriever: Retriever, samples: int, seed: int) -> list[RecordedAnswer]:
    """Sampled questions for the state vectors, with their answers; none for an empty index."""
    questions = await _sample_questions(retriever, samples, seed, [STATE])
    return [RecordedAnswer(question, await _answer(retriever, question)) for question in questions]


async def compare_recorded(
    records: Sequence[RecordedAnswer], retriever: Retriever
) -> AgreementReport:
    """Ask the recorded questions again."""
    disagreements = []
    for record in records:
        question = record.question
        answer = await _answer(retriever, question)
        if differences := list(_differences("", record.answer, answer)):
            texts, last_digits = zip(*differences, strict=True)
            disagreement = Disagreement(
                symbol=question.symbol,
                at=iso8601(question.at_ms),
                include_regime_filters=question.include_regime_filters,
                vector=question.vector,
                count=len(differences),
                differences=list(texts[:_SHOWN_DIFFERENCES]),
                of_rounding=all(last_digits),
            )
            disagreements.append(disagreement)
        await asyncio.sleep(0)  # Ctrl-C takes effect only where the event loop gets its turn
    identical = len(records) - len(disagreements)
    return AgreementReport(len(records), identical, disagreements)


async def _sample_questions(
    retriever: Retriever, samples: int, seed: int, vectors: Sequence[QueryVectors]
) -> list[Question]:
    rng = np.random.default_rng(seed)
    symbols = [record.symbol for record in (await retriever.index.info()).symbols]
    questions = []
    for number in range(samples if symbols else 0):
        turn, position = divmod(number, len(symbols))
        symbol = symbols[position]
        # Drawn from stored times, so that equal indexes get equal questions on any backend.
        stamps = await retriever.index.timestamps(symbol)
        stamp = int(rng.choice(stamps))
        point = await retriever.index.fetch(symbol, np.array([stamp]))
        # A question may not ask later than the newest point was known, or appends change its
        # answer.
        longest_delay_ms = min(int(stamps[-1]) - stamp, _LONGEST_DELAY_MS)
        delay_ms = M15.ms * int(rng.integers(longest_delay_ms // M15.ms + 1))
        questions.append(
            Question(
                symbol=symbol,
                at_ms=stamp + LONGEST_HORIZON_MS + delay_ms,
                include_regime_filters=turn % 2 == 0,
                vector=vectors[turn // 2 % len(vectors)],
                state=_known_fields(point),
            )
        )
    return questions


def _known_fields(point: PointTable) -> dict[str, float]:
    """The fields of a point's state; those that it lacks are left out."""
    fields = {name: float(point.column(name)[0]) for name in SCALARS}
    return {name: value for name, value in fields.items() if isfinite(value)}


async def _answer(retriever: Retriever, question: Question) -> dict[str, Any]:
    """The answer as a document without durations; a refusal is an answer too."""
    state = SnapshotTable.of_fields(
        question.symbol, retriever.space.intraday, question.at_ms, question.state
    )
    try:
        answer = await retriever.query(state, question.at_ms, question)
    except InvalidInputError as error:
        return {"refusal": error.code}
    without_durations = msgspec.structs.replace(answer, embedding_us=0, retrieval_us=0)
    # Recorded answers have been through JSON, so these go through it as well.
    document: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(without_durations))
    return document


def _differences(place: str, expected: Any, actual: Any) -> Iterator[tuple[str, bool]]:
    """Every leaf that differs, in words, and whether only its last digits do."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        for name in dict.fromkeys([*actual, *expected]):
            inner = f"{place}.{name}" if place else name
            yield from _differences(inner, expected.get(name), actual.get(name))
    elif isinstance(expected, list) and isinstance(actual, list):
        if len(expected) != len(actual):
            yield f"the length of {place} is {len(actual)}, not {len(expected)}", False
            return
        for position, items in enumerate(zip(expected, actual, strict=True)):
            yield from _differences(f"{place}[{position}]", *items)
    elif expected != actual:
        # Answers mix similarities of float32 with float64 numbers, so the coarser rounding counts.
        both_floats = isinstance(expected, float) and isinstance(actual, float)
        rounding = both_floats and abs(expected - actual) <= VECTOR_ROUNDING * max(1, abs(expected))
        yield f"{place} is {_brief(actual)}, not {_brief(expected)}", rounding


def _brief(value: Any) -> str:
    return f"a {type(value).__name__}" if isinstance(value, dict | list) else str(value)
