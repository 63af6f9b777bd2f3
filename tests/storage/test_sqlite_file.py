"""The contract of `SqliteFile`, which the ledger, the journal of orders and the record rely on."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from llm_trader.errors import ConfigurationError, StoreError, StoreLockedError
from llm_trader.llm.record.record import DecisionRecord
from llm_trader.storage.sqlite_file import IN_MEMORY, SqliteFile, SqliteFormat, read_only
from llm_trader.workflow.exchange.journal import OrderJournal
from llm_trader.workflow.paper.ledger import Ledger
from tests.market.processes import hear, tell
from tests.processes import Forked

FORMAT = SqliteFormat(
    noun="list of notes",
    tables=(
        "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT;"
        "CREATE TABLE marks (note INTEGER REFERENCES notes (id)) STRICT"
    ),
    version=3,
    setting="notes.file",
)
HOLD = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.readline()
database.execute("COMMIT")
"""
OPEN = """
import sys, time
from pathlib import Path
from llm_trader.llm.record.record import DecisionRecord
from llm_trader.workflow.exchange.journal import OrderJournal
from llm_trader.workflow.paper.ledger import Ledger
USERS = {"ledger": Ledger, "journal": OrderJournal,
         "record": lambda path: DecisionRecord.open(path.parent)}
print("ready", flush=True)
for line in sys.stdin:
    user, path, start_s = line.split()
    while time.monotonic() < float(start_s):
        pass
    try:
        USERS[user](Path(path)).close()
        print("opened", flush=True)
    except Exception as error:
        print(repr(error), flush=True)
"""
USERS: dict[str, Callable[[Path], Any]] = {
    "ledger": Ledger,
    "journal": OrderJournal,
    "record": lambda path: DecisionRecord.open(path.parent),
}


NOTE = """
import sys
from pathlib import Path
from tests.storage.test_sqlite_file import FORMAT, SqliteFile
file = SqliteFile(Path(sys.argv[1]), FORMAT)
file.note("INSERT INTO notes (text) VALUES (?)", ("noted",))
with file.write():
    file.note("INSERT INTO notes (text) VALUES (?)", ("noted too",))
print(file.execute("PRAGMA synchronous")[0][0], flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "record.sqlite"


@pytest.fixture
def file(path: Path) -> Iterator[SqliteFile]:
    with closing(SqliteFile(path, FORMAT, busy_s=0.05)) as opened:
        yield opened


@pytest.fixture(params=["on disk", "in memory"])
def any_file(request: pytest.FixtureRequest, path: Path) -> Iterator[SqliteFile]:
    where = path if request.param == "on disk" else IN_MEMORY
    with closing(SqliteFile(where, FORMAT)) as opened:
        yield opened


def note(file: SqliteFile, text: str = "hello") -> None:
    file.execute("INSERT INTO notes (text) VALUES (?)", (text,))


def texts(file: SqliteFile) -> list[str]:
    return [row["text"] for row in file.execute("SELECT text FROM notes ORDER BY id")]


@contextmanager
def running(program: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    with Forked(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_transaction_is_kept_whole_or_not_at_all(any_file: SqliteFile) -> None:
    with any_file.write():
        note(any_file, "kept")
        with any_file.write(), any_file.read() as connection:  # parts of the one around them
            connection.execute("INSERT INTO notes (text) VALUES ('kept too')")

    def fail() -> None:
        with any_file.write():
            note(any_file, "undone")
            with any_file.write():
                note(any_file, "undone too")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert texts(any_file) == ["kept", "kept too"]


def test_a_write_within_a_read_is_refused_because_others_may_have_written_since(
    any_file: SqliteFile,
) -> None:
    refused = pytest.raises(StoreError, match="transaction within a transaction")
    with refused, any_file.read(), any_file.write():
        note(any_file)
    note(any_file, "later")
    assert texts(any_file) == ["later"]


def test_a_read_sees_one_state_while_another_connection_writes(
    file: SqliteFile, path: Path
) -> None:
    note(file, "before")
    with closing(SqliteFile(path, FORMAT)) as other, file.read():
        assert texts(file) == ["before"]
        note(other, "meanwhile")
        assert texts(file) == ["before"]
    assert texts(file) == ["before", "meanwhile"]


def test_threads_share_a_file_by_turns(any_file: SqliteFile) -> None:
    def add() -> None:
        for _ in range(20):
            with any_file.write():
                rows = any_file.execute("SELECT count(*) FROM notes")
                any_file.execute("INSERT INTO notes VALUES (?, 'x')", (rows[0][0],))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert any_file.execute("SELECT count(*), max(id) FROM notes")[0][:] == (80, 79)


@pytest.mark.parametrize(("durable", "synchronous"), [(True, 2), (False, 1)])
def test_a_file_is_as_durable_as_asked_and_holds_its_references(
    path: Path, durable: bool, synchronous: int
) -> None:
    with closing(SqliteFile(path, FORMAT, durable=durable)) as file:
        pragmas = ("journal_mode", "synchronous", "foreign_keys")
        values = [file.execute(f"PRAGMA {pragma}")[0][0] for pragma in pragmas]
        assert values == ["wal", synchronous, 1]
        with pytest.raises(StoreError, match="FOREIGN KEY"):
            file.execute("INSERT INTO marks VALUES (99)")


def test_a_note_is_there_after_a_kill_and_all_else_still_waits_for_the_disk(
    file: SqliteFile, path: Path
) -> None:
    file.close()
    with running(NOTE, path) as process:
        assert hear(process) == "2"
        process.kill()
    with closing(SqliteFile(path, FORMAT)) as again:
        assert texts(again) == ["noted", "noted too"]


def test_a_note_that_is_refused_says_so_and_leaves_the_file_durable(file: SqliteFile) -> None:
    with pytest.raises(StoreError, match="FOREIGN KEY"):
        file.note("INSERT INTO marks VALUES (99)")
    assert file.execute("PRAGMA synchronous")[0][0] == 2


def test_a_file_that_exists_is_opened_and_read_while_another_process_writes(
    file: SqliteFile, path: Path
) -> None:
    note(file)
    with running(HOLD, path) as holder:
        assert hear(holder) == "held"
        with closing(SqliteFile(path, FORMAT, busy_s=0.05)) as other:
            assert texts(other) == ["hello"]
            with read_only(path, FORMAT) as connection:
                assert connection is not None
                assert connection.execute("SELECT text FROM notes").fetchall() == [("hello",)]


def test_a_lock_that_stays_is_named_with_the_file_and_the_remedy(
    file: SqliteFile, path: Path
) -> None:
    with running(HOLD, path) as holder:
        assert hear(holder) == "held"
        with pytest.raises(StoreLockedError) as locked, file.write():
            note(file)
        assert locked.value.message == (
            f"the list of notes at {path} is locked: another process has been writing to it for "
            "0.05 s; wait for it, or stop it"
        )
        tell(holder)
        assert holder.wait(10) == 0
    note(file)
    assert texts(file) == ["hello"]


def test_a_full_disk_undoes_the_transaction_and_the_file_stays_usable(file: SqliteFile) -> None:
    note(file, "before")
    pages = file.execute("PRAGMA page_count")[0][0]
    file.execute(f"PRAGMA max_page_count = {pages}")

    def fill() -> None:
        with file.write():
            note(file, "undone")
            note(file, "long" * 10_000)

    with pytest.raises(StoreError, match="is full; check the file, its disk and the free space"):
        fill()
    file.execute(f"PRAGMA max_page_count = {pages + 100}")
    note(file, "after")
    assert texts(file) == ["before", "after"]


def test_what_cannot_be_written_says_who_needs_access(file: SqliteFile, path: Path) -> None:
    file.execute("PRAGMA query_only = ON")
    with pytest.raises(StoreError) as refusal:
        note(file)
    assert refusal.value.message == (
        f"the list of notes at {path} cannot be used: attempt to write a readonly database; give "
        "this process access to it and to its folder, or name another with notes.file"
    )


def test_a_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"unable to open .* or name another with notes\.file"):
        SqliteFile(tmp_path, FORMAT)
    refused = pytest.raises(StoreError, match=rf"at {tmp_path} cannot be used: .*check the file")
    with refused, read_only(tmp_path, FORMAT):
        pass


def test_a_folder_that_cannot_be_made_is_a_mistake_of_the_settings(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(ConfigurationError, match=r"cannot write to .*taken"):
        SqliteFile(tmp_path / "taken" / "notes.sqlite", FORMAT)


@pytest.mark.parametrize("opened", [SqliteFile, read_only])
def test_what_is_no_database_is_refused_with_the_remedy_and_not_kept_open(
    opened: Any, tmp_path: Path
) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("no database at all, but long enough to be looked at by SQLite" * 20)
    with pytest.raises(StoreError) as refusal, opened(path, FORMAT):
        pass
    assert refusal.value.message == (
        f"the list of notes at {path} cannot be used: file is not a database; move it away and a "
        "new one is made, restore a backup of it, or name another with notes.file"
    )
    files = [os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.exists()]
    assert str(path) not in files


def test_a_damaged_file_is_refused_with_the_remedy(path: Path) -> None:
    with closing(SqliteFile(path, FORMAT)) as file:
        note(file)
        size = file.execute("PRAGMA page_size")[0][0]
    content = path.read_bytes()
    path.write_bytes(content[:size] + b"\xff" * (len(content) - size))
    refused = pytest.raises(StoreError, match=r"malformed; move it away .* restore a backup")
    with closing(SqliteFile(path, FORMAT)) as file, refused:
        texts(file)


@pytest.mark.parametrize("opened", [SqliteFile, read_only])
def test_a_file_of_another_version_is_refused_with_the_remedy(opened: Any, path: Path) -> None:
    SqliteFile(path, FORMAT).close()
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA user_version = 9")
    with pytest.raises(StoreError) as refusal, opened(path, FORMAT):
        pass
    assert refusal.value.message == (
        f"the list of notes at {path} has version 9, and this program reads 3; use the program "
        "that wrote it, or name another with notes.file"
    )


def test_who_only_reads_makes_no_file_and_changes_none(path: Path) -> None:
    with read_only(path, FORMAT) as nothing:
        assert nothing is None
    assert not path.parent.exists()
    path.parent.mkdir()
    path.touch()  # as before the first transaction of its maker ends
    with read_only(path, FORMAT) as nothing:
        assert nothing is None
    SqliteFile(path, FORMAT).close()
    refused = pytest.raises(StoreError, match="readonly database")
    with refused, read_only(path, FORMAT) as connection:
        assert connection is not None
        connection.execute("INSERT INTO notes (text) VALUES ('mine')")


@pytest.mark.parametrize("user", USERS)
def test_a_new_file_that_another_process_is_making_is_waited_for(user: str, path: Path) -> None:
    """The other one holds the lock that the switch to WAL takes; SQLite does not wait for it."""
    path.parent.mkdir()
    with running(HOLD, path) as maker:
        assert hear(maker) == "held"
        begin_s = time.monotonic()
        release = threading.Timer(0.1, tell, [maker])
        release.start()
        try:
            USERS[user](path).close()
        finally:
            release.join()
        assert time.monotonic() - begin_s > 0.09


def test_a_new_file_that_another_process_never_lets_go_of_is_refused(path: Path) -> None:
    path.parent.mkdir()
    with running(HOLD, path) as maker:
        assert hear(maker) == "held"
        with pytest.raises(StoreLockedError, match=r"is locked: .* for 0\.05 s"):
            SqliteFile(path, FORMAT, busy_s=0.05)


@pytest.mark.parametrize("files", [10, pytest.param(200, marks=pytest.mark.soak)])
def test_two_processes_open_a_new_file_at_once(files: int, tmp_path: Path) -> None:
    """By chance one finds the other at its switch to WAL, once in a hundred files or so."""
    with ExitStack() as stack:
        processes = [stack.enter_context(running(OPEN)) for _ in range(2)]
        assert [hear(process) for process in processes] == ["ready", "ready"]
        for number in range(files):
            for user in USERS:
                folder = tmp_path / f"{user}{number}"
                folder.mkdir()
                start_s = time.monotonic() + 0.003
                for process in processes:
                    assert process.stdin is not None
                    process.stdin.write(f"{user} {folder / 'record.sqlite'} {start_s}\n")
                    process.stdin.flush()
                assert [hear(process) for process in processes] == ["opened", "opened"]
