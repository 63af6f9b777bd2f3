"""`llm-trader forecasts`: scores, lists and verifies a journal, misses first."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Typing
from tests.cli.corridor import AT_MS, SYMBOL, Corridor
from tests.forecasts.builders import Clock, answer, writing


def _flags(corridor: Corridor, folder: Path) -> str:
    return f"--store {corridor.store} --index {corridor.index} --forecasts-folder {folder}"


def test_forecasts_are_scored_and_listed_with_misses_first(
    typed: Typing, corridor: Corridor, tmp_path: Path
) -> None:
    clock = Clock(AT_MS)
    with writing(tmp_path, clock, max_bytes=1 << 20) as journal:
        for number, spread in enumerate((20.0, 0.001, 20.0)):
            clock.now_ms = AT_MS + number * 900_000
            journal.record(SYMBOL, clock.now_ms, answer(spread), f"r-{number}")
    flags = _flags(corridor, tmp_path)
    listed = typed(f"llm-trader forecasts list --json {flags}").json
    assert len(listed["scored"]) == 12
    assert listed["waiting"] == []
    misses = [one["is_miss"] for one in listed["scored"]]
    assert misses == [True] * 4 + [False] * 8
    shown = typed(f"llm-trader forecasts list --limit 2 {flags}")
    assert (shown.out.count(" miss"), "10 more have an outcome" in shown.out) == (2, True)
    # The data are of 2025, so no day of the last 30 has any.
    scored = typed(f"llm-trader forecasts score --json {flags}").json
    assert [one["scored"] for one in scored["horizons"]] == [0] * 4
    shown = typed(f"llm-trader forecasts score {flags}")
    for reference in ("base rate", "rescaled base rate", "volatility model", "random neighbours"):
        assert reference in shown.out


def test_a_changed_line_is_shown_with_its_place_and_fails(
    typed: Typing, corridor: Corridor, tmp_path: Path
) -> None:
    with writing(tmp_path, Clock(), max_bytes=1 << 20) as journal:
        journal.record(SYMBOL, Clock()(), answer(), "r-1")
    flags = f"--forecasts-folder {tmp_path}"
    whole = typed(f"llm-trader forecasts verify {flags}")
    assert (whole.code, "nothing was changed" in whole.out) == (0, True)
    (path,) = tmp_path.glob("*.jsonl")
    path.write_bytes(path.read_bytes().replace(b"r-1", b"r-2"))
    changed = typed(f"llm-trader forecasts verify {flags}")
    assert changed.code == 1
    assert f"{path.name}, line 2: the line was changed" in changed.out


def test_without_a_journal_its_setting_is_named(
    typed: Typing, corridor: Corridor, tmp_path: Path
) -> None:
    for command in ("score", "list", "verify"):
        flags = "" if command == "verify" else f"--store {corridor.store}"
        ran = typed(f"llm-trader forecasts {command} {flags} --forecasts-folder {tmp_path}")
        assert ran.code == 2
        assert "there is no forecast journal" in ran.err
        assert "forecasts.folder" in ran.err
