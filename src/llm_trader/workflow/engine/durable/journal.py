"""Stages of runs that this process carried out at once, until the library has a record of them.

On SQLite only. A row is on disk before the run goes on. The row without a name of a stage is the
end of the run, with its summary.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from llm_trader.errors import StoreError

FILE_NAME: Final = "stages.sqlite"
END: Final = ""
_BUSY_S: Final = 30.0
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS stages (
  run_id TEXT NOT NULL, stage TEXT NOT NULL, stored TEXT NOT NULL, PRIMARY KEY (stage, run_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS stages_of_a_run ON stages (run_id)
"""


class StageRow(NamedTuple):
    run_id: str
    stage: str
    stored: str


class StageJournal:
    """Calls block, and may come from any thread. Raises `StoreError`."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE_NAME
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None

    def close(self) -> None:
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None

    def record(self, rows: Sequence[StageRow]) -> None:
        """In one transaction: all of them are on disk, or none."""
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                db.executemany("INSERT OR REPLACE INTO stages VALUES (?, ?, ?)", rows)
                db.execute("COMMIT")
            except BaseException:
                db.execute("ROLLBACK")
                raise

    def stages(self, run_id: str) -> dict[str, str]:
        """What is stored of each stage, without the end."""
        return dict(
            self._rows(
                "SELECT stage, stored FROM stages WHERE run_id = ? AND stage <> ?", run_id, END
            )
        )

    def ends(self) -> dict[str, str]:
        """The summaries of runs that have ended."""
        return dict(self._rows("SELECT run_id, stored FROM stages WHERE stage = ?", END))

    def run_ids(self) -> list[str]:
        return [run for (run,) in self._rows("SELECT DISTINCT run_id FROM stages ORDER BY run_id")]

    def remove(self, run_ids: Sequence[str]) -> None:
        if not run_ids or not self._path.exists():
            return
        with self._open() as db:
            db.execute(
                "DELETE FROM stages WHERE run_id IN (SELECT value FROM json_each(?))",
                (json.dumps(list(run_ids)),),
            )

    def _rows(self, query: str, *values: str) -> list[Any]:
        if not self._path.exists():
            return []
        with self._open() as db:
            return db.execute(query, values).fetchall()

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                if self._db is None:
                    self._db = self._connect()
                yield self._db
            except sqlite3.Error as error:
                raise StoreError(
                    f"the journal of stages {self._path} cannot be used: {error}; stop the program "
                    "and check the disk"
                ) from error

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(
            self._path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
        )
        db.execute("PRAGMA journal_mode=WAL")
        # A loss of power must not lose a decision whose order was sent.
        db.execute("PRAGMA synchronous=FULL")
        db.executescript(_TABLES)
        return db
