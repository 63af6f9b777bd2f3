"""The SQLite file of the record: its tables, its transactions, and its errors in our words.

Several processes and threads may use it at once. A transaction is on disk when it ends, so that a
call which was paid is known after any crash.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from llm_trader.errors import ConfigurationError, StoreError, StoreLockedError
from llm_trader.storage.files import write_errors

FILE_NAME: Final = "record.sqlite"
SCHEMA_VERSION: Final = 1
# Writes take milliseconds, so whoever waits longer waits for a stuck process.
_BUSY_TIMEOUT_S: Final = 20.0
_LOOK_AGAIN_S: Final = 0.02

_TABLES: Final = """
CREATE TABLE requests (
    hash TEXT PRIMARY KEY,
    request BLOB NOT NULL  -- canonical JSON, zlib
) WITHOUT ROWID;
CREATE TABLE calls (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    request_hash TEXT NOT NULL REFERENCES requests (hash),
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    symbol TEXT NOT NULL,
    started_at_ms INTEGER NOT NULL,
    ended_at_ms INTEGER,
    owner TEXT NOT NULL,
    state TEXT NOT NULL,  -- started, replied, failed, refused, lost
    reserved_nano_usd INTEGER NOT NULL,
    cost_nano_usd INTEGER,  -- NULL while it is unknown: then what was reserved counts
    reply TEXT,
    failure TEXT
);
CREATE INDEX calls_by_request ON calls (request_hash, state);
CREATE INDEX calls_by_time ON calls (started_at_ms);
CREATE TABLE decisions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT UNIQUE,
    created_at_ms INTEGER NOT NULL,
    origin TEXT NOT NULL,
    symbol TEXT NOT NULL,
    as_of_ms INTEGER NOT NULL,
    decider TEXT NOT NULL,
    provider TEXT,
    model TEXT,
    arm TEXT,
    action TEXT NOT NULL,
    hold_reason TEXT,
    document BLOB NOT NULL  -- the decision without its id, JSON, zlib
);
CREATE INDEX decisions_by_time ON decisions (created_at_ms);
CREATE TABLE decision_calls (
    decision_id INTEGER NOT NULL REFERENCES decisions (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    call_id INTEGER NOT NULL REFERENCES calls (id),
    PRIMARY KEY (decision_id, position)
) WITHOUT ROWID;
CREATE INDEX decisions_of_call ON decision_calls (call_id);
"""


class RecordDatabase:
    """One connection, which threads share by turns.

    Raises `StoreError` for a file that is damaged, of a newer version, or cannot be used, and
    `StoreLockedError` when another process does not let go of it.
    """

    def __init__(self, folder: Path, *, create: bool) -> None:
        self.folder = folder
        self.path = folder / FILE_NAME
        if create:
            with write_errors(folder):
                folder.mkdir(parents=True, exist_ok=True)
        elif not self.path.exists():
            raise ConfigurationError(
                f"there is no record of decisions at {self.path}; llm-trader decide makes one, or "
                "name another folder with --record (decisions.record)"
            )
        self._lock = threading.Lock()
        with self._errors():
            # `autocommit` by `isolation_level`: transactions begin where they are written down.
            self._connection = sqlite3.connect(
                self.path,
                timeout=_BUSY_TIMEOUT_S,
                isolation_level=None,
                check_same_thread=False,
            )
            self._connection.row_factory = sqlite3.Row
            self._turn_wal_on()
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("PRAGMA foreign_keys = ON")
        self._create_tables()

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction that no other process can interleave; it is on disk at the end."""
        with self._lock, self._errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A transaction that sees one state of the file."""
        with self._lock, self._errors():
            self._connection.execute("BEGIN")
            try:
                yield self._connection
            finally:
                self._connection.execute("COMMIT")

    def _turn_wal_on(self) -> None:
        """It stays on. While others turn it on, SQLite refuses instead of waiting its time-out."""
        deadline_s = time.monotonic() + _BUSY_TIMEOUT_S
        while self._connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                is_busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                if not is_busy or time.monotonic() > deadline_s:
                    raise
                time.sleep(_LOOK_AGAIN_S)

    def _create_tables(self) -> None:
        if self._version() == SCHEMA_VERSION:
            return
        with self.write() as connection:
            version = self._version()  # another process may have been quicker
            if version == 0:
                for statement in _TABLES.split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            elif version != SCHEMA_VERSION:
                raise StoreError(
                    f"{self.path} has version {version} of the record, this program knows "
                    f"{SCHEMA_VERSION}; update the program, or name another folder with --record"
                )

    def _version(self) -> int:
        with self._errors():
            return int(self._connection.execute("PRAGMA user_version").fetchone()[0])

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise _translated(error, self.path) from error


def _translated(error: sqlite3.Error, path: Path) -> StoreError | StoreLockedError:
    code = getattr(error, "sqlite_errorcode", None)
    primary = None if code is None else code & 0xFF
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreLockedError(
            f"another process has been writing to {path} for {_BUSY_TIMEOUT_S:.0f} s; wait for it, "
            "or stop it"
        )
    if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        remedy = "move it away, and a new one is made; then restore a backup of it"
    elif primary in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        remedy = "check the disk and the free space on it"
    elif primary in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        remedy = "make its folder writable, or name another with --record (decisions.record)"
    else:
        remedy = "check the file"
    return StoreError(f"the record of decisions at {path} cannot be used: {error}; {remedy}")
