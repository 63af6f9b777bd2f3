"""Threads of this process write to the SQLite file of runs in turn.

SQLite itself lets a writer that finds the file locked sleep and look again, for longer each time. With
fifty runs at one instant nearly all of their time was such sleep. Behind a lock of this process the
next writer begins when the former one has committed. What is on disk, and when, stays the same.
"""

from __future__ import annotations

import threading
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import event

_BUSY_MS: Final = 30_000
_WRITES: Final = ("INSERT", "UPDATE", "DELETE", "REPLACE", "BEGIN")
_TURN: Final = "llm_trader_turn"


def sqlite_engine(url: str) -> sa.Engine:
    """An engine as the library makes it, whose writers wait for each other."""
    engine = sa.create_engine(url, pool_size=20, max_overflow=20, pool_timeout=30)
    turn = threading.Lock()

    @event.listens_for(engine, "connect")
    def begin_as_writer(connection: Any, record: Any) -> None:
        # As the library sets them; other processes may list or cancel runs meanwhile.
        connection.isolation_level = "IMMEDIATE"
        connection.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "before_cursor_execute")
    def take_turn(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if _TURN in connection.info or not statement.lstrip().upper().startswith(_WRITES):
            return
        # Without it after so long, SQLite decides as it would have done.
        if turn.acquire(timeout=_BUSY_MS / 1000):
            connection.info[_TURN] = True

    @event.listens_for(engine, "checkin")
    @event.listens_for(engine, "invalidate")
    def give_turn(connection: Any, record: Any, error: Any = None) -> None:
        """After the commit or the rollback: the library opens a connection for each transaction."""
        if record.info.pop(_TURN, False):
            turn.release()

    return engine
