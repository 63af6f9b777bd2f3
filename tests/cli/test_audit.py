from __future__ import annotations

from pathlib import Path

from tests.audit.builders import files, lines, write
from tests.cli.conftest import Typing


def test_a_changed_line_is_shown_with_its_place_and_fails(typed: Typing, tmp_path: Path) -> None:
    write(tmp_path, 5)
    whole = typed("llm-trader audit verify --audit-folder", tmp_path)
    assert whole.code == 0
    assert "nothing was changed" in whole.out
    path = files(tmp_path)[0]
    found = lines(path)
    path.write_bytes(b"".join([found[0], found[1].replace(b"k1", b"k2"), *found[2:]]))
    changed = typed("llm-trader audit verify --audit-folder", tmp_path)
    assert changed.code == 1
    assert f"{path.name}, line 2: the line was changed" in changed.out


def test_a_hash_that_was_kept_is_asked_for(typed: Typing, tmp_path: Path) -> None:
    write(tmp_path, 5)
    (chain,) = typed("llm-trader audit verify --json --audit-folder", tmp_path).json["chains"]
    kept = chain["last_hash"]
    write(tmp_path, 5)
    assert typed(f"llm-trader audit verify --expect {kept} --audit-folder", tmp_path).code == 0
    other = typed("llm-trader audit verify --expect abc --audit-folder", tmp_path)
    assert other.code == 1
    assert "no line has the hash abc" in other.out


def test_without_a_folder_the_setting_is_named(typed: Typing) -> None:
    result = typed("llm-trader audit verify")
    assert result.code == 2
    assert "--audit-folder or the setting audit.folder" in result.err
