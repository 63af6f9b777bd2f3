"""The SQLite file of the record, and its tables.

A transaction is on disk when it ends, so that a call which was paid is known after any crash.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from llm_trader.errors import ConfigurationError
from llm_trader.storage.sqlite_file import SqliteFile, SqliteFormat

FILE_NAME: Final = "record.sqlite"

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


_FORMAT: Final = SqliteFormat(
    noun="record of decisions", tables=_TABLES, version=1, setting="--record (decisions.record)"
)


def open_database(folder: Path, *, create: bool) -> SqliteFile:
    """Raises `ConfigurationError` where there is none and none is to be created, and otherwise as
    `SqliteFile` does.
    """
    path = folder / FILE_NAME
    if not create and not path.exists():
        raise ConfigurationError(
            f"there is no record of decisions at {path}; llm-trader decide makes one, or "
            "name another folder with --record (decisions.record)"
        )
    return SqliteFile(path, _FORMAT)
