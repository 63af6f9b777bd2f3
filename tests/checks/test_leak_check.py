"""The leak check on a sound index, and on indexes that somebody has tampered with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from llm_trader.app.index_checks import check_index_for_leaks
from llm_trader.app.ingestion import ingest_from_store
from llm_trader.app.job import Job
from llm_trader.checks.leak_check import Leak, LeakReport, check_for_leaks
from llm_trader.embedding.text import TextSpace
from llm_trader.embedding.text_cache import QueryTexts
from llm_trader.errors import ConfigurationError, InvalidInputError, SymbolNotFoundError
from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.index.points import COLUMN_ROW, STATE, TEXT, PointTable
from llm_trader.index.protocol import Collection
from llm_trader.market.store import MarketStore
from llm_trader.retrieval.retriever import Retriever
from llm_trader.retrieval.search_spec import QueryVectors
from llm_trader.snapshot.builder import DEFAULT_RULES
from llm_trader.snapshot.model import SCALARS, SERIES, SERIES_LENGTH
from llm_trader.snapshot.outcome import LABELS as LABELS_STORED
from llm_trader.snapshot.table import SnapshotTable
from llm_trader.timeframe import M5
from tests.cli.corridor import END_MS, SYMBOL, WARM_MS, Corridor
from tests.embedding.encoders import HashedWords
from tests.index.builders import ALWAYS
from tests.market.builders import run_of_candles

SAMPLES = 2
STATES = slice(0, len(SCALARS))
LABELS = slice(len(SCALARS), len(SCALARS) + len(LABELS_STORED))
DAY = 96  # quarter-hours

Tampering = Callable[[PointTable], PointTable]


@pytest.fixture(scope="module")
def sound(corridor: Corridor) -> PointTable:
    """The later points of one symbol, as they were ingested."""
    with EmbeddedIndex.open(corridor.index) as index:
        points = asyncio.run(index.scan(SYMBOL, ALWAYS))
    return points.take(slice(-20 * DAY, len(points)))


@pytest.fixture(scope="module")
def collection(corridor: Corridor) -> Collection:
    with EmbeddedIndex.open(corridor.index) as index:
        return index.collection


@pytest.fixture
def store(corridor: Corridor) -> Iterator[MarketStore]:
    with MarketStore.open(corridor.store) as opened:
        yield opened


def report_on(
    points: PointTable,
    collection: Collection,
    store: MarketStore,
    path: Path,
    samples: int,
    text: TextSpace | None = None,
) -> LeakReport:
    """Of a check by the state, or by state and text where there is a text space."""

    async def check() -> LeakReport:
        with EmbeddedIndex.create_or_open(path, collection) as index:
            await index.upsert(points)
            texts = QueryTexts(text) if text else None
            retriever = Retriever(index, collection.state_space(), texts)
            vector: QueryVectors = "hybrid" if text else "state"
            return await check_for_leaks(
                retriever, store, DEFAULT_RULES, [SYMBOL], samples, 1, now_ms=END_MS, vector=vector
            )

    return asyncio.run(check())


def states_of(points: PointTable) -> SnapshotTable:
    series = np.full((len(SERIES), len(points), SERIES_LENGTH), np.nan)
    return SnapshotTable(points.symbol, M5, points.timestamp_ms, points.values[STATES], series)


def shifted(points: PointTable, rows: int, columns: slice) -> PointTable:
    """Points with the columns of those so many rows later; the last ones fall away."""
    values = points.values[:, :-rows].copy()
    values[columns] = points.values[columns, rows:]
    return replace(points.take(slice(0, len(points) - rows)), values=values)


def other_outcomes(points: PointTable) -> PointTable:
    values = points.values.copy()
    values[COLUMN_ROW["outcome_4h"]] += 0.001
    return replace(points, values=values)


def other_barriers(points: PointTable) -> PointTable:
    values = points.values.copy()
    values[COLUMN_ROW["first_barrier"]] = (values[COLUMN_ROW["first_barrier"]] + 1) % 3
    return replace(points, values=values)


def states_of_an_hour_later(points: PointTable) -> PointTable:
    """Payload and vector of an hour later, but outcomes of their own time."""
    moved = shifted(points, 4, STATES)
    return replace(moved, vectors={STATE: points.vectors[STATE][4:]})


def payloads_of_an_hour_later(points: PointTable) -> PointTable:
    return shifted(points, 4, STATES)


def vectors_of_an_hour_later(points: PointTable) -> PointTable:
    return replace(
        points.take(slice(0, len(points) - 4)), vectors={STATE: points.vectors[STATE][4:]}
    )


def whole_points_of_a_day_later(points: PointTable) -> PointTable:
    moved = points.take(slice(DAY, len(points)))
    return replace(moved, timestamp_ms=moved.timestamp_ms - DAY * 900_000)


def copies_of_later_points_among_earlier_ones(points: PointTable) -> PointTable:
    """In every fifth place the whole point of five days later."""
    rows = np.arange(len(points))
    rows[: -5 * DAY : 5] += 5 * DAY
    return replace(points.take(rows), timestamp_ms=points.timestamp_ms)


def test_a_sound_index_has_no_leak(corridor: Corridor) -> None:
    steps: list[tuple[str, int, int]] = []
    job = Job(corridor.settings(), {}, END_MS, lambda *step: steps.append(step))
    report = check_index_for_leaks(job, [], 6, 3)
    assert report.leaks == []
    assert 0 < report.queries <= 6
    assert report.matches_checked > report.queries
    assert report.states_rebuilt == 2 * report.queries
    assert steps == [("checking", done, 6) for done in range(1, 7)]


@pytest.mark.soak
def test_equal_seeds_check_equal_queries(corridor: Corridor) -> None:
    job = Job(corridor.settings(), {}, END_MS)
    first, again, other = (check_index_for_leaks(job, [SYMBOL], 2, seed) for seed in (1, 1, 2))
    assert first == again
    assert first.matches_checked != other.matches_checked


OUTCOME = "the outcome is not the one that was known by then"
FIELD = "rsi_14 differs from the store's, as known then; corrected since? rag-ingest"
VECTOR = "its state vector is not of what was known at the match's own time"


@pytest.mark.parametrize(
    ("tamper", "problems"),
    [
        (other_outcomes, {OUTCOME}),
        (other_barriers, {OUTCOME}),
        (states_of_an_hour_later, {FIELD, VECTOR}),
        (payloads_of_an_hour_later, {FIELD}),
        (vectors_of_an_hour_later, {VECTOR}),
        (whole_points_of_a_day_later, {OUTCOME, FIELD, VECTOR}),
        (copies_of_later_points_among_earlier_ones, {OUTCOME}),
    ],
)
def test_tampering_is_found_and_named(
    sound: PointTable,
    collection: Collection,
    store: MarketStore,
    tmp_path: Path,
    tamper: Tampering,
    problems: set[str],
) -> None:
    report = report_on(tamper(sound), collection, store, tmp_path / "index", SAMPLES)
    assert report.matches_checked > 0
    assert problems <= {leak.problem for leak in report.leaks}
    assert {leak.symbol for leak in report.leaks} == {SYMBOL}
    assert all(leak.match_at and leak.match_at < leak.query_at for leak in report.leaks)


def test_the_same_points_untouched_pass_the_same_check(
    sound: PointTable, collection: Collection, store: MarketStore, tmp_path: Path
) -> None:
    report = report_on(sound, collection, store, tmp_path / "index", SAMPLES)
    assert report.leaks == []
    assert report.matches_checked > 0


@pytest.mark.soak
def test_a_text_vector_that_knows_the_future_is_found_by_a_check_of_both_vectors(
    sound: PointTable, collection: Collection, store: MarketStore, tmp_path: Path
) -> None:
    space = TextSpace(HashedWords(), "detailed")
    with_text = msgspec.structs.replace(
        collection, text_space_id=space.space_id, text_dimension=space.dimension
    )
    # Of the time of each point, and of an hour later; nothing but these vectors is wrong.
    words = space.embed(states_of(sound))
    present, later = words[:-4], words[4:]
    problems = []
    for name, vectors in (("own", present), ("later", later)):
        points = sound.take(slice(0, len(sound) - 4))
        points = replace(points, vectors={**points.vectors, TEXT: vectors})
        report = report_on(points, with_text, store, tmp_path / name, SAMPLES, space)
        problems.append({leak.problem for leak in report.leaks})
    assert problems == [set(), {"its text vector is not of what was known at the match's own time"}]


def test_only_points_that_were_tampered_with_are_accused(
    sound: PointTable, collection: Collection, store: MarketStore, tmp_path: Path
) -> None:
    values = sound.values.copy()
    tampered = np.arange(len(sound)) % 7 == 0
    values[COLUMN_ROW["outcome_24h"], tampered] *= -1
    points = replace(sound, values=values)
    report = report_on(points, collection, store, tmp_path / "index", SAMPLES)
    accused = {np.datetime64(str(leak.match_at).rstrip("Z")) for leak in report.leaks}
    guilty = set(sound.timestamp_ms[tampered].astype("datetime64[ms]"))
    assert accused
    assert accused <= guilty


class Clairvoyant(Retriever):
    """A retriever that ignores the query's time."""

    async def query(self, state, as_of_ms, config):  # type: ignore[no-untyped-def]
        return await super().query(state, END_MS, config)


def test_a_retriever_that_sees_unresolved_points_is_caught(
    corridor: Corridor, store: MarketStore
) -> None:
    with EmbeddedIndex.open(corridor.index) as index:
        retriever = Clairvoyant(index, index.collection.state_space())
        checking = check_for_leaks(retriever, store, DEFAULT_RULES, [SYMBOL], 3, 1, now_ms=END_MS)
        report = asyncio.run(checking)
    leaks = [leak for leak in report.leaks if leak.problem == "the match was not resolved yet"]
    assert leaks
    assert isinstance(leaks[0], Leak)


def test_with_nothing_to_check_nothing_is_proven(corridor: Corridor, tmp_path: Path) -> None:
    job = Job(corridor.settings(index__path=tmp_path / "index"), {}, END_MS)
    before_ms = WARM_MS - 900_000
    ingest_from_store(job, [SYMBOL], before_ms, before_ms)
    with pytest.raises(InvalidInputError, match="the index is empty; ingest something first"):
        check_index_for_leaks(job, [], 3, 0)


def test_a_store_that_knows_nothing_of_the_indexs_time_proves_nothing(
    sound: PointTable, collection: Collection, tmp_path: Path
) -> None:
    path = tmp_path / "other"
    with (
        MarketStore.open(path, write=True, exchange="simulated") as empty,
        pytest.raises(InvalidInputError, match="no sampled query had a match"),
    ):
        report_on(sound, collection, empty, tmp_path / "index", 2)


def test_an_unknown_symbol_is_refused(corridor: Corridor) -> None:
    with pytest.raises(SymbolNotFoundError, match="available: BTCUSDT, ETHUSDT"):
        check_index_for_leaks(Job(corridor.settings(), {}, END_MS), ["DOGEUSDT"], 3, 0)


def test_a_store_of_another_exchange_is_a_mistake_and_no_leak(
    corridor: Corridor, tmp_path: Path
) -> None:
    with MarketStore.open(tmp_path / "bybit", write=True, exchange="bybit") as store:
        store.write("BTCUSDT", run_of_candles(2), "made", written_at_ms=0)
    settings = corridor.settings(market__store=tmp_path / "bybit")
    with pytest.raises(ConfigurationError, match=r"is of bybit, the index at .* of simulated"):
        check_index_for_leaks(Job(settings, {}, END_MS), [], 3, 0)
