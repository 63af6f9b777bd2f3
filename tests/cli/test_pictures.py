"""The picture of an answer: in the terminal, and as a file."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from llm_trader.cli.fan import STEPS
from llm_trader.cli.terminal_picture import sparkline
from llm_trader.timeframe import iso8601
from tests.cli.conftest import Typing
from tests.cli.corridor import AT_MS, SYMBOL

ASK = f"llm-trader query --symbol {SYMBOL} --at {iso8601(AT_MS)} --port"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("columns", [60, 100])
def test_the_terminal_shows_the_fan_as_wide_as_it_is(
    typed: Typing, served_port: int, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    shown = typed(ASK, served_port).out
    picture = shown[shown.index("The last and the next 24 hours") :].partition("\n\n")[0]
    lines = picture.splitlines()
    assert columns - 8 < max(map(len, lines)) <= columns
    assert "\x1b" not in shown  # no colours where no terminal is
    chart, paths = lines[1:12], lines[13:]
    assert all("●" not in line[columns // 2 :] for line in chart)
    assert all("░" not in line[: columns // 2 - 6] for line in chart)
    # The range grows with time.
    widths = [
        sum(line[column : column + 1] in "─▒░" for line in chart if len(line) > column)
        for column in (columns // 2, columns - 14)
    ]
    assert 0 < widths[0] < widths[1]
    assert len(paths) == 5
    assert all(re.match(r"2025-\d\d-\d\d \d\d:\d\d  [▁-█]{8,}  [+-]\d", line) for line in paths)


def test_json_has_no_picture(typed: Typing, served_port: int, tmp_path: Path) -> None:
    path = tmp_path / "answer.svg"
    ran = typed(ASK, served_port, "--json", "--plot", path)
    assert ran.json["matches"]
    assert path.exists()


def test_the_svg_holds_the_verdict_the_fan_and_a_path_for_each_match(
    typed: Typing, served_port: int, tmp_path: Path
) -> None:
    path = tmp_path / "answer.svg"
    ran = typed(ASK, served_port, "--plot", path)
    assert f"The picture is in {path}" in ran.out.replace("\n", " ")
    answer = typed(ASK, served_port, "--json").json
    picture = ElementTree.fromstring(path.read_text())
    title = picture.find(f"{SVG}title")
    assert title is not None
    assert title.text is not None
    assert title.text.startswith(f"Verdict: {answer['evidence']['verdict']}; {SYMBOL} at ")
    drawn = [(p.get("d") or "", p.get("stroke"), p.get("fill")) for p in picture.iter(f"{SVG}path")]
    bands = [d for d, _, fill in drawn if d.endswith("Z") and fill != "none"]
    assert [d.count("L") + 1 for d in bands] == [2 * (STEPS + 1)] * 3
    paths = [d for d, stroke, _ in drawn if stroke == "#b45309"]
    assert len(paths) == len(answer["matches"])


def test_html_is_one_file_and_png_a_picture(
    typed: Typing, served_port: int, tmp_path: Path
) -> None:
    page = tmp_path / "answer.html"
    typed(ASK, served_port, "--plot", page)
    text = page.read_text()
    assert text.startswith("<!doctype html>")
    assert not re.search(r"(?:src|href)=", text)
    pytest.importorskip("resvg_py", reason="PNG needs the extra plot")
    picture = tmp_path / "answer.png"
    typed(ASK, served_port, "--plot", picture)
    content = picture.read_bytes()
    assert content.startswith(b"\x89PNG")
    assert int.from_bytes(content[16:20]) == 2200


def test_a_name_that_says_no_kind_is_refused_before_anything_is_asked(typed: Typing) -> None:
    ran = typed(ASK, 1, "--plot", "answer.pdf")
    assert ran.code != 0
    assert "must end with .png, .svg, .html" in ran.err


def test_without_a_browser_open_says_where_the_picture_is(
    typed: Typing, served_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    shown = " ".join(typed(ASK, served_port, "--open").out.split())
    found = re.search(r"The picture is in (\S+\.html); there is no browser", shown)
    assert found is not None
    assert Path(found[1]).read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("values", "width", "shown"),
    [
        ([0.0, 1.0, 2.0, 3.0], 4, "▁▃▆█"),
        ([1.0, float("nan"), 1.0], 3, "▁ ▁"),
        ([float("nan")] * 3, 3, "   "),
        ([float(n) for n in range(97)], 3, "▁▅█"),
    ],
)
def test_a_sparkline_goes_from_the_lowest_to_the_highest_value(
    values: list[float], width: int, shown: str
) -> None:
    assert sparkline(values, width) == shown
