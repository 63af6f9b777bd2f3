"""Two indexes are asked the same: equal ones agree to the last bit, others are found out."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from msgspec import structs

from llm_trader.arrays import Vectors
from llm_trader.checks.agreement import (
    AgreementReport,
    RecordedAnswer,
    compare_answers,
    compare_recorded,
    record_answers,
)
from llm_trader.errors import InvalidInputError
from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.index.migration import copy_points
from llm_trader.index.points import COLUMN_ROW, STATE, TEXT, PointTable
from llm_trader.index.protocol import Hits, SearchQuery
from llm_trader.index.qdrant.backend import QdrantIndex
from llm_trader.retrieval.retriever import Retriever
from llm_trader.snapshot.outcome import LONGEST_HORIZON_MS
from llm_trader.snapshot.table import SnapshotTable
from tests.index.builders import SLOT_MS, SYMBOL
from tests.index.qdrant_places import place_at, stub
from tests.retrieval.builders import COLLECTION, SPACE, index_of, of_symbol, past

SYMBOLS = (SYMBOL, "ETHUSDT", "SOLUSDT")
SLOTS = 1500


def points_of_all(slots: int = SLOTS) -> list[PointTable]:
    return [of_symbol(past(range(slots), seed), name) for seed, name in enumerate(SYMBOLS)]


@asynccontextmanager
async def asked(*tables: PointTable) -> AsyncIterator[Retriever]:
    async with index_of(*tables) as index:
        yield Retriever(index, SPACE)


async def agreement(
    expected: list[PointTable], other: list[PointTable], samples: int = 12
) -> AgreementReport:
    async with asked(*expected) as first, asked(*other) as second:
        return await compare_answers(first, second, samples, seed=1)


async def test_equal_indexes_agree_to_the_last_bit_on_every_question() -> None:
    steps: list[tuple[str, int, int]] = []
    async with asked(*points_of_all()) as first, asked(*reversed(points_of_all())) as other:
        report = await compare_answers(first, other, 12, 1, lambda *step: steps.append(step))
    assert report == AgreementReport(12, 12, [])
    assert steps == [("comparing answers", done, 12) for done in range(1, 13)]


async def test_all_symbols_are_asked_about_with_and_without_filters() -> None:
    async with asked(*points_of_all()) as retriever:
        questions = [record.question for record in await record_answers(retriever, 12, 1)]
    kinds = {(of.symbol, of.include_regime_filters) for of in questions}
    assert kinds == {(symbol, filters) for symbol in SYMBOLS for filters in (True, False)}


async def test_every_question_is_of_a_known_point_and_no_later_than_the_newest() -> None:
    tables = points_of_all()
    async with asked(*tables) as retriever:
        records = await record_answers(retriever, 40, 1)
    prices = {t.symbol: dict(zip(t.column("price"), t.timestamp_ms, strict=True)) for t in tables}
    newest = int(tables[0].timestamp_ms[-1]) + LONGEST_HORIZON_MS
    for of in (record.question for record in records):
        resolved = int(prices[of.symbol][of.state["price"]]) + LONGEST_HORIZON_MS
        assert resolved <= of.at_ms <= newest
        assert (of.at_ms - resolved) % SLOT_MS == 0
    assert len({record.question.at_ms for record in records}) > 30
    asked_with_matches = sum(bool(record.answer["matches"]) for record in records)
    assert asked_with_matches > 30


async def test_equal_seeds_ask_equal_questions() -> None:
    async with asked(*points_of_all(300)) as retriever:
        first, again, other = [await record_answers(retriever, 5, seed) for seed in (1, 1, 2)]
    assert first == again
    assert first != other


async def test_points_that_are_appended_meanwhile_change_no_answer() -> None:
    async with index_of(*points_of_all()) as index:
        recorded = await record_answers(Retriever(index, SPACE), 12, 1)
        more = past(range(SLOTS, SLOTS + 200), seed=9)
        for symbol in SYMBOLS:
            await index.upsert(of_symbol(more, symbol))
        assert (await compare_recorded(recorded, Retriever(index, SPACE))).identical == 12


async def test_recorded_answers_survive_being_written_down() -> None:
    async with asked(*points_of_all()) as retriever:
        recorded = await record_answers(retriever, 12, 1)
        written = msgspec.json.decode(msgspec.json.encode(recorded), type=list[RecordedAnswer])
        assert written == recorded
        assert await compare_recorded(written, retriever) == AgreementReport(12, 12, [])


def other_outcome(points: PointTable) -> PointTable:
    values = points.values.copy()
    values[COLUMN_ROW["outcome_4h"]] = np.nextafter(values[COLUMN_ROW["outcome_4h"]], np.inf)
    return replace(points, values=values)


def fewer(points: PointTable) -> PointTable:
    return points.take(np.arange(len(points)) % 50 != 7)


def other_vectors(points: PointTable) -> PointTable:
    return replace(points, vectors={STATE: np.roll(points.vectors[STATE], 1, axis=0)})


@pytest.mark.parametrize("tamper", [other_outcome, fewer, other_vectors])
async def test_an_index_that_was_altered_disagrees(tamper: object) -> None:
    tables = points_of_all()
    report = await agreement(tables, [tables[0], tamper(tables[1]), tables[2]])  # type: ignore[operator]
    assert (report.questions, report.identical) == (12, 8)
    assert {disagreement.symbol for disagreement in report.disagreements} == {"ETHUSDT"}


async def test_a_difference_in_the_last_bits_is_told_as_rounding() -> None:
    tables = points_of_all()
    report = await agreement(tables, list(map(other_outcome, tables)))
    assert report.identical == 0
    assert all(
        disagreement.of_rounding and disagreement.count > 5 for disagreement in report.disagreements
    )


# In the order of the 12 questions that seed 1 draws.
FIRST_PLACES = [
    "matches[6].similarity_percentile",
    "matches[7].similarity_percentile",
    "the length of matches",
    "matches[3].similarity_percentile",
    "matches[2].similarity_percentile",
    "matches[5].similarity_percentile",
    "matches[4].similarity_percentile",
    "matches[4].similarity",
    "matches[1].similarity_percentile",
    "evidence.reason",
    "matches[2].similarity",
    "matches[6].similarity",
]


async def test_other_neighbours_are_not_told_as_rounding_but_by_place() -> None:
    tables = points_of_all()
    report = await agreement(tables, list(map(fewer, tables)))
    assert not any(disagreement.of_rounding for disagreement in report.disagreements)
    first = [disagreement.differences[0] for disagreement in report.disagreements]
    assert all(re.fullmatch(r".+ is .+, not .+", difference) for difference in first)
    assert [difference.split(" is ")[0] for difference in first] == FIRST_PLACES
    assert all(len(disagreement.differences) <= 5 for disagreement in report.disagreements)


async def test_a_symbol_that_is_missing_is_a_disagreement() -> None:
    tables = points_of_all()
    report = await agreement(tables, tables[:2])
    missing = [
        disagreement for disagreement in report.disagreements if disagreement.symbol == "SOLUSDT"
    ]
    assert len(missing) == len(report.disagreements) == 4
    assert missing[0].differences[:2] == [
        "refusal is symbol_not_found, not None",
        "matches is None, not a list",
    ]


async def test_an_empty_index_has_nothing_to_ask_about() -> None:
    async with asked() as first, asked() as other:
        assert await record_answers(first, 5, 1) == []
        with pytest.raises(InvalidInputError, match="the index is empty"):
            await compare_answers(first, other, 5, 1)


async def test_one_set_of_points_answers_alike_however_it_came_to_lie_in_memory() -> None:
    tables = points_of_all()
    late = np.arange(SLOTS) % 7 == 3
    in_two = [part for table in tables for part in (table.take(~late), table.take(late))]
    assert await agreement(tables, in_two) == AgreementReport(12, 12, [])


@pytest.mark.soak
async def test_the_same_points_on_qdrant_answer_alike_to_the_last_bit() -> None:
    async with (
        asked(*points_of_all()) as first,
        await QdrantIndex.create_or_open(place_at(stub()), COLLECTION) as remote,
    ):
        await copy_points(first.index, remote, [], 1000)
        report = await compare_answers(first, Retriever(remote, SPACE), 12, 1)
    assert report == AgreementReport(12, 12, [])


class Wording:
    """Stands in for a text model: a unit vector that depends on the state."""

    space_id, model = "text-of-tests", "angles"

    async def vector(self, state: SnapshotTable) -> Vectors:
        angle = state.column("rsi_14")[0]
        return np.array([np.cos(angle), np.sin(angle)], np.float32)


def with_text(points: PointTable) -> PointTable:
    angle = points.column("rsi_14")
    text = np.column_stack([np.cos(angle), np.sin(angle)]).astype(np.float32)
    return replace(points, vectors={**points.vectors, TEXT: text})


class NotesSearches(EmbeddedIndex):
    """Remembers which vectors were searched."""

    searched: set[str]

    async def search(self, query: SearchQuery) -> Hits:
        self.searched.add(query.name)
        return await super().search(query)


async def test_those_vectors_are_compared_that_both_can_search(tmp_path: Path) -> None:
    collection = structs.replace(COLLECTION, text_space_id=Wording.space_id, text_dimension=2)
    with NotesSearches.create_or_open(tmp_path, collection) as index:
        await index.upsert(with_text(past(range(SLOTS))))
        plain, worded = Retriever(index, SPACE), Retriever(index, SPACE, Wording())  # type: ignore[arg-type]
        for other, searched in ((plain, {STATE}), (worded, {STATE, TEXT})):
            index.searched = set()
            assert await compare_answers(worded, other, 6, 1) == AgreementReport(6, 6, [])
            assert index.searched == searched
