"""What a copy of a store or of an index holds, and whether it holds it still."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from llm_trader.backup.manifest import IndexPart, MarketPart, SeriesRows
from llm_trader.checks.agreement import RecordedAnswer, compare_recorded, record_answers
from llm_trader.errors import ConfigurationError, LlmTraderError
from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.index.protocol import VectorIndex
from llm_trader.market.store import MarketStore
from llm_trader.retrieval.retriever import Retriever

QUESTIONS: Final = 16
_SEED: Final = 0
_TOLD: Final = 5
_NO_ANSWERS: Final = (
    "no answers of the index were recorded, so verify and restore cannot prove that it answers as "
    "before"
)


class Recording(NamedTuple):
    """Questions to an index with its answers, and notes on what was not recorded."""

    answers: list[RecordedAnswer]
    notes: list[str]


class Findings(msgspec.Struct, kw_only=True):
    """What a look at a copy came to.

    `identical` and `rounded` count recorded questions that were answered to the last bit, and but
    for last digits, as another processor would. `notes` are no problems.
    """

    problems: list[str] = []
    identical: int = 0
    rounded: int = 0
    notes: list[str] = []


def market_part(folder: Path, location: str) -> MarketPart:
    """What the store in a folder holds; `location` is where it was copied from."""
    with MarketStore.open(folder) as store:
        described = store.describe()
    return MarketPart(
        location=location,
        exchange=described.exchange,
        series=[
            SeriesRows(s.symbol, s.kind, s.timeframe, s.rows, s.first, s.last)
            for s in described.series
        ],
    )


async def index_part(index: VectorIndex, location: str) -> IndexPart:
    """What an index holds; `location` is where it was copied from."""
    info = await index.info()
    return IndexPart(
        location=location, collection=info.collection, symbols=info.symbols, runs=info.runs
    )


async def recorded_answers(index: VectorIndex) -> Recording:
    """Questions about an index with its answers; where there are none, a note that says why."""
    try:
        retriever = _retriever(index)
    except ConfigurationError as error:  # another version made the vectors
        return Recording([], [f"{_NO_ANSWERS}: {error.message}"])
    answers = await record_answers(retriever, QUESTIONS, _SEED)
    return Recording(answers, [] if answers else [f"{_NO_ANSWERS}: the index is empty"])


def look_at_market(folder: Path, part: MarketPart) -> Findings:
    """Whether the store in a folder opens and holds what it should."""
    try:
        found = market_part(folder, part.location)
    except LlmTraderError as error:
        return Findings(problems=[error.message])
    problems = []
    if found.exchange != part.exchange:
        problems.append(f"its exchange is {found.exchange}, not {part.exchange}")
    problems += [
        f"{_series(wanted)} is missing or of another extent"
        for wanted in part.series
        if wanted not in found.series
    ]
    problems += [
        f"{_series(held)} should not be there, or is of another extent"
        for held in found.series
        if held not in part.series
    ]
    return Findings(problems=problems[:_TOLD])


async def look_at_index(
    folder: Path, part: IndexPart, answers: Sequence[RecordedAnswer]
) -> Findings:
    """Whether the index in a folder opens, holds what it should, and answers as recorded."""
    try:
        with EmbeddedIndex.open(folder) as index:
            return await look_at_open_index(index, part, answers)
    except LlmTraderError as error:
        return Findings(problems=[error.message])


async def look_at_open_index(
    index: VectorIndex, part: IndexPart, answers: Sequence[RecordedAnswer]
) -> Findings:
    """Whether an index holds what it should, and answers as recorded."""
    info = await index.info()
    problems = info.collection.differences(part.collection)
    if info.runs != part.runs:
        problems.append(f"it has {len(info.runs)} ingestion runs, not these {len(part.runs)}")
    held = {of.symbol: of for of in info.symbols}
    for wanted in part.symbols:
        found = held.pop(wanted.symbol, None)
        if found != wanted:
            points = found.points if found else 0
            problems.append(
                f"{wanted.symbol} has {points} points, not {wanted.points} of the same times"
            )
    problems += [f"{symbol} should not be there" for symbol in held]
    if problems:
        return Findings(problems=problems[:_TOLD])
    return await _asked(index, answers)


async def _asked(index: VectorIndex, answers: Sequence[RecordedAnswer]) -> Findings:
    try:
        retriever = _retriever(index)
    except ConfigurationError as error:
        return Findings(notes=[f"no question was asked: {error.message}"])
    report = await compare_recorded(answers, retriever)
    rounded = [found for found in report.disagreements if found.of_rounding]
    problems = [
        f"a question on {found.symbol} at {found.at} is answered otherwise: {found.differences[0]}"
        for found in report.disagreements
        if not found.of_rounding
    ]
    notes = []
    if rounded:
        notes.append(
            f"{len(rounded)} answers differ in their last digits, as on another processor: "
            f"{rounded[0].differences[0]}"
        )
    return Findings(
        problems=problems[:_TOLD], identical=report.identical, rounded=len(rounded), notes=notes
    )


def _retriever(index: VectorIndex) -> Retriever:
    return Retriever(index, index.collection.state_space())


def _series(series: SeriesRows) -> str:
    return f"{series.symbol} {series.kind} {series.timeframe or ''}".strip()
