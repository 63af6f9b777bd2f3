"""Whether two indexes answer alike: the same sampled questions, whole answers compared.

A question is the state of a stored point, asked at a time when that point was known. It is never
asked later than the newest point was, so points that are appended meanwhile change no answer.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from llm_trader.arrays import VECTOR_ROUNDING
from llm_trader.errors import InvalidInputError
from llm_trader.index.points import TEXT
from llm_trader.retrieval.answer import Answer
from llm_trader.retrieval.retriever import Retriever
from llm_trader.retrieval.search_spec import QueryVectors, SearchSpec
from llm_trader.snapshot.model import SCALARS
from llm_trader.snapshot.outcome import LONGEST_HORIZON_MS
from llm_trader.snapshot.table import SnapshotTable
from llm_trader.timeframe import DAY_MS, M15, Millis, iso8601

_ASKED_LATER_MS: Final = 30 * DAY_MS
_TOLD: Final = 5


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
    """A question that was answered otherwise: where, the first few of `count` differences.

    `of_rounding` means that nothing but last digits differ, as between two processors.
    """

    symbol: str
    at: str
    include_regime_filters: bool
    vector: str
    count: int
    differences: list[str]
    of_rounding: bool


class AgreementReport(msgspec.Struct, frozen=True):
    """`identical` answers are so to the last bit."""

    questions: int
    identical: int
    disagreements: list[Disagreement]


async def compare_answers(
    one: Retriever,
    other: Retriever,
    samples: int,
    seed: int,
    progress: Callable[[], None] = lambda: None,
) -> AgreementReport:
    """Ask both `samples` questions about the points of `one`, all symbols in turn.

    Raises `InvalidInputError` where `one` holds nothing to ask about.
    """
    vectors = _vectors(one) & _vectors(other)
    questions = await _sampled(one, samples, seed, sorted(vectors))
    if not questions:
        raise InvalidInputError("the index is empty, so no question can be asked of it")
    found = []
    for question in questions:
        found.append(_compared(question, await _ask(one, question), await _ask(other, question)))
        progress()
        await asyncio.sleep(0)  # Ctrl-C takes effect only where the event loop gets its turn
    return _report(found)


async def record_answers(retriever: Retriever, samples: int, seed: int) -> list[RecordedAnswer]:
    """Questions about an index by its state vectors, with its answers; none if it is empty."""
    questions = await _sampled(retriever, samples, seed, ["state"])
    return [RecordedAnswer(question, await _ask(retriever, question)) for question in questions]


async def compare_recorded(
    recorded: Sequence[RecordedAnswer], retriever: Retriever
) -> AgreementReport:
    """Ask the recorded questions again."""
    found = []
    for record in recorded:
        answer = await _ask(retriever, record.question)
        found.append(_compared(record.question, record.answer, answer))
        await asyncio.sleep(0)
    return _report(found)


def _vectors(retriever: Retriever) -> set[QueryVectors]:
    """What a retriever can be asked to compare."""
    if retriever.texts and TEXT in retriever.index.collection.dimensions:
        return {"state", "text", "hybrid"}
    return {"state"}


async def _sampled(
    retriever: Retriever, samples: int, seed: int, vectors: Sequence[QueryVectors]
) -> list[Question]:
    chances = random.Random(seed)
    symbols = [of.symbol for of in (await retriever.index.info()).symbols]
    questions = []
    for number in range(samples if symbols else 0):
        turn, position = divmod(number, len(symbols))
        symbol = symbols[position]
        stamps = await retriever.index.timestamps(symbol)
        stamp = int(chances.choice(stamps))
        point = await retriever.index.fetch(symbol, np.array([stamp], dtype=np.int64))
        later_ms = min(int(stamps[-1]) - stamp, _ASKED_LATER_MS)
        questions.append(
            Question(
                symbol=symbol,
                at_ms=stamp + LONGEST_HORIZON_MS + M15.ms * chances.randint(0, later_ms // M15.ms),
                include_regime_filters=turn % 2 == 0,
                vector=vectors[turn // 2 % len(vectors)],
                state={name: float(point.column(name)[0]) for name in SCALARS},
            )
        )
    return questions


async def _ask(retriever: Retriever, question: Question) -> dict[str, Any]:
    """The answer as a document; a refusal is an answer too."""
    state = SnapshotTable.of_fields(
        question.symbol, retriever.space.intraday, question.at_ms, question.state
    )
    try:
        answer = await retriever.query(state, question.at_ms, question)
    except InvalidInputError as error:
        return {"refusal": error.code}
    return _document(answer)


def _document(answer: Answer) -> dict[str, Any]:
    """As it would be after a round trip over the wire, without what differs every time."""
    timeless = msgspec.structs.replace(answer, embedding_us=0, retrieval_us=0)
    document: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(timeless))
    return document


def _compared(question: Question, one: Any, other: Any) -> Disagreement | None:
    differences = list(_differences("", one, other))
    if not differences:
        return None
    return Disagreement(
        symbol=question.symbol,
        at=iso8601(question.at_ms),
        include_regime_filters=question.include_regime_filters,
        vector=question.vector,
        count=len(differences),
        differences=[
            f"{where} is {_brief(b)}, not {_brief(a)}" for where, a, b in differences[:_TOLD]
        ],
        of_rounding=all(_is_rounding(a, b) for _, a, b in differences),
    )


def _differences(where: str, one: Any, other: Any) -> Iterator[tuple[str, Any, Any]]:
    """Every leaf that differs, with its place in the document."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in dict.fromkeys([*other, *one]):
            inner = f"{where}.{name}" if where else name
            yield from _differences(inner, one.get(name), other.get(name))
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            yield from _differences(f"{where}[{i}]", a, b)
    elif isinstance(one, list) and isinstance(other, list):
        yield f"the length of {where}", len(one), len(other)
    elif one != other:
        yield where, one, other


def _brief(value: Any) -> str:
    return f"a {type(value).__name__}" if isinstance(value, dict | list) else str(value)


def _is_rounding(a: Any, b: Any) -> bool:
    numbers = isinstance(a, float) and isinstance(b, float)
    return numbers and bool(abs(a - b) <= VECTOR_ROUNDING * max(1.0, abs(a)))


def _report(found: Sequence[Disagreement | None]) -> AgreementReport:
    disagreements = [one for one in found if one is not None]
    return AgreementReport(len(found), len(found) - len(disagreements), disagreements)
