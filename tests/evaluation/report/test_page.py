from __future__ import annotations

import json
import re
import sys
from html.parser import HTMLParser
from math import nan
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from llm_trader.errors import ConfigurationError
from llm_trader.evaluation.report import prose
from llm_trader.evaluation.report.charts import drawdown_pct
from llm_trader.evaluation.report.page import write_report
from llm_trader.evaluation.report.units import DASH, number, p_value, skill
from llm_trader.evaluation.results import Bin, Metrics, Probe, Trials
from llm_trader.evaluation.significance import Verdict
from llm_trader.retrieval.intervals import Interval
from tests.evaluation.report.metrics import made_up_metrics

MOST_BYTES = 6_000_000
SECTIONS = [
    "origin",
    "skill",
    "reliability",
    "direction",
    "coverage",
    "decisions",
    "controls",
    "probes",
    "regimes",
    "trials",
    "similarity",
    "time",
]
NOWHERE = Interval(None, None, None)
HEADLINES: dict[Verdict, str] = {
    "better": "Better: similar past states forecast better than the base rate does.",
    "worse": "Worse: similar past states forecast worse than the base rate does.",
    "no evidence": "No evidence that similar past states forecast better or worse than the base "
    "rate does.",
}


class Page(HTMLParser):
    """What a reader without JavaScript sees, and what a browser would be told to load."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.rows: list[list[str]] = []
        self.words: list[str] = []
        self._inside = ""
        self.feed(html)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    @property
    def sections(self) -> list[str | None]:
        return [attributes["id"] for tag, attributes in self.tags if tag == "section"]

    @property
    def charts(self) -> list[dict[str, Any]]:
        return [json.loads(script) for script in self.scripts if script.startswith('{"data":')]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts.append(data)
        elif self._inside != "style":
            self.words.append(data)
            if self._inside in ("td", "th", "span") and self.rows and self.rows[-1]:
                self.rows[-1][-1] += data


@pytest.fixture
def page_of(tmp_path: Path) -> Any:
    def write(metrics: Metrics) -> Page:
        path = tmp_path / "report.html"
        write_report(metrics, path)
        return Page(path.read_text(encoding="utf-8"))

    return write


def empty_metrics() -> Metrics:
    lists = "skills directions probabilities bands arms controls probes slices histograms curves"
    nothing: Any = {name: [] for name in [*lists.split(), "undirected", "readings"]}
    trials = Trials(so_far=0, configurations=[], superior_p_value=None, tested=0)
    return replace(made_up_metrics(), trials=trials, **nothing)


def with_failed_control() -> Metrics:
    metrics = made_up_metrics()
    failed = replace(metrics.controls[0], passed=False, skill=Interval(0.02, 0.01, 0.03))
    return replace(metrics, verdict="better", controls=[failed, *metrics.controls[1:]])


def test_every_section_is_there_in_its_order(page_of: Any) -> None:
    assert page_of(made_up_metrics()).sections == SECTIONS


@pytest.mark.parametrize("found", ["better", "worse", "no evidence"])
def test_the_verdict_stands_at_the_top_in_words(page_of: Any, found: Verdict) -> None:
    metrics = replace(made_up_metrics(), verdict=found)
    page = page_of(metrics)
    top = page.text[: page.text.index("What was evaluated")]
    assert HEADLINES[found] in top
    assert all(reading in top for reading in metrics.readings)
    assert page.text.startswith(f"{found.capitalize()}: evaluation of BTCUSDT and ETHUSDT")
    assert prose.DISTRUST not in page.text


def test_a_failed_control_is_what_the_report_says_first(page_of: Any) -> None:
    page = page_of(with_failed_control())
    assert page.text.startswith("NOT TRUSTWORTHY")
    said = page.text.index("it found skill in data that holds none (skill +2.00 %)")
    assert page.text.index(prose.DISTRUST) < said < page.text.index("It would have said")
    assert page.text.index("It would have said") < page.text.index(HEADLINES["better"])
    assert "1 of 5 controls failed" in page.text
    assert [row[-1] for row in page.rows if row[0] == "shuffled outcomes"] == ["✗ failed"]


def test_a_leak_is_said_first_too(page_of: Any) -> None:
    leak = Probe(name="canary", symbol="BTCUSDT", checked=9, problem="3 answers changed")
    page = page_of(replace(made_up_metrics(), probes=[leak]))
    assert page.text.startswith("NOT TRUSTWORTHY")
    assert "“canary” found a problem on BTCUSDT: 3 answers changed" in page.text


def test_controls_that_were_not_run_are_missed(page_of: Any) -> None:
    metrics = made_up_metrics()
    negative = [one for one in metrics.controls if one.kind == "negative"]
    idle = [replace(one, checked=0) for one in metrics.probes]
    page = page_of(replace(metrics, controls=negative, probes=idle))
    top = page.text[: page.text.index("What was evaluated")]
    assert "No positive control was run" in top
    assert "No negative control" not in top
    assert "Nothing was probed for knowledge of the future" in top
    assert [row[-1] for row in page.rows if row[0] == "future canary"] == ["not checked"] * 2


def test_where_nothing_has_an_interval_the_verdict_is_too_little_data(page_of: Any) -> None:
    metrics = made_up_metrics()
    skills = [replace(one, skill=NOWHERE, verdict="no evidence") for one in metrics.skills]
    page = page_of(replace(metrics, skills=skills))
    assert page.text.startswith("Too little data: evaluation of BTCUSDT and ETHUSDT")
    top = page.text[: page.text.index("What was evaluated")]
    assert "Too little data to say whether similar past states forecast better or worse" in top
    assert "evidence" not in top.replace(" ".join(metrics.readings), "").lower()


def test_the_report_of_a_calibration_says_the_level_of_its_intervals_and_nothing_it_lacks(
    page_of: Any,
) -> None:
    found = replace(made_up_metrics(), command="calibrate")
    skills = [replace(one, p_value=None, p_adjusted=None, detectable=None) for one in found.skills]
    page = page_of(replace(found, skills=skills))
    assert page.text.count("98.75 % interval") >= 4
    assert "95 % interval" not in page.text
    assert not re.search("[Dd]etectable|p adjusted", page.text)
    whole = page_of(found).text
    assert "smallest skill that would be found with 80 % power" in whole
    assert "p adjusted" in whole


def test_bins_of_similarity_are_told_apart(page_of: Any) -> None:
    metrics = made_up_metrics()
    narrow = replace(metrics.histograms[0], edges=[0.861, 0.863, 0.865], counts=[4, 5])
    rows = page_of(replace(metrics, histograms=[narrow])).rows
    assert [row[1] for row in rows if row[0] == narrow.symbol and " to 0.86" in row[1]] == [
        "0.861 to 0.863",
        "0.863 to 0.865",
    ]


def test_empty_lists_leave_sections_that_say_so(page_of: Any) -> None:
    page = page_of(empty_metrics())
    assert page.sections == SECTIONS
    assert page.charts == []
    assert page.rows == []
    for said in ("No skill was measured.", "No probabilities were judged.", "No controls were run"):
        assert said in page.text


def test_what_is_not_known_is_a_dash_and_never_zero(page_of: Any) -> None:
    metrics = made_up_metrics()
    first = metrics.skills[0]
    lost = replace(first, skill=NOWHERE, p_value=None, p_adjusted=nan, detectable=None)
    page = page_of(replace(metrics, skills=[lost, *metrics.skills[1:]]))
    row = [first.symbol, first.horizon, first.reference, "too little data"]
    assert [*row, DASH, DASH, DASH, DASH, "11,520"] in page.rows
    assert not re.search(r"\b(nan|None|inf)\b", page.text)
    page = page_of(replace(metrics, skills=[lost]))
    assert ["total return", "+3.10 %", "+4.60 %", DASH] in page.rows
    assert "too little data for intervals" in page.text
    assert not re.search(r"\b(nan|None|inf)\b", page.text)


def test_charts_have_gaps_where_numbers_are_not_known(page_of: Any) -> None:
    metrics = made_up_metrics()
    bins = [Bin(nan, nan, 0), Bin(0.5, 0.52, 40)]
    one = replace(metrics.probabilities[0], skill=NOWHERE, bins=bins)
    curves = [replace(metrics.curves[0], value=[None, 1.0, nan])]
    chart, *_, equity = page_of(
        replace(metrics, skills=[], slices=[], histograms=[], probabilities=[one], curves=curves)
    ).charts
    assert chart["data"][1]["y"] == [52.0]
    assert chart["data"][2]["y"] == [40]
    assert equity["data"][0]["y"] == [None, 1.0, None]
    assert equity["data"][1]["y"] == [None, 0.0, None]


def test_drawdown_is_from_the_highest_value_before() -> None:
    assert drawdown_pct([1.0, 2.0, None, 1.5, nan, 3.0, 0.0]) == [0, 0, None, -25, None, 0, -100]


def test_a_nasty_name_stays_text(page_of: Any) -> None:
    nasty = "</script><script>alert(1)</script><b title='\"&"
    metrics = made_up_metrics((nasty,))
    probe = Probe(name=nasty, symbol=nasty, checked=1, problem=nasty)
    page = page_of(replace(metrics, readings=[nasty], probes=[probe]))
    assert "alert(1)</script>" not in page.html
    assert nasty in page.text
    assert "b" not in {tag for tag, _ in page.tags}
    drawn = len(page_of(made_up_metrics(("BTCUSDT",))).scripts)
    assert len(page.scripts) == drawn
    names = {trace.get("name") for chart in page.charts for trace in chart["data"]}
    assert not any(name and "<" in name for name in names)


def test_nothing_is_loaded_from_anywhere(page_of: Any) -> None:
    page = page_of(made_up_metrics())
    loading = {"src", "href", "srcset", "data", "action", "poster", "xlink:href"}
    assert not [tag for tag, attributes in page.tags if loading & set(attributes)]
    assert not {"link", "iframe", "img", "object", "base"} & {tag for tag, _ in page.tags}
    quoted = re.findall(r"[\"'`(]\s*(?:https?:)?//[\w.-]+\.[a-z]+", page.html)
    assert {address.lstrip("\"'`( ") for address in quoted} <= {"http://www.w3.org"}
    assert not re.search(r"cdn\.|jsdelivr|unpkg|@import", page.html)
    policies = [attributes for tag, attributes in page.tags if "http-equiv" in attributes]
    assert "default-src 'none'" in str(policies[0]["content"])


def test_plotly_is_embedded_once_and_the_file_stays_small(page_of: Any) -> None:
    page = page_of(made_up_metrics())
    assert page.html.count("* plotly.js v") == 1
    assert len(page.html.encode()) < MOST_BYTES


def test_without_plotly_the_remedy_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(ConfigurationError, match=re.escape('pip install "llm-trader-rag[eval]"')):
        write_report(made_up_metrics(), tmp_path / "report.html")


def test_equal_metrics_give_equal_files(page_of: Any) -> None:
    assert page_of(made_up_metrics()).html == page_of(made_up_metrics()).html


def test_numbers_have_units_and_signs() -> None:
    assert [skill(of) for of in (0.0123, -0.5, 0.000001, None, nan)] == [
        "+1.23 %",
        "−50.00 %",
        "0.00 %",
        DASH,
        DASH,
    ]
    assert number(-12345.678, 1, " pts") == "−12,345.7 pts"
    assert [p_value(of) for of in (0.0, 0.0004, 0.031, 1.0, None, nan)] == [
        "< 0.001",
        "< 0.001",
        "0.031",
        "1.000",
        DASH,
        DASH,
    ]


def test_readings_count_what_the_numbers_say() -> None:
    metrics = made_up_metrics()
    said = prose.of_skills(metrics.skills)
    assert said.startswith("Of 21 comparisons, 7 came out better, 0 worse and 14 without evidence")
    assert "a skill of 2.10 % would have been found 4 times in 5" in said
    assert said.endswith("3 estimates rest on too little data.")
    assert prose.of_trials(replace(metrics.trials, superior_p_value=0.01)).endswith(
        "is hard to explain by chance, with so many tries (Hansen's test, p 0.010)."
    )
    assert "nearer to 80 % in 8 of 8 cases" in prose.of_bands(metrics.bands)
