from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog

from llm_trader.errors import ConfigurationError
from llm_trader.storage.file_follower import FileFollower, following


class Reader:
    """Reads numbers, and refuses anything else."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.read: list[int] = []

    def __call__(self) -> None:
        try:
            self.read.append(int(self._path.read_text()))
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"no number: {error}") from None


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "number"
    path.write_text("1")
    return path


def test_a_file_is_read_at_first_and_after_a_change_only(path: Path) -> None:
    reader = Reader(path)
    follower = FileFollower("number", [path], reader)
    follower.look()
    assert reader.read == [1]
    path.write_text("23")
    assert follower.look() is None
    follower.look()
    assert reader.read == [1, 23]
    follower.look(force=True)
    assert reader.read == [1, 23, 23]


def remove(path: Path) -> None:
    path.unlink()


def damage(path: Path) -> None:
    path.write_text("no number")


@pytest.mark.parametrize("harm", [remove, damage])
def test_a_bad_change_is_logged_once_with_its_reason_and_a_good_one_ends_it(
    path: Path, harm: Callable[[Path], None]
) -> None:
    reader = Reader(path)
    follower = FileFollower("number", [path], reader)
    harm(path)
    with structlog.testing.capture_logs() as logs:
        assert "no number" in (follower.look() or "")
        follower.look()
        path.write_text("45")
        follower.look()
    assert [entry["event"] for entry in logs] == ["number_not_reloaded", "number_reloaded"]
    assert reader.read == [1, 45]


def test_a_replaced_file_of_equal_size_and_time_is_noticed(path: Path, tmp_path: Path) -> None:
    reader = Reader(path)
    follower = FileFollower("number", [path], reader)
    status = path.stat()
    other = tmp_path / "other"
    other.write_text("2")
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)
    follower.look()
    assert reader.read == [1, 2]


def test_a_bad_file_at_the_start_is_the_callers_error(path: Path) -> None:
    damage(path)
    with pytest.raises(ConfigurationError, match="no number"):
        FileFollower("number", [path], Reader(path))


async def test_a_change_is_noticed_within_a_second(path: Path) -> None:
    reader, noticed = Reader(path), asyncio.Event()
    follower = FileFollower("number", [path], lambda: (reader(), noticed.set())[0])
    noticed.clear()
    async with following(follower), asyncio.timeout(5):
        await asyncio.to_thread(path.write_text, "67")
        await noticed.wait()
    assert reader.read[-1] == 67
