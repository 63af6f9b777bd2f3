"""Versions of an embedded index as folders beside each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_trader.errors import StoreError, VectorIndexError
from llm_trader.index import folders
from llm_trader.storage.writer_lock import WriterLock


def made(folder: Path, content: str) -> Path:
    folder.mkdir()
    (folder / "data.mdb").write_text(content)
    return folder


def held(folder: Path) -> str:
    return (folder / "data.mdb").read_text()


def states(live: Path) -> dict[str, str]:
    return {
        of.name: "live" if of.live else "building" if of.building else "old"
        for of in folders.versions(live)
    }


def test_what_was_built_takes_the_place_of_the_live_one_which_stays(tmp_path: Path) -> None:
    live = made(tmp_path / "index", "1")
    for number in (2, 3):
        made(folders.next_folder(live), str(number))
        old = folders.swap_in(live)
        assert held(live) == str(number)
        assert held(old) == str(number - 1)
    assert states(live) == {"index.old-1": "old", "index.old-2": "old", "index": "live"}


def test_a_swap_killed_between_its_steps_is_taken_back(tmp_path: Path) -> None:
    live = made(tmp_path / "index", "1")
    made(folders.next_folder(live), "2")
    made(tmp_path / "index.old-1", "0")
    folders.take_back(live)
    assert held(live) == "1"
    live.rename(tmp_path / "index.old-2")
    folders.take_back(live)
    assert held(live) == "1"
    assert states(live) == {"index.old-1": "old", "index": "live", "index.next": "building"}


def test_a_live_version_that_is_written_to_is_not_swapped(tmp_path: Path) -> None:
    live = made(tmp_path / "index", "1")
    made(folders.next_folder(live), "2")
    lock = WriterLock(live)
    with pytest.raises(StoreError, match="open for writing"):
        folders.swap_in(live)
    lock.release()
    assert held(folders.swap_in(live)) == "1"
    assert held(live) == "2"


def test_without_anything_built_nothing_is_swapped(tmp_path: Path) -> None:
    live = made(tmp_path / "index", "1")
    with pytest.raises(VectorIndexError, match="nothing was built at"):
        folders.swap_in(live)
    assert held(live) == "1"


def test_pruning_deletes_old_versions_and_nothing_else(tmp_path: Path) -> None:
    live = made(tmp_path / "index", "1")
    kept = [live, made(tmp_path / "index.next", "2")]
    kept += [made(tmp_path / name, "3") for name in ("index.old-x", "other.old-1", "index.old")]
    for number in (1, 2, 10):
        made(tmp_path / f"index.old-{number}", "0")
    assert folders.prune(live) == ["index.old-1", "index.old-2", "index.old-10"]
    assert sorted(tmp_path.iterdir()) == sorted(kept)
    assert folders.prune(live) == []


def test_a_version_being_built_is_pruned_only_when_told_and_not_at_work(tmp_path: Path) -> None:
    live = made(tmp_path / "index", "1")
    built = made(folders.next_folder(live), "2")
    lock = WriterLock(built)
    with pytest.raises(StoreError, match="open for writing"):
        folders.prune(live, also_building=True)
    lock.release()
    assert folders.prune(live) == []
    assert folders.prune(live, also_building=True) == ["index.next"]
    assert list(tmp_path.iterdir()) == [live]


def test_nothing_is_pruned_while_nothing_is_live(tmp_path: Path) -> None:
    old = made(tmp_path / "index.old-1", "1")
    with pytest.raises(VectorIndexError, match="if a rebuild was killed, repeat it"):
        folders.prune(tmp_path / "index")
    assert held(old) == "1"


def test_where_there_is_nothing_there_are_no_versions(tmp_path: Path) -> None:
    assert folders.versions(tmp_path / "no" / "index") == []
