"""The record of calls and decisions, in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from llm_trader.llm.record.calls import CallLog
from llm_trader.llm.record.database import open_database
from llm_trader.llm.record.decisions import DecisionLog
from llm_trader.storage.sqlite_file import SqliteFile
from llm_trader.timeframe import Millis


class DecisionRecord:
    """Any number of processes may have it open at once, and threads may share one.

    `secrets` are removed from whatever errors say. Raises `StoreError` where the file cannot be
    used.
    """

    def __init__(self, database: SqliteFile, secrets: Sequence[str] = ()) -> None:
        self._database = database
        self.calls = CallLog(database, secrets)
        self.decisions = DecisionLog(database)

    @classmethod
    def open(
        cls, folder: Path, *, create: bool = True, secrets: Sequence[str] = ()
    ) -> DecisionRecord:
        """Raises `ConfigurationError` where there is none and none is to be created."""
        return cls(open_database(folder, create=create), secrets)

    def __enter__(self) -> DecisionRecord:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self.calls.close()
        self._database.close()

    @property
    def path(self) -> Path:
        return self._database.path

    def prune(self, before_ms: Millis) -> tuple[int, int]:
        """Remove the decisions made before a time, and calls that no decision left has; returns
        how many of each.
        """
        with self._database.write() as connection:
            removed = "DELETE FROM decisions WHERE created_at_ms < ?"
            decisions = connection.execute(removed, (before_ms,)).rowcount
            calls = connection.execute(
                "DELETE FROM calls WHERE started_at_ms < ? AND state != 'started'"
                " AND id NOT IN (SELECT call_id FROM decision_calls)",
                (before_ms,),
            ).rowcount
            connection.execute(
                "DELETE FROM requests WHERE hash NOT IN (SELECT request_hash FROM calls)"
            )
        return decisions, calls
