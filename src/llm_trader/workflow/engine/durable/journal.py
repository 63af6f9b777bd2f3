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
from typing import Final, NamedTuple

from llm_trader.errors import StoreError

FILE_NAME: Final = "stages.sqlite"
END: Final = ""
_BUSY_S: Final = 30.0
_TABLE: Final = """
CREATE TABLE IF NOT EXISTS stages (
  run_id TEXT NOT NULL, stage TEXT NOT NULL, stored TEXT NOT NULL, PRIMARY KEY (run_id, stage)
) STRICT, WITHOUT ROWID
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
        return {row.stage: row.stored for row in self._rows([run_id]) if row.stage != END}

    def ends(self, run_ids: Sequence[str]) -> dict[str, str]:
        """The summaries of those that have ended."""
        return {row.run_id: row.stored for row in self._rows(run_ids) if row.stage == END}

    def run_ids(self) -> list[str]:
        if not self._path.exists():
            return []
        with self._open() as db:
            found = db.execute("SELECT DISTINCT run_id FROM stages ORDER BY run_id").fetchall()
        return [str(run_id) for (run_id,) in found]

    def remove(self, run_ids: Sequence[str]) -> None:
        if not run_ids or not self._path.exists():
            return
        with self._open() as db:
            db.execute(
                "DELETE FROM stages WHERE run_id IN (SELECT value FROM json_each(?))",
                (json.dumps(list(run_ids)),),
            )

    def _rows(self, run_ids: Sequence[str]) -> list[StageRow]:
        if not run_ids or not self._path.exists():
            return []
        with self._open() as db:
            found = db.execute(
                "SELECT run_id, stage, stored FROM stages "
                "WHERE run_id IN (SELECT value FROM json_each(?))",
                (json.dumps(list(run_ids)),),
            ).fetchall()
        return [StageRow(*row) for row in found]

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
        db.execute(_TABLE)
        return db
