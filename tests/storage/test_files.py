from __future__ import annotations

from pathlib import Path

import pytest

from llm_trader.storage.files import write_all_atomically, write_atomically


def test_a_file_is_created_and_replaced(tmp_path: Path) -> None:
    for content in (b"first", b"second"):
        write_atomically(tmp_path / "file", content)
        assert [path.read_bytes() for path in tmp_path.iterdir()] == [content]


def test_no_file_is_replaced_when_one_of_them_cannot_be_written(tmp_path: Path) -> None:
    write_atomically(tmp_path / "numbers", b"old")

    def fail(path: Path) -> None:
        path.write_bytes(b"half of it")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_all_atomically(
            tmp_path, {"numbers": lambda path: path.write_text("new") and None, "report": fail}
        )

    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"numbers": b"old"}
