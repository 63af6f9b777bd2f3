"""Where runs are kept: a file of SQLite for one process, or a Postgres database for any number."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit, urlunsplit

from llm_trader.errors import ConfigurationError, StoreLockedError
from llm_trader.storage.files import write_errors
from llm_trader.storage.writer_lock import WriterLock
from llm_trader.workflow.engine.config import RunsConfig
from llm_trader.workflow.engine.durable.journal import StageJournal

_FILE: Final = "runs.sqlite"


@dataclass(frozen=True, slots=True)
class RunDatabase:
    """`url` has a password where one is set, so it is not shown."""

    url: str = field(repr=False)
    folder: Path | None
    shown: str

    @property
    def is_shared(self) -> bool:
        """Whether several processes may carry runs out."""
        return self.folder is None

    def lock(self) -> WriterLock | None:
        """Held while this process carries runs out; raises `StoreLockedError` for a second one."""
        if self.folder is None:
            return None
        try:
            return WriterLock(self.folder)
        except StoreLockedError as error:
            raise StoreLockedError(
                f"process {error.details.get('pid') or 'unknown'} carries out the runs in "
                f"{self.folder} already, and SQLite is for one process; stop it, or set "
                "workflow.runs.postgres_url to share the work among processes",
                **error.details,
            ) from error

    def prepare(self) -> None:
        """Makes the file of SQLite, with a log written ahead: a step is several times cheaper."""
        if self.folder is None:
            return
        with write_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self.folder / _FILE)
            try:
                connection.execute("PRAGMA journal_mode=WAL")
            except sqlite3.DatabaseError as error:
                raise ConfigurationError(
                    f"{self.folder / _FILE} is no database of runs: {error}; move it away"
                ) from error
            finally:
                connection.close()

    def journal(self) -> StageJournal | None:
        """None where several processes carry runs out, as each takes them out of the queue."""
        return None if self.folder is None else StageJournal(self.folder)

    def exists(self) -> bool:
        return self.folder is None or (self.folder / _FILE).exists()


def run_database(config: RunsConfig, environ: Mapping[str, str]) -> RunDatabase:
    """Raises `ConfigurationError` for a URL of another database, or without the password."""
    if config.postgres_url is None:
        path = config.folder / _FILE
        return RunDatabase(f"sqlite:///{path.absolute()}", config.folder, str(path))
    parts = urlsplit(config.postgres_url)
    if parts.scheme not in ("postgresql", "postgres") or not parts.path.strip("/"):
        raise ConfigurationError(
            "workflow.runs.postgres_url should be such as postgresql://user@host:5432/database"
        )
    location = parts.netloc
    if (name := config.postgres_password_env) is not None:
        password = environ.get(name, "")
        if not password:
            raise ConfigurationError(
                f"the environment variable {name} of workflow.runs.postgres_password_env is "
                "empty; set it"
            )
        user, _, host = location.rpartition("@")
        location = f"{user}:{quote(password, safe='')}@{host}"
    url = urlunsplit(("postgresql", location, parts.path, parts.query, ""))
    return RunDatabase(url, None, config.postgres_url)
