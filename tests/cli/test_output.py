"""How results are laid out: everything fits the terminal, and no number is cut."""

from __future__ import annotations

import pytest
from rich.console import RenderableType

from llm_trader.cli.output import describe, heading, line, table

NUMBERS = [f"{-25.5 - n:.1f}" for n in range(8)]


def printed(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    columns: int | None,
    *parts: RenderableType,
) -> list[str]:
    if columns is None:
        monkeypatch.delenv("COLUMNS", raising=False)
    else:
        monkeypatch.setenv("COLUMNS", str(columns))
    describe(parts)
    return [row.rstrip() for row in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("columns", [12, 20, 40, 80, 200])
def test_a_table_that_is_too_wide_is_printed_in_parts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: int
) -> None:
    names = [f"column {n}" for n in range(8)]
    wide = table("A title of six short words", "arm", *names, rows=[["hold", *NUMBERS]])
    rows = printed(monkeypatch, capsys, columns, wide)
    assert max(map(len, rows)) <= columns
    words = " ".join(rows).split()
    assert set(NUMBERS) <= set(words)
    parts = [row for row in rows if row.startswith("hold")]
    assert len(parts) == {12: 8, 20: 8, 40: 3, 80: 2, 200: 1}[columns]


def test_a_cell_that_is_wider_than_the_terminal_is_folded_and_stays_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = "/data/" + "x" * 100
    rows = printed(monkeypatch, capsys, 60, table("", "file", "rows", rows=[["a", path]]))
    assert max(map(len, rows)) <= 60
    assert path in "".join(rows[1:]).replace(" ", "").removeprefix("a")


def test_a_long_first_column_is_folded_beside_the_numbers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "BTCUSDT 4h, resampled from 5m of bybit_linear_BTCUSDT_candles_5m.parquet"
    rows = printed(
        monkeypatch, capsys, 60, table("", "file", "rows", "added", rows=[[name, 43200, 900]])
    )
    assert max(map(len, rows)) <= 60
    assert [row for row in rows if "43200" in row] == [row for row in rows if "900" in row]
    assert name.replace(" ", "") in "".join(rows[1:]).replace(" ", "").replace("43200900", "")


def test_sentences_are_broken_between_words_and_commands_nowhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = "llm-trader backup verify 2026-03-20T12-00-00Z --from /var/backups"
    rows = printed(monkeypatch, capsys, 40, line(f"check what was copied now with: {command}"))
    assert rows == ["  check what was copied now with:", f"  {command}"]
    rows = printed(monkeypatch, capsys, 20, heading("Report: /data/reports/of/this/year.html"))
    assert rows == ["Report:", "/data/reports/of/this/year.html"]


def test_a_file_has_eighty_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.get_terminal_size", _no_terminal)
    rows = printed(monkeypatch, capsys, None, line("word " * 40))
    assert 70 < max(map(len, rows)) <= 80


def _no_terminal(descriptor: int) -> None:
    raise OSError(f"{descriptor} is no terminal")
