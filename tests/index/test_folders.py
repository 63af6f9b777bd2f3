"""Versions of an embedded index as folders beside each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_trader.errors import VectorIndexError
from llm_trader.index import folders


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
        assert old is not None
        assert held(old) == str(number - 1)
    assert states(live) == {"index.old-1": "old", "index.old-2": "old", "index": "live"}


def test_a_swap_killed_between_its_steps_is_completed_by_the_next(tmp_path: Path) -> None:
    live = made(tmp_path / "index", "1")
    made(folders.next_folder(live), "2")
    live.rename(tmp_path / "index.old-1")
    assert states(live) == {"index.old-1": "old", "index.next": "building"}
    assert folders.swap_in(live) is None
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


def test_where_there_is_nothing_there_are_no_versions(tmp_path: Path) -> None:
    assert folders.versions(tmp_path / "no" / "index") == []
