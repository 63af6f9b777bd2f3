"""A SQLite file: opened, checked for its version, changed in transactions, its errors in our words.

Several processes and threads may use one at once: each reads one state while another writes, and
writers wait for each other.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import quote

from llm_trader.errors import StoreError, StoreLockedError
from llm_trader.storage.files import write_errors

IN_MEMORY: Final = Path(":memory:")
# Writes take milliseconds, so whoever waits longer waits for a stuck process.
_BUSY_S: Final = 10.0
_LOOK_AGAIN_S: Final = 0.02

_Begin = Literal["BEGIN", "BEGIN IMMEDIATE"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SqliteFormat:
    """What a file is, for whoever opens it and for whoever reads its errors.

    `setting` is what names another file, as a remedy says it.
    """

    noun: str
    tables: str
    version: int
    setting: str

    def is_current(self, connection: sqlite3.Connection, path: Path) -> bool:
        """False for a new file. Raises `StoreError` for one of another version."""
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, self.version):
            raise StoreError(
                f"the {self.noun} at {path} has version {version}, and this program reads "
                f"{self.version}; use the program that wrote it, or name another with "
                f"{self.setting}"
            )
        return version != 0

    def refusal(
        self, error: sqlite3.Error, path: Path, busy_s: float
    ) -> StoreError | StoreLockedError:
        """What SQLite refused, in our words."""
        where, code = f"the {self.noun} at {path}", _primary_code(error)
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return StoreLockedError(
                f"{where} is locked: another process has been writing to it for {busy_s:g} s; "
                "wait for it, or stop it"
            )
        return StoreError(f"{where} cannot be used: {error}; {self._remedy(code)}")

    @contextmanager
    def errors(self, path: Path, busy_s: float) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self.refusal(error, path, busy_s) from error

    def _remedy(self, code: int | None) -> str:
        match code:
            case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
                return (
                    "move it away and a new one is made, restore a backup of it, or name another "
                    f"with {self.setting}"
                )
            case sqlite3.SQLITE_FULL | sqlite3.SQLITE_IOERR:
                return "check the file, its disk and the free space there"
            case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
                return (
                    "give this process access to it and to its folder, or name another with "
                    f"{self.setting}"
                )
        return "check the file"


class SqliteFile:
    """One connection, which threads share by turns. `IN_MEMORY` for a path keeps it in memory.

    With `durable` a change is on disk when its transaction ends; without, a loss of power may undo
    the latest ones, and a killed process none. Makes the file where there is none.

    Raises `ConfigurationError` where its folder cannot be made, `StoreError` for a file that is
    damaged, of another version or cannot be used, and `StoreLockedError` for one that another
    process does not let go of.
    """

    def __init__(
        self,
        path: Path,
        file_format: SqliteFormat,
        *,
        durable: bool = True,
        busy_s: float = _BUSY_S,
    ) -> None:
        self.path = path
        self._format = file_format
        self._busy_s = busy_s
        self._durable = durable
        self._lock = threading.RLock()
        self._begun: _Begin = "BEGIN"
        if path != IN_MEMORY:
            with write_errors(path.parent):
                path.parent.mkdir(parents=True, exist_ok=True)
        with self._errors():
            # Without an isolation level transactions begin where they are written down.
            self._connection = sqlite3.connect(
                path, timeout=busy_s, isolation_level=None, check_same_thread=False
            )
            try:
                self._prepare()
            except BaseException:
                self._connection.close()
                raise

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def write(self) -> AbstractContextManager[sqlite3.Connection]:
        """A transaction that no other process can interleave: all of it is kept, or nothing.

        One within another is a part of it.
        """
        return self._transaction("BEGIN IMMEDIATE")

    def read(self) -> AbstractContextManager[sqlite3.Connection]:
        """A transaction that sees one state of the file."""
        return self._transaction("BEGIN")

    def execute(self, statement: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """A statement by itself, or as a part of the transaction around it."""
        with self._lock:
            try:
                return self._connection.execute(statement, values).fetchall()
            except sqlite3.Error as error:
                raise self._format.refusal(error, self.path, self._busy_s) from error

    def note(self, statement: str, values: Sequence[Any] = ()) -> None:
        """The same without a wait for the disk: a loss of power may undo it, a killed process not.

        Within a transaction it is as durable as that.
        """
        with self._lock, self._errors():
            connection = self._connection
            if connection.in_transaction or not self._durable:
                connection.execute(statement, values)
                return
            connection.execute("PRAGMA synchronous = NORMAL")
            try:
                connection.execute(statement, values)
            finally:
                connection.execute("PRAGMA synchronous = FULL")

    @contextmanager
    def _transaction(self, begin: _Begin) -> Iterator[sqlite3.Connection]:
        connection = self._connection
        with self._lock, self._errors():
            if connection.in_transaction and begin in ("BEGIN", self._begun):
                yield connection
                return
            connection.execute(begin)
            self._begun = begin
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                # SQLite may have rolled it back already, as on a full disk.
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise

    def _prepare(self) -> None:
        connection = self._connection
        connection.row_factory = sqlite3.Row
        self._turn_wal_on()
        connection.execute(f"PRAGMA synchronous = {'FULL' if self._durable else 'NORMAL'}")
        connection.execute("PRAGMA foreign_keys = ON")
        if self._format.is_current(connection, self.path):
            return
        with self.write():
            if self._format.is_current(connection, self.path):
                return  # another process was quicker
            for statement in self._format.tables.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {self._format.version}")

    def _turn_wal_on(self) -> None:
        """It stays on. While others turn it on, SQLite refuses instead of waiting its time-out."""
        deadline_s = time.monotonic() + self._busy_s
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if _primary_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline_s:
                    raise
                time.sleep(_LOOK_AGAIN_S)
            else:
                return

    def _errors(self) -> AbstractContextManager[None]:
        return self._format.errors(self.path, self._busy_s)


@contextmanager
def read_only(
    path: Path, file_format: SqliteFormat, *, busy_s: float = _BUSY_S
) -> Iterator[sqlite3.Connection | None]:
    """A transaction that sees one state of a file and never writes; None where there are no tables
    yet. Raises as `SqliteFile` does.
    """
    if not path.exists():
        yield None
        return
    address = f"file:{quote(str(path.absolute()))}?mode=ro"
    with (
        file_format.errors(path, busy_s),
        closing(sqlite3.connect(address, uri=True, timeout=busy_s, isolation_level=None)) as file,
    ):
        file.execute("BEGIN")
        yield file if file_format.is_current(file, path) else None


def _primary_code(error: sqlite3.Error) -> int | None:
    """None for an error of the module itself, such as a closed connection."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF
