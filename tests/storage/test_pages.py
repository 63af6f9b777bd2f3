"""The check of an LMDB file's pages: what LMDB writes passes, what it would trip over does not."""

from __future__ import annotations

import random
from contextlib import suppress
from pathlib import Path

import lmdb
import pytest

from llm_trader.errors import StoreError
from llm_trader.storage import pages
from llm_trader.storage.environment import Environment
from llm_trader.storage.pages import DamagedFileError, check_pages, verified
from tests.market.processes import hear, running, tell
from tests.storage.damage import PAGE
from tests.storage.test_environment import FORMAT, store_with

WRITER = """
import random
from llm_trader.storage.environment import Environment
from tests.storage.test_environment import FORMAT
with Environment(path, FORMAT, write=True) as writer:
    rng = random.Random(1)
    say("open")
    while True:
        with writer.write("data") as txn:
            for _ in range(50):
                txn.put("data", b"%d" % rng.randrange(500), bytes(rng.randrange(6000)))
"""


@pytest.mark.parametrize(
    "seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(2, 6))]
)
def test_whatever_lmdb_writes_passes(tmp_path: Path, seed: int) -> None:
    """Random writes and deletes, of values shorter and longer than a page."""
    rng = random.Random(seed)
    with lmdb.open(str(tmp_path), max_dbs=4, map_size=2**26) as environment:
        check_pages(tmp_path / "data.mdb")
        databases = [environment.open_db(name) for name in (b"data", b"data2")]
        for _ in range(40):
            with environment.begin(write=True) as txn:
                for _ in range(rng.randrange(1, 60)):
                    key = b"%0*d" % (rng.choice((1, 9, 60)), rng.randrange(300))
                    database = rng.choice(databases)
                    if rng.random() < 0.4:
                        txn.delete(key, db=database)
                    else:
                        txn.put(key, rng.randbytes(rng.choice((3, 90, 9000))), db=database)
            check_pages(tmp_path / "data.mdb")
    assert verified(tmp_path / "data.mdb") == []


def test_first_pages_that_a_commit_came_between_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, headers = tmp_path / "data.mdb", []
    with lmdb.open(str(tmp_path)) as environment:
        for number in range(4):
            with environment.begin(write=True) as txn:
                txn.put(b"key", b"%d" % number)
            headers.append(pages.read_header(file))
    torn = pages.Header(headers[0].page_size, headers[0].metas.copy())
    newest = headers[3].metas
    torn.metas[int(newest["transaction"].argmax())] = newest[int(newest["transaction"].argmax())]
    readings = iter([torn, headers[3]])
    monkeypatch.setattr(pages, "_both_metas", lambda file: next(readings))
    assert pages.read_header(file) is headers[3]
    monkeypatch.setattr(pages, "_both_metas", lambda file: torn)
    with pytest.raises(DamagedFileError, match="not of consecutive transactions"):
        pages.read_header(file)


@pytest.mark.soak
def test_a_store_is_opened_while_another_process_commits_all_the_time(tmp_path: Path) -> None:
    with running(WRITER, tmp_path) as writer:
        assert hear(writer) == "open"
        for _ in range(30):
            with Environment(tmp_path, FORMAT) as reader, reader.read() as txn:
                txn.count("data")


@pytest.mark.parametrize("write", [False, True])
def test_a_file_that_was_copied_in_part_is_refused(tmp_path: Path, write: bool) -> None:
    with Environment(tmp_path, FORMAT, write=True) as writer, writer.write("data") as txn:
        for number in range(5000):
            txn.put("data", b"%d" % number, bytes(50))
    content = (tmp_path / "data.mdb").read_bytes()
    for size in (1, 100, PAGE, 2 * PAGE, 3 * PAGE + 7, len(content) // 2, len(content) - 1):
        (tmp_path / "data.mdb").write_bytes(content[:size])
        with pytest.raises(StoreError, match=r"is damaged: it .*; rebuild it"):
            Environment(tmp_path, FORMAT, write=write)
    (tmp_path / "data.mdb").write_bytes(content)
    Environment(tmp_path, FORMAT, write=write).close()


def test_a_file_that_is_cut_while_it_is_open_is_refused_at_the_next_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_trader.storage.environment._CHECK_FILE_EVERY_SECONDS", 0)
    folder = store_with(tmp_path, bytes(100_000))
    with Environment(folder, FORMAT) as reader:
        with (folder / "data.mdb").open("r+b") as file:
            file.truncate(4 * PAGE)
        with pytest.raises(StoreError, match="was cut to 16384 while open"), reader.read():
            pass


@pytest.mark.parametrize(
    "bits_of_a_byte", [1, pytest.param(8, marks=pytest.mark.soak)], ids=["a bit", "every bit"]
)
@pytest.mark.parametrize("newest", ["first", "second"])
@pytest.mark.parametrize("page", [0, 1])
def test_every_byte_of_the_first_two_pages_counts_or_does_no_harm(
    tmp_path: Path, page: int, newest: str, bits_of_a_byte: int
) -> None:
    """A wrong one must not lead LMDB back to an earlier state."""
    folder = store_with(tmp_path / "store", b"first")
    with Environment(folder, FORMAT, write=True) as writer:
        for number in range(5 if newest == "first" else 4, -1, -1):
            with writer.write("data") as txn:
                txn.put("data", b"key", b"%d" % number)
    content = (folder / "data.mdb").read_bytes()
    (tmp_path / "other").mkdir()
    file = tmp_path / "other" / "data.mdb"
    for place in range(page * PAGE, page * PAGE + 152):
        for bit in [(place + n) % 8 for n in range(bits_of_a_byte)]:
            damaged = bytearray(content)
            damaged[place] ^= 1 << bit
            file.write_bytes(damaged)
            with (
                suppress(StoreError),
                Environment(file.parent, FORMAT) as reader,
                reader.read() as txn,
            ):
                assert not txn.databases or txn.get("data", b"key") == b"0", (place, bit)


def test_a_page_that_is_both_used_and_free_is_refused(tmp_path: Path) -> None:
    """The next write would overwrite what is in use."""
    folder = store_with(tmp_path, b"1")
    with Environment(folder, FORMAT, write=True) as writer:
        for number in range(3):
            with writer.write("data") as txn:
                txn.put("data", b"key", b"%d" % number)
    content = bytearray((folder / "data.mdb").read_bytes())
    newest = max(
        (0, 1), key=lambda page: int.from_bytes(content[page * PAGE + 144 :][:8], "little")
    )
    main_root = int.from_bytes(content[newest * PAGE + 128 :][:8], "little")
    free_root = int.from_bytes(content[newest * PAGE + 80 :][:8], "little")
    node = free_root * PAGE + int.from_bytes(content[free_root * PAGE + 16 :][:2], "little")
    content[node + 24 : node + 32] = main_root.to_bytes(8, "little")
    (folder / "data.mdb").write_bytes(content)
    with pytest.raises(DamagedFileError, match="the free list uses a page that is in use already"):
        check_pages(folder / "data.mdb")


def test_a_running_writer_is_not_disturbed_by_a_check(tmp_path: Path) -> None:
    program = """
from llm_trader.storage.environment import Environment
from tests.storage.test_environment import FORMAT
with Environment(path, FORMAT) as reader:
    say(reader.page_problems())
    wait()
"""
    with (
        Environment(store_with(tmp_path, b"1"), FORMAT, write=True) as writer,
        running(program, tmp_path) as reader,
    ):
        assert hear(reader) == "[]"
        with writer.write("data") as txn:
            txn.put("data", b"key", b"2")
        tell(reader)
