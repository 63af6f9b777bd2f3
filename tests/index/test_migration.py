"""Points are copied from index to index, killed in the middle, resumed, and compared."""

from __future__ import annotations

import random
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from llm_trader.checks.copy_verification import CopyProblem, verify_copy
from llm_trader.errors import ConfigurationError, SymbolNotFoundError
from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.index.migration import CopyReport, copy_points
from llm_trader.index.points import TEXT, PointTable
from llm_trader.index.protocol import VectorIndex
from llm_trader.index.qdrant.backend import QdrantIndex
from llm_trader.index.qdrant.config import QdrantServer
from llm_trader.market.series_changes import DataMark
from tests.index.builders import (
    SLOT_MS,
    START_MS,
    SYMBOL,
    collection,
    points_at,
    same_points,
    stored,
    unit_vectors,
)
from tests.index.copies import OTHER, POINTS, RUNS, empty, filled
from tests.index.qdrant_places import place_at, stub
from tests.market.processes import hear, running, tell

TEXT_DIMENSION = 9

COPYING = """
import asyncio
from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.index.migration import copy_points

async def main():
    def report_and_wait(*words):
        say(*words)
        wait()

    with EmbeddedIndex.open(path) as source:
        with EmbeddedIndex.create_or_open(Path(sys.argv[2]), source.collection) as target:
            reports = await copy_points(source, target, [], 10, report_and_wait)
            say("added", sum(report.added for report in reports))

asyncio.run(main())
"""


async def check_true_copy(source: VectorIndex, target: VectorIndex) -> None:
    for symbol in (SYMBOL, OTHER):
        assert same_points(await stored(target, symbol), await stored(source, symbol))
    assert (await target.info()).runs == (await source.info()).runs
    assert await verify_copy(source, target) == []


@pytest.mark.parametrize("batch", [1, 7, POINTS, 10 * POINTS])
async def test_a_copy_equals_its_source_to_the_last_bit(tmp_path: Path, batch: int) -> None:
    async with filled(tmp_path / "source") as source:
        with empty(tmp_path / "target") as target:
            reports = await copy_points(source, target, [], batch)
            await check_true_copy(source, target)
    plain = {"already_there": 0, "replaced": 0, "removed": 0}
    assert reports == [
        CopyReport(symbol=SYMBOL, points=POINTS, added=POINTS, **plain),
        CopyReport(symbol=OTHER, points=50, added=50, **plain),
    ]


async def test_all_vectors_of_a_point_are_copied(tmp_path: Path) -> None:
    content = collection(text_space_id="text-of-tests", text_dimension=TEXT_DIMENSION)
    points = points_at(range(30))
    vectors = {**points.vectors, TEXT: unit_vectors(30, 5, TEXT_DIMENSION)}
    with empty(tmp_path / "a", content) as source, empty(tmp_path / "b", content) as target:
        await source.begin_run(*RUNS[0])
        await source.upsert(replace(points, vectors=vectors))
        await copy_points(source, target, [], 8)
        assert same_points(await stored(target), replace(points, vectors=vectors))
        assert await verify_copy(source, target) == []


async def test_only_the_symbols_that_were_named_are_copied(tmp_path: Path) -> None:
    async with filled(tmp_path / "source") as source:
        with empty(tmp_path / "target") as target:
            (report,) = await copy_points(source, target, [OTHER], 100)
            assert (report.symbol, report.added) == (OTHER, 50)
            assert [of.symbol for of in (await target.info()).symbols] == [OTHER]
            assert await verify_copy(source, target) == [
                CopyProblem(SYMBOL, f"all of its {POINTS} points are missing")
            ]


async def test_an_unknown_symbol_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    async with filled(tmp_path / "source") as source:
        with empty(tmp_path / "target") as target:
            with pytest.raises(SymbolNotFoundError, match="DOGEUSDT"):
                await copy_points(source, target, [SYMBOL, "DOGEUSDT"], 100)
            info = await target.info()
            assert (info.symbols, info.runs) == ([], [])


async def test_copying_again_adds_what_is_new_and_what_a_later_run_replaced(
    tmp_path: Path,
) -> None:
    async with filled(tmp_path / "source") as source:
        with empty(tmp_path / "target") as target:
            await copy_points(source, target, [], 64)
            again = await copy_points(source, target, [], 64)
            assert [(r.already_there, r.added, r.replaced) for r in again] == [
                (POINTS, 0, 0),
                (50, 0, 0),
            ]
            run = await source.begin_run("build 3", "bybit", "2026-01-04T00:00:00Z")
            await source.upsert(points_at(range(90, 95), 9, run=run))
            await source.upsert(points_at(range(POINTS, POINTS + 3), 9, run=run))
            (report, _) = await copy_points(source, target, [], 64)
            assert (report.already_there, report.added, report.replaced) == (POINTS - 5, 3, 5)
            await check_true_copy(source, target)


async def test_points_of_a_run_that_began_during_the_copy_come_with_that_run(
    tmp_path: Path,
) -> None:
    async with filled(tmp_path / "source") as source:
        pending = [points_at(range(POINTS - 20, POINTS), 9, run=4)]

        class WrittenMeanwhile(EmbeddedIndex):
            """Begins a run and replaces the last points as soon as the first are copied."""

            async def upsert(self, points: PointTable) -> int:
                if pending:
                    await source.begin_run("build 3", "bybit", "2026-01-04T00:00:00Z")
                    await source.upsert(pending.pop())
                return await super().upsert(points)

        with WrittenMeanwhile.create_or_open(tmp_path / "target", collection()) as target:
            await copy_points(source, target, [], 50)
            await check_true_copy(source, target)
            assert len((await target.info()).runs) == 4


async def test_progress_goes_from_nothing_to_all_points(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    async with filled(tmp_path / "source") as source:
        with empty(tmp_path / "target") as target:
            await copy_points(source, target, [OTHER], 20, lambda *words: told.append(words))
    assert told == [(OTHER, done, 50) for done in (0, 20, 40, 50)]


async def test_a_target_of_another_collection_is_refused_with_what_differs(
    tmp_path: Path,
) -> None:
    async with filled(tmp_path / "source") as source:
        with (
            empty(tmp_path / "target", collection(exchange="okx")) as target,
            pytest.raises(ConfigurationError, match=r"exchange is okx, not bybit; copy into"),
        ):
            await copy_points(source, target, [], 100)


@pytest.mark.parametrize(
    ("runs", "told"),
    [
        ((RUNS[1],), "run 1 is build 1 of bybit at 2026-01-02T00:00:00Z, not build 1 of"),
        ((*RUNS, RUNS[0]), "it has 4 runs, not 3"),
    ],
    ids=["another run", "more runs"],
)
async def test_a_target_with_runs_of_its_own_is_refused_with_what_differs(
    tmp_path: Path, runs: tuple[tuple[str, str | None, str], ...], told: str
) -> None:
    async with filled(tmp_path / "source") as source:
        with empty(tmp_path / "target") as target:
            for run in runs:
                await target.begin_run(*run)
            with pytest.raises(ConfigurationError, match=told) as refused:
                await copy_points(source, target, [], 100)
            assert "copy into one that is new and empty" in refused.value.message
            assert (await target.info()).symbols == []


@pytest.mark.parametrize("kills", [1, pytest.param(4, marks=pytest.mark.soak)])
async def test_killed_at_random_moments_a_copy_ends_as_if_it_had_never_been(
    tmp_path: Path, kills: int
) -> None:
    rng = random.Random(3)
    source_path, path = tmp_path / "source", tmp_path / "target"
    async with filled(source_path):
        pass
    seen = [0]
    empty(path).close()
    with EmbeddedIndex.open(source_path) as source, EmbeddedIndex.open(path) as reader:
        for _ in range(kills):
            with running(COPYING, source_path, path) as process:
                for _ in range(rng.randint(2, 8)):
                    assert hear(process).startswith(SYMBOL)
                    tell(process)
                # It is at work on its next batch now, or has just written it.
                time.sleep(rng.uniform(0, 0.02))  # noqa: ASYNC251
                process.send_signal(signal.SIGKILL)
                assert process.wait() == -signal.SIGKILL
            stamps = await reader.timestamps(SYMBOL)
            assert len(stamps) % 10 == 0, "a batch is written as a whole or not at all"
            assert stamps.tolist() == [START_MS + SLOT_MS * i for i in range(len(stamps))]
            seen.append(len(stamps))
        assert seen == sorted(seen)
        assert 0 < seen[-1] < POINTS

        with running(COPYING, source_path, path) as process:
            lines = process.communicate("\n" * 100)[0].splitlines()
            assert process.returncode == 0
        assert lines[-1] == f"added {POINTS + 50 - seen[-1]}"
        await check_true_copy(source, reader)


COPYING_TO_QDRANT = """
import asyncio
from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.index.migration import copy_points
from llm_trader.index.qdrant.backend import QdrantIndex
from llm_trader.index.qdrant.config import QdrantServer

async def main():
    def report_and_wait(*words):
        say(*words)
        wait()

    host, port, alias = sys.argv[2].split(",")
    place = QdrantServer(url=f"http://{host}", grpc_port=int(port), collection=alias)
    with EmbeddedIndex.open(path) as source:
        async with await QdrantIndex.create_or_open(place, source.collection) as target:
            reports = await copy_points(source, target, [], 50, report_and_wait)
            say("added", sum(report.added for report in reports))

asyncio.run(main())
"""


def words(place: QdrantServer) -> Path:
    """How a place is told to a process."""
    return Path(f"{place.host},{place.grpc_port},{place.collection}")


@pytest.mark.soak
async def test_killed_and_resumed_points_reach_qdrant_and_come_back_to_the_last_bit(
    tmp_path: Path,
) -> None:
    place = place_at(stub())
    async with filled(tmp_path / "source"):
        pass
    with running(COPYING_TO_QDRANT, tmp_path / "source", words(place)) as process:
        for _ in range(4):
            assert hear(process).startswith(SYMBOL)
            tell(process)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    with running(COPYING_TO_QDRANT, tmp_path / "source", words(place)) as process:
        lines = process.communicate("\n" * 100)[0].splitlines()
        assert process.returncode == 0
    assert int(lines[-1].removeprefix("added ")) < POINTS, "it went on where it was killed"

    with EmbeddedIndex.open(tmp_path / "source") as source, empty(tmp_path / "back") as back:
        async with await QdrantIndex.create_or_open(place, source.collection) as remote:
            await check_true_copy(source, remote)
            again = await copy_points(source, remote, [], 100)
            assert [(r.added, r.replaced) for r in again] == [(0, 0), (0, 0)]
            await copy_points(remote, back, [], 64)
            await check_true_copy(remote, back)
        await check_true_copy(source, back)


async def test_text_vectors_reach_qdrant_and_come_back_to_the_last_bit(tmp_path: Path) -> None:
    content = collection(text_space_id="text-of-tests", text_dimension=384)
    points = points_at(range(200))
    vectors = {**points.vectors, TEXT: unit_vectors(200, 5, 384)}
    with empty(tmp_path / "a", content) as source, empty(tmp_path / "b", content) as back:
        await source.upsert(replace(points, vectors=vectors))
        async with await QdrantIndex.create_or_open(place_at(stub()), content) as remote:
            await copy_points(source, remote, [], 64)
            assert await verify_copy(source, remote) == []
            await copy_points(remote, back, [], 64)
        assert same_points(await stored(back), replace(points, vectors=vectors))


async def test_a_repeated_copy_removes_what_the_source_removed_and_takes_its_data_mark(
    tmp_path: Path,
) -> None:
    mark = DataMark(7, {"candles_5m": 10**12}, 3_600_000)
    async with filled(tmp_path / "source") as source:
        with empty(tmp_path / "target") as target:
            await copy_points(source, target, [], 50)
            assert await target.data_mark(SYMBOL) is None
            first = (await source.timestamps(SYMBOL))[:3]
            await source.remove(SYMBOL, first)
            await source.set_data_mark(SYMBOL, mark)
            reports = await copy_points(source, target, [], 50)
            assert [report.removed for report in reports] == [3, 0]
            assert [report.added + report.replaced for report in reports] == [0, 0]
            await check_true_copy(source, target)
            assert await target.data_mark(SYMBOL) == mark
            assert await target.data_mark(OTHER) is None
