from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import lmdb
import pytest
from structlog.testing import capture_logs

from llm_trader.errors import ConfigurationError, StoreError
from llm_trader.storage import environment as module
from llm_trader.storage.environment import REMEDIES, Environment, StoreFormat
from tests.market.processes import hear, running, tell

FORMAT = StoreFormat(
    name="test store",
    error=StoreError,
    damaged_error=StoreError,
    create="create one with: test create {path}",
    rebuild="rebuild it",
    is_database=lambda name: name.startswith("data"),
    max_databases=8,
    map_size_setting="test.map_size_mib",
)

# Raised for arguments or an order of calls that LMDB does not allow: mistakes of this program.
PROGRAMMING_ERRORS = {
    lmdb.BadDbiError,
    lmdb.BadRslotError,
    lmdb.BadTxnError,
    lmdb.BadValsizeError,
    lmdb.CursorFullError,
    lmdb.DbsFullError,
    lmdb.IncompatibleError,
    lmdb.InvalidParameterError,
    lmdb.KeyExistsError,
    lmdb.PageFullError,
    lmdb.TlsFullError,
}
ENCRYPTION_ERRORS = {
    lmdb.BadChecksumError,
    lmdb.CryptoFailError,
    lmdb.EnvEncryptionError,
    lmdb.ProblemError,
}


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Environment]:
    with Environment(tmp_path / "store", FORMAT, write=True) as opened:
        yield opened


@pytest.fixture
def _checked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHECK_FILE_EVERY_SECONDS", 0)


def put(environment: Environment, value: bytes, database: str = "data") -> None:
    with environment.write(database) as txn:
        txn.put(database, b"key", value)


def get(environment: Environment, database: str = "data") -> bytes | None:
    with environment.read() as txn:
        return txn.get(database, b"key")


def store_with(folder: Path, value: bytes) -> Path:
    with Environment(folder, FORMAT, write=True) as environment:
        put(environment, value)
    return folder


def test_a_missing_store_says_how_to_create_one(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=f"test create {tmp_path}/none"):
        Environment(tmp_path / "none", FORMAT)
    assert not (tmp_path / "none").exists()


def test_a_folder_that_cannot_be_created_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="choose a folder that is writable"):
        Environment(tmp_path / "file" / "store", FORMAT, write=True)


def test_databases_that_do_not_exist_read_as_empty(writer: Environment) -> None:
    with writer.read() as txn:
        assert txn.get("data", b"key") is None
        assert txn.cursor("data") is None
        assert (txn.count("data"), set(txn.databases), txn.root_keys()) == (0, set(), set())


def test_a_block_that_raises_writes_nothing(writer: Environment) -> None:
    put(writer, b"before")
    version = writer.version
    with suppress(RuntimeError), writer.write("data") as txn:
        txn.put("data", b"key", b"after")
        assert txn.get("data", b"key") == b"after"
        raise RuntimeError
    assert (get(writer), writer.version) == (b"before", version)


def test_a_reader_sees_databases_that_another_process_creates(writer: Environment) -> None:
    program = """
from llm_trader.storage.environment import Environment
from tests.storage.test_environment import FORMAT, get
with Environment(path, FORMAT) as reader:
    while wait():
        say(get(reader, "data"), get(reader, "data2"), reader.version == (0, reader.version[1]))
"""
    put(writer, b"1")
    with running(program, writer.folder) as reader:
        tell(reader)
        assert hear(reader) == "b'1' None True"
        put(writer, b"2", "data2")
        tell(reader)
        assert hear(reader) == "b'1' b'2' True"


def test_what_was_opened_for_reading_is_not_written_to(tmp_path: Path) -> None:
    with Environment(store_with(tmp_path / "store", b"1"), FORMAT) as reader:
        with pytest.raises(StoreError, match="opened for reading"):
            put(reader, b"2")
        assert get(reader) == b"1"


@pytest.mark.usefixtures("_checked_at_once")
def test_a_replaced_file_is_reopened_and_logged(tmp_path: Path) -> None:
    live = store_with(tmp_path / "live", b"old")
    restored = store_with(tmp_path / "restored", b"new")
    with Environment(live, FORMAT) as reader, capture_logs() as logs:
        assert get(reader) == b"old"
        version = reader.version
        live.rename(tmp_path / "before")
        restored.rename(live)

        assert get(reader) == b"new"
        assert reader.version != version
        assert reader.version[0] == version[0] + 1
    (line,) = logs
    assert (line["event"], line["store"], line["path"]) == (
        "store_replaced",
        "test store",
        str(live),
    )


def test_a_writer_never_writes_to_a_replaced_file(tmp_path: Path) -> None:
    live = store_with(tmp_path / "live", b"old")
    with Environment(live, FORMAT, write=True) as writer:
        store_with(tmp_path / "restored", b"new").rename(tmp_path / "next")
        live.rename(tmp_path / "before")
        (tmp_path / "next").rename(live)
        put(writer, b"newer")
    with Environment(live, FORMAT) as reader:
        assert get(reader) == b"newer"


@pytest.mark.usefixtures("_checked_at_once")
def test_a_store_that_vanished_is_an_error_until_it_is_back(tmp_path: Path) -> None:
    live = store_with(tmp_path / "live", b"1")
    with Environment(live, FORMAT) as reader:
        live.rename(tmp_path / "away")
        for _ in range(2):
            with pytest.raises(StoreError, match="was removed while it was open; put it back, or"):
                get(reader)
        (tmp_path / "away").rename(live)
        assert get(reader) == b"1"

        shutil.rmtree(live)
        store_with(live, b"2")
        assert get(reader) == b"2"


@pytest.mark.usefixtures("_checked_at_once")
def test_a_replacement_that_is_no_store_is_refused_until_it_is_one(tmp_path: Path) -> None:
    live = store_with(tmp_path / "live", b"1")
    junk = tmp_path / "junk"
    junk.write_bytes(b"junk" * 5000)
    with Environment(live, FORMAT) as reader:
        junk.replace(live / "data.mdb")
        for _ in range(2):
            with pytest.raises(StoreError, match="no LMDB store; rebuild it"):
                get(reader)
        shutil.copy(store_with(tmp_path / "other", b"2") / "data.mdb", junk)
        junk.replace(live / "data.mdb")
        assert get(reader) == b"2"


@pytest.mark.usefixtures("_checked_at_once")
def test_the_file_that_was_open_before_a_refused_one_is_opened_again(tmp_path: Path) -> None:
    live = store_with(tmp_path / "live", b"1")
    (tmp_path / "kept").hardlink_to(live / "data.mdb")  # or a new file, given the freed inode
    (tmp_path / "junk").write_bytes(b"junk" * 5000)
    with Environment(live, FORMAT) as reader:
        (tmp_path / "junk").replace(live / "data.mdb")
        with pytest.raises(StoreError, match="no LMDB store; rebuild it"):
            get(reader)
        (tmp_path / "kept").replace(live / "data.mdb")
        assert get(reader) == b"1"


@pytest.mark.usefixtures("_checked_at_once")
def test_a_file_is_not_reopened_under_a_transaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_WAIT_FOR_IDLE_SECONDS", 0.05)
    live = store_with(tmp_path / "live", b"old")
    store_with(tmp_path / "restored", b"new")
    with Environment(live, FORMAT) as reader:
        with reader.read() as txn:
            (tmp_path / "restored" / "data.mdb").replace(live / "data.mdb")
            with pytest.raises(StoreError, match="has not ended"):
                get(reader)
            assert txn.get("data", b"key") == b"old"
        assert get(reader) == b"new"


def test_the_map_grows_before_it_is_full_and_other_processes_follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = """
from llm_trader.storage import environment
from tests.storage.test_environment import FORMAT
environment.MAP_SIZE_BYTES = 2**20
with environment.Environment(path, FORMAT, write=True) as other:
    while wait():
        with other.read() as txn:
            before = txn.count("data")
        with other.write("data") as txn:
            txn.put("data", b"other", b"written")
        say(before)
"""
    monkeypatch.setattr(module, "MAP_SIZE_BYTES", 2**20)
    with Environment(tmp_path, FORMAT, write=True) as writer, running(program, tmp_path) as other:
        for number in range(100):
            with writer.write("data") as txn:
                txn.put("data", b"%d" % number, bytes(40_000))
        assert (tmp_path / "data.mdb").stat().st_size > 2**21
        tell(other)
        assert hear(other) == "100"
        with writer.read() as txn:
            assert txn.get("data", b"other") == b"written"


@pytest.mark.parametrize("write", [False, True])
def test_it_opens_while_another_process_lets_the_map_grow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: bool
) -> None:
    program = """
from llm_trader.storage.environment import Environment
from tests.storage.test_environment import FORMAT
with Environment(path, FORMAT, write=True) as grown:
    for megabytes in 1, 2, 4:
        with grown.write("data") as txn:
            txn.put("data", b"key", b"%d" % megabytes)
            txn.put("data", b"much", bytes(megabytes << 20))
        say(megabytes)
        wait()
    say("all")
    wait()
"""
    monkeypatch.setattr(module, "MAP_SIZE_BYTES", 2**18)
    monkeypatch.setattr(module, "_SMALLEST_READ_MAP_BYTES", 2**18)
    grown = []

    def open_and_wait(*args: Any, **options: Any) -> lmdb.Environment:
        opened = lmdb_open(*args, **options)
        if grown[-1:] != ["all"]:
            tell(other)
            grown.append(hear(other))
        return opened

    with running(program, tmp_path) as other:
        assert hear(other) == "1"
        lmdb_open = lmdb.open
        monkeypatch.setattr(module.lmdb, "open", open_and_wait)
        with Environment(tmp_path, FORMAT, write=write) as environment:
            assert get(environment) == b"4"
    assert grown == ["2", "4", "all"]


def test_a_write_larger_than_the_map_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAP_SIZE_BYTES", 2**18)
    with Environment(tmp_path, FORMAT, write=True) as writer:
        put(writer, b"1")
        with pytest.raises(StoreError, match="split its symbols"):
            put(writer, bytes(2**19))
        assert get(writer) == b"1"


def test_every_error_that_the_surroundings_cause_has_a_remedy(writer: Environment) -> None:
    errors = {e for e in vars(lmdb).values() if isinstance(e, type) and issubclass(e, lmdb.Error)}
    translated_without_remedy = PROGRAMMING_ERRORS | ENCRYPTION_ERRORS | {lmdb.Error}
    # A map resized by another process is not an error: the environment is reopened.
    assert errors - translated_without_remedy - {lmdb.MapResizedError} == set(REMEDIES)
    for kind, remedy in REMEDIES.items():
        with pytest.raises(StoreError) as refusal, writer.read():
            raise kind("lmdb says")
        assert "lmdb says; " + remedy.format(rebuild="rebuild it") in str(refusal.value)
        assert str(writer.folder) in str(refusal.value)
