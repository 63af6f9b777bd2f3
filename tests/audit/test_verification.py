"""What a change of a log comes to, whichever line of whichever file it is in."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.errors import ConfigurationError
from tests.audit.builders import files, lines, verify, write, writing


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of 60 requests in several files; not to be changed."""
    folder = tmp_path_factory.mktemp("audit")
    write(folder, 60)
    return folder


@pytest.fixture
def log(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "log"))


def problems(folder: Path) -> list[str]:
    return [found.problem for chain in verify(folder).chains for found in chain.problems]


def test_a_log_that_was_left_alone_passes_across_its_files(log: Path) -> None:
    report = verify(log)
    (chain,) = report.chains
    assert report.passed
    assert chain.files == len(files(log)) >= 3
    assert (chain.lines, chain.first_seq, chain.last_seq) == (62, 0, 61)


def rewritten(path: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    path.write_bytes(b"".join(change(lines(path))))


@pytest.mark.parametrize("file", [0, 1, -1])
@pytest.mark.parametrize("line", [0, 3, -1])
def test_a_changed_byte_is_found_in_its_line(log: Path, file: int, line: int) -> None:
    path = files(log)[file]

    def change(found: list[bytes]) -> list[bytes]:
        found[line] = found[line].replace(b'"at_ms":178', b'"at_ms":179')
        return found

    rewritten(path, change)
    (chain,) = verify(log).chains
    assert chain.problems[0].file == path.name
    assert chain.problems[0].line == len(lines(path)) + line + 1 if line < 0 else line + 1
    assert "changed" in chain.problems[0].problem


@pytest.mark.parametrize("file", [0, 1, -1])
@pytest.mark.parametrize("line", [0, 3, -1])
def test_a_missing_line_is_found(log: Path, file: int, line: int) -> None:
    rewritten(files(log)[file], lambda found: [r for r in found if r != found[line]])
    assert any("missing" in problem for problem in problems(log))


@pytest.mark.parametrize("file", [0, -1])
def test_lines_that_changed_places_are_found(log: Path, file: int) -> None:
    rewritten(files(log)[file], lambda found: [found[0], found[2], found[1], *found[3:]])
    assert any("comes after line" in problem for problem in problems(log))


def test_a_line_that_stands_there_twice_is_found(log: Path) -> None:
    rewritten(files(log)[0], lambda found: [*found[:3], found[2], *found[3:]])
    assert any("comes after line" in problem for problem in problems(log))


@pytest.mark.parametrize("count", [1, 4])
def test_an_end_that_is_cut_off_is_found(log: Path, count: int) -> None:
    rewritten(files(log)[-1], lambda found: found[:-count])
    assert any(f"{62 - count} to 61 are missing" in problem for problem in problems(log))


@pytest.mark.parametrize("file", [0, 1, -1])
def test_a_missing_file_is_found(log: Path, file: int) -> None:
    files(log)[file].unlink()
    assert any("missing" in problem for problem in problems(log))


def test_a_log_without_files_or_without_its_head_is_found(log: Path) -> None:
    (log / "audit-0.head").unlink()
    assert any("head is missing" in problem for problem in problems(log))
    write(log, 1)
    for path in files(log):
        path.unlink()
    assert any("cut off" in problem for problem in problems(log))


def test_a_log_that_was_made_anew_lacks_a_hash_that_was_kept_elsewhere(
    log: Path, tmp_path: Path
) -> None:
    kept = verify(log).chains[0].last_hash
    assert kept is not None
    write(log, 5)
    assert verify(log, (kept,)).passed
    write(tmp_path / "forged", 60)
    with writing(tmp_path / "forged"):
        pass
    report = verify(tmp_path / "forged", (kept[:-1] + "x",))
    assert not report.passed
    assert report.not_found


def test_files_that_were_removed_for_their_age_are_not_missed_and_others_are(
    tmp_path: Path,
) -> None:
    write(tmp_path, 200, keep_files=3)
    (chain,) = verify(tmp_path).chains
    assert not chain.problems
    assert chain.files == 3
    assert chain.first_seq
    files(tmp_path)[0].unlink()
    assert any("missing" in problem for problem in problems(tmp_path))


def test_a_folder_without_a_log_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ConfigurationError, match="audit log"):
            verify(folder)


@given(st.data())
def test_any_byte_that_changes_any_line_is_found(written: Path, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(files(written)))
    before = path.read_bytes()
    position = data.draw(st.integers(0, len(before) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda b: b != before[position]))
    try:
        path.write_bytes(before[:position] + bytes([byte]) + before[position + 1 :])
        assert problems(written)
    finally:
        path.write_bytes(before)
