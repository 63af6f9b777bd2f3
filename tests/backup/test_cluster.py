"""A Qdrant collection goes into a backup on one server and comes back on another."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from msgspec import structs

from llm_trader.backup import contents
from llm_trader.backup.cluster import QdrantNodes
from llm_trader.backup.create import create_backup
from llm_trader.backup.manifest import Manifest, Places, backups_in
from llm_trader.backup.restore import RestoreReport, restore_backup
from llm_trader.backup.verify import verify_backup
from llm_trader.checks.agreement import compare_answers
from llm_trader.errors import ConfigurationError, VectorIndexError
from llm_trader.index.qdrant.backend import QdrantIndex
from llm_trader.index.qdrant.collection_snapshots import NodeSnapshots
from llm_trader.index.qdrant.config import QdrantServer
from llm_trader.index.qdrant.versions import prune, versions
from llm_trader.progress import Progress, no_progress
from llm_trader.retrieval.retriever import Retriever
from tests.backup.builders import CREATED_AT, NAME, RUN, SLOTS, SYMBOLS, everything, fill
from tests.backup.test_verify import flip, retold
from tests.index import qdrant_stub
from tests.index.builders import same_points
from tests.index.qdrant_stub import Stub
from tests.market.processes import hear, running, tell
from tests.retrieval.builders import COLLECTION, SPACE, past

KEY = "a-secret-that-is-never-told"
QUESTIONS = 4  # the stub takes its time

BACKUP = """
import asyncio
from tests.backup.test_cluster import back_up, place_at

def report_and_wait(what, done, total):
    say(what)
    wait()

url, grpc_port, alias = sys.argv[2].split(",")
place = place_at(url.replace(":/", "://"), int(grpc_port), alias)
asyncio.run(back_up(path, place, report_and_wait))
"""

RESTORE = """
import asyncio
from tests.backup.test_cluster import place_at, restore

def report_and_wait(what, done, total):
    say(what, done)
    wait()

url, grpc_port, alias = sys.argv[2].split(",")
place = place_at(url.replace(":/", "://"), int(grpc_port), alias)
asyncio.run(restore(path, place, progress=report_and_wait))
"""

WRITER = """
import asyncio
from llm_trader.index.qdrant.backend import QdrantIndex
from tests.backup.test_cluster import place_at
from tests.retrieval.builders import COLLECTION, past

async def main():
    url, grpc_port, alias = sys.argv[1].split(",")
    place = place_at(url.replace(":/", "://"), int(grpc_port), alias)
    async with await QdrantIndex.create_or_open(place, COLLECTION) as index:
        await index.begin_run("tests", "bybit", "now")
        for slot in range(5000, 6000):
            wait()
            await index.upsert(past([slot]))
            say("written")

asyncio.run(main())
"""


def place_at(url: str, grpc_port: int, alias: str) -> QdrantServer:
    return QdrantServer(url=url, grpc_port=grpc_port, collection=alias, retry_s=0.5)


def place_of(stub: Stub, alias: str) -> QdrantServer:
    return place_at(stub.url, stub.grpc_port, alias)


def words(place: QdrantServer) -> Path:
    """How a place is told to a process."""
    return Path(f"{place.url},{place.grpc_port},{place.collection}")


async def back_up(backups: Path, place: QdrantServer, progress: Progress = no_progress) -> Manifest:
    sources = Places(qdrant=QdrantNodes(place))
    return await create_backup(backups, NAME, sources, created_at=CREATED_AT, progress=progress)


async def restore(
    backups: Path, place: QdrantServer, *, swap: bool = False, progress: Progress = no_progress
) -> RestoreReport:
    targets = Places(qdrant=QdrantNodes(place))
    return await restore_backup(backups / NAME, targets, swap=swap, progress=progress)


@pytest.fixture(autouse=True)
def _few_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "QUESTIONS", QUESTIONS)


@pytest.fixture(scope="module")
def first_stub() -> Iterator[Stub]:
    with qdrant_stub.start() as stub:
        yield stub


@pytest.fixture(scope="module")
def other() -> Iterator[Stub]:
    with qdrant_stub.start() as stub:
        yield stub


async def filled(place: QdrantServer) -> QdrantServer:
    async with await QdrantIndex.create_or_open(place, COLLECTION) as index:
        await fill(index)
    return place


@pytest.fixture(scope="module")
def source(first_stub: Stub) -> QdrantServer:
    """A filled collection on the first server; not to be written to."""
    place = structs.replace(place_of(first_stub, "held"), timeout_s=30.0, retry_s=10.0)
    return asyncio.run(filled(place))


@pytest.fixture(scope="module")
def kept(source: QdrantServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    """A folder of backups, and what is in its one; not to be written to."""
    backups = tmp_path_factory.mktemp("backups")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contents, "QUESTIONS", QUESTIONS)
        return backups, asyncio.run(back_up(backups, source))


@pytest.fixture
def damaged(kept: tuple[Path, Manifest], tmp_path: Path) -> tuple[Path, str]:
    """A copy with a flipped bit in the snapshot, and its file."""
    backups, manifest = kept
    assert manifest.qdrant is not None
    file = manifest.qdrant.nodes[0].file
    copy = Path(shutil.copytree(backups, tmp_path / "backups"))
    flip(copy / NAME / file, 100_000)
    return copy, file


@pytest.fixture
def empty(other: Stub) -> QdrantServer:
    """A name that nothing has on the second server."""
    return place_of(other, f"t{uuid4().hex[:8]}")


async def check_same(place: QdrantServer, expected: QdrantServer) -> None:
    async with (
        await QdrantIndex.open(place) as restored,
        await QdrantIndex.open(expected) as original,
    ):
        for got, points in zip(await everything(restored), await everything(original), strict=True):
            assert same_points(got, points)
        assert (await restored.info()).runs == (await original.info()).runs
        report = await compare_answers(Retriever(original, SPACE), Retriever(restored, SPACE), 4, 3)
        assert (report.identical, report.disagreements) == (4, [])


async def test_a_backup_holds_the_snapshot_and_what_was_in_the_collection(
    kept: tuple[Path, Manifest], first_stub: Stub
) -> None:
    backups, manifest = kept
    part = manifest.qdrant
    assert part is not None
    assert manifest.parts == ["qdrant"]
    assert (part.alias, part.index.collection) == ("held", COLLECTION)
    assert part.version.startswith("held_v2_5m4h_")
    assert [(of.symbol, of.points) for of in part.index.symbols] == [(s, SLOTS) for s in SYMBOLS]
    (node,) = part.nodes
    assert node.url == first_stub.url
    assert node.file == f"qdrant/1-127.0.0.1-{first_stub.http_port}/{part.version}.snapshot"
    assert (backups / NAME / node.file).stat().st_size > 1 << 20
    assert list(first_stub.folder.rglob("*.snapshot")) == [], "none is left on the node"


async def test_what_was_restored_elsewhere_answers_the_same_to_the_last_bit_and_takes_new_points(
    kept: tuple[Path, Manifest], source: QdrantServer, empty: QdrantServer
) -> None:
    backups, manifest = kept
    report = await restore(backups, empty)
    assert manifest.qdrant is not None
    kind = manifest.qdrant.version.removeprefix("held")
    assert report.restored == {"qdrant": f"{empty.collection}{kind}_restored_1"}
    assert (report.answers, report.notes) == (QUESTIONS, [])
    await check_same(empty, source)
    async with await QdrantIndex.create_or_open(empty, COLLECTION) as index:
        assert await index.begin_run(*RUN) == 2
        assert await index.upsert(past(range(5000, 5003))) == 3
        assert len(await index.timestamps(SYMBOLS[0])) == SLOTS + 3


async def test_a_snapshot_is_verified_by_its_digest(
    kept: tuple[Path, Manifest], damaged: tuple[Path, str]
) -> None:
    report = await verify_backup(kept[0] / NAME)
    assert (report.problems, report.answers) == ([], 0)
    assert "opened when they are restored" in report.notes[0]
    copy, file = damaged
    (problem,) = (await verify_backup(copy / NAME)).problems
    assert problem.file == file


async def test_a_damaged_snapshot_is_never_uploaded(
    damaged: tuple[Path, str], empty: QdrantServer, other: Stub
) -> None:
    other.forget_calls()
    with pytest.raises(ConfigurationError, match=r"is damaged: .*\.snapshot is not what was"):
        await restore(damaged[0], empty)
    assert not any("upload" in call for call in other.calls())


@pytest.mark.soak
async def test_a_live_alias_is_kept_unless_it_may_be_swapped_and_the_old_stays(
    source: QdrantServer, empty: QdrantServer, tmp_path: Path
) -> None:
    await back_up(tmp_path, source)
    async with await QdrantIndex.create_or_open(empty, COLLECTION) as index:
        old = index.name
    with pytest.raises(ConfigurationError, match=f"leads to {old} already; with --swap"):
        await restore(tmp_path, empty)
    async with await QdrantIndex.open(empty) as reader:
        assert (await reader.info()).symbols == []
        report = await restore(tmp_path, empty, swap=True)
        assert [of.points for of in (await reader.info()).symbols] == [SLOTS] * 2
        for symbol in SYMBOLS:
            assert len(await reader.timestamps(symbol)) == SLOTS
    await check_same(empty, source)
    async with await QdrantIndex.open(structs.replace(empty, collection=old)) as kept:
        assert (await kept.info()).symbols == []
    again = await restore(tmp_path, empty, swap=True)
    assert {(of.name, of.live) for of in await versions(empty)} == {
        (old, False),
        (report.restored["qdrant"], False),
        (again.restored["qdrant"], True),
    }
    assert set(await prune(empty)) == {old, report.restored["qdrant"]}
    await check_same(empty, source)


@pytest.mark.soak
async def test_a_reader_goes_on_with_what_was_restored_where_it_came_from(
    empty: QdrantServer, tmp_path: Path
) -> None:
    await back_up(tmp_path, await filled(empty))
    async with await QdrantIndex.open(empty) as reader:
        await reader.timestamps(SYMBOLS[0])
        report = await restore(tmp_path, empty, swap=True)
        await reader.timestamps(SYMBOLS[0])
        assert reader.name == report.restored["qdrant"]


@pytest.mark.soak
async def test_each_node_of_a_cluster_has_its_snapshot(
    source: QdrantServer, empty: QdrantServer, tmp_path: Path
) -> None:
    sources = Places(qdrant=QdrantNodes(source, (source.url, source.url)))
    manifest = await create_backup(tmp_path, NAME, sources, created_at=CREATED_AT)
    assert manifest.qdrant is not None
    assert [node.file.split("/")[1][:2] for node in manifest.qdrant.nodes] == ["1-", "2-"]
    with pytest.raises(ConfigurationError, match="of 2 nodes, and 1 are named; list all nodes"):
        await restore(tmp_path, empty)
    await restore_backup(tmp_path / NAME, Places(qdrant=QdrantNodes(empty, (empty.url, empty.url))))
    await check_same(empty, source)


@pytest.mark.soak
async def test_a_collection_that_does_not_hold_what_it_should_is_deleted_again(
    source: QdrantServer, empty: QdrantServer, other: Stub, tmp_path: Path
) -> None:
    await back_up(tmp_path, source)
    before = set((other.folder / "collections").rglob("*"))

    def missing_runs(manifest: Manifest) -> Manifest:
        part = manifest.qdrant
        assert part is not None
        index = structs.replace(part.index, runs=[])
        return structs.replace(manifest, qdrant=structs.replace(part, index=index))

    await retold(tmp_path / NAME, missing_runs)
    with pytest.raises(ConfigurationError, match=r"qdrant part .* 1 ingestion runs, not these 0"):
        await restore(tmp_path, empty)
    with pytest.raises(VectorIndexError, match="there is no index"):
        await QdrantIndex.open(empty)
    assert set((other.folder / "collections").rglob("*")) == before


@pytest.mark.soak
async def test_what_is_written_during_the_backup_is_either_in_all_of_it_or_makes_it_anew(
    first_stub: Stub, empty: QdrantServer, tmp_path: Path
) -> None:
    place = await filled(place_of(first_stub, f"t{uuid4().hex[:8]}"))
    with running(WRITER, words(place)) as writer:
        pending = [1]

        def write_once(label: str, done: int, total: int) -> None:
            if done and pending:
                pending.pop()
                tell(writer)
                assert hear(writer) == "written"

        manifest = await back_up(tmp_path, place, write_once)
        assert manifest.qdrant is not None
        assert [of.points for of in manifest.qdrant.index.symbols] == [SLOTS + 1, SLOTS]
        assert len(manifest.files) == 2
    await restore(tmp_path, empty)
    await check_same(empty, place)


@pytest.mark.soak
async def test_a_collection_that_is_written_to_all_the_time_is_told_and_leaves_no_backup(
    first_stub: Stub, tmp_path: Path
) -> None:
    place = await filled(place_of(first_stub, f"t{uuid4().hex[:8]}"))
    with running(WRITER, words(place)) as writer:

        def write(label: str, done: int, total: int) -> None:
            if done == total:
                tell(writer)
                hear(writer)

        with pytest.raises(VectorIndexError, match="make the backup while no ingestion"):
            await back_up(tmp_path, place, write)
    assert backups_in(tmp_path) == []


@pytest.mark.soak
async def test_a_backup_that_was_killed_is_unfinished(source: QdrantServer, tmp_path: Path) -> None:
    with running(BACKUP, tmp_path, words(source)) as process:
        assert hear(process).startswith("snapshot of 127.0.0.1")
        tell(process)
        hear(process)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert [of.state for of in backups_in(tmp_path)] == ["unfinished"]


@pytest.mark.soak
async def test_a_restore_that_was_killed_leaves_no_alias_and_can_be_repeated(
    source: QdrantServer, empty: QdrantServer, tmp_path: Path
) -> None:
    await back_up(tmp_path, source)
    with running(RESTORE, tmp_path, words(empty)) as process:
        while not hear(process).startswith("restoring"):
            tell(process)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    with pytest.raises(VectorIndexError, match="there is no index"):
        await QdrantIndex.open(empty)
    await restore(tmp_path, empty)
    await check_same(empty, source)


async def test_a_server_that_is_gone_is_told_with_its_address(
    source: QdrantServer, tmp_path: Path
) -> None:
    sources = Places(qdrant=QdrantNodes(source, ("http://127.0.0.1:9",)))
    with pytest.raises(VectorIndexError, match=r"127\.0\.0\.1:9 cannot be reached; is it running"):
        await create_backup(tmp_path, NAME, sources, created_at=CREATED_AT)
    assert backups_in(tmp_path) == []


async def test_the_api_key_is_sent_and_never_told(tmp_path: Path) -> None:
    with qdrant_stub.start(api_key=KEY) as stub:
        place = structs.replace(place_of(stub, "keyed"), api_key=KEY, api_key_env="QDRANT_API_KEY")
        await filled(place)
        await back_up(tmp_path / "backups", place)
        assert KEY not in (tmp_path / "backups" / NAME / "manifest.json").read_text()
        assert KEY not in repr(QdrantNodes(place))
        wrong = structs.replace(place, api_key=f"{KEY}-no-more")
        async with NodeSnapshots(wrong, place.url) as node:
            with pytest.raises(VectorIndexError, match=r"the API key in \$QDRANT_API_KEY") as told:
                await node.collections()
        assert KEY not in told.value.message
