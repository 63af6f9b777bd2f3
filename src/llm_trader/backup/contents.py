"""The content of a copy of a store or an index: described, and compared with its description."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from llm_trader.backup.files import disk_errors
from llm_trader.backup.manifest import (
    ANSWERS,
    INDEX,
    MARKET,
    IndexPart,
    Manifest,
    MarketPart,
    SeriesRows,
)
from llm_trader.checks.agreement import RecordedAnswer, compare_recorded, record_answers
from llm_trader.errors import ConfigurationError, InvalidInputError, LlmTraderError
from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.index.protocol import VectorIndex
from llm_trader.market.store import MarketStore
from llm_trader.retrieval.retriever import Retriever

QUESTIONS: Final = 16  # half with and half without regime filters; each takes as long as a query
_SEED: Final = 0
_SHOWN_PROBLEMS: Final = 5  # enough to see what is wrong; a damaged index has thousands
_NO_ANSWERS: Final = (
    "no answers of the index were recorded, so verify and restore cannot prove that it answers as "
    "before"
)


class Recording(NamedTuple):
    """Questions to an index with its answers, and notes on what was not recorded."""

    answers: list[RecordedAnswer]
    notes: list[str]


class Findings(msgspec.Struct, kw_only=True):
    """The findings of a check of a copy.

    `identical` counts recorded questions that were answered the same to the last bit, `rounded`
    those that differ in last digits only, as on another processor. `notes` are no problems.
    """

    problems: list[str] = []
    identical: int = 0
    rounded: int = 0
    notes: list[str] = []


def market_part(folder: Path, location: str) -> MarketPart:
    """Describes the store in a folder; `location` is where it was copied from."""
    with MarketStore.open(folder, immutable=True) as store:
        info = store.describe()
    return MarketPart(
        location=location,
        exchange=info.exchange,
        series=[
            SeriesRows(s.symbol, s.kind, s.timeframe, s.rows, s.first, s.last) for s in info.series
        ],
    )


async def index_part(index: VectorIndex, location: str) -> IndexPart:
    """Describes an index; `location` is where it was copied from."""
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


def read_answers(folder: Path) -> list[RecordedAnswer]:
    """The recorded questions and answers; none where a backup holds no index."""
    path = folder / ANSWERS
    if not path.is_file():
        return []
    try:
        with disk_errors(folder):
            return msgspec.json.decode(path.read_bytes(), type=list[RecordedAnswer])
    except msgspec.MsgspecError as error:
        raise ConfigurationError(
            f"{path} is of another version ({error}); use the version that made it"
        ) from error


async def check_copy(part: str, folder: Path, manifest: Manifest, backup: Path) -> Findings:
    """Whether the copy of a part opens, holds what it should, and answers as the backup says."""
    answers = read_answers(backup) if part == INDEX else []
    try:
        if part == MARKET and manifest.market is not None:
            return _compare_market(market_part(folder, str(folder)), manifest.market)
        if part == INDEX and manifest.index is not None:
            with EmbeddedIndex.open(folder, immutable=True) as index:
                return await check_open_index(index, manifest.index, answers)
    except LlmTraderError as error:
        return Findings(problems=[error.message])
    # A part that nothing describes must not pass for a proven one.
    raise InvalidInputError(f"the backup holds no {part} part to check")


def _compare_market(copied: MarketPart, part: MarketPart) -> Findings:
    problems = []
    if copied.exchange != part.exchange:
        problems.append(f"its exchange is {copied.exchange}, not {part.exchange}")
    problems += [
        f"{_series(series)} is missing or of another extent"
        for series in part.series
        if series not in copied.series
    ]
    problems += [
        f"{_series(series)} should not be there, or is of another extent"
        for series in copied.series
        if series not in part.series
    ]
    return Findings(problems=problems[:_SHOWN_PROBLEMS])


async def check_open_index(
    index: VectorIndex, part: IndexPart, answers: Sequence[RecordedAnswer]
) -> Findings:
    """Whether an index holds what it should, and answers as recorded."""
    info = await index.info()
    problems = info.collection.differences(part.collection)
    if info.runs != part.runs:
        problems.append(f"it has {len(info.runs)} ingestion runs, not these {len(part.runs)}")
    stored = {symbol.symbol: symbol for symbol in info.symbols}
    for expected in part.symbols:
        symbol = stored.pop(expected.symbol, None)
        if symbol != expected:
            points = symbol.points if symbol else 0
            problems.append(
                f"{expected.symbol} has {points} points, not {expected.points} of the same times"
            )
    problems += [f"{name} should not be there" for name in stored]
    if problems:
        return Findings(problems=problems[:_SHOWN_PROBLEMS])
    return await _compare_answers(index, answers)


async def _compare_answers(index: VectorIndex, answers: Sequence[RecordedAnswer]) -> Findings:
    try:
        retriever = _retriever(index)
    except ConfigurationError as error:
        return Findings(notes=[f"no question was asked: {error.message}"])
    report = await compare_recorded(answers, retriever)
    rounded = [answer for answer in report.disagreements if answer.of_rounding]
    problems = [
        f"a question on {answer.symbol} at {answer.at} is answered otherwise: "
        f"{answer.differences[0]}"
        for answer in report.disagreements
        if not answer.of_rounding
    ]
    notes = []
    if rounded:
        notes.append(
            f"{len(rounded)} answers differ in their last digits, as on another processor: "
            f"{rounded[0].differences[0]}"
        )
    return Findings(
        problems=problems[:_SHOWN_PROBLEMS],
        identical=report.identical,
        rounded=len(rounded),
        notes=notes,
    )


def _retriever(index: VectorIndex) -> Retriever:
    return Retriever(index, index.collection.state_space())


def _series(series: SeriesRows) -> str:
    return f"{series.symbol} {series.kind} {series.timeframe or ''}".strip()
