from __future__ import annotations

import re
import sys
from collections.abc import Callable
from math import nan
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from llm_trader.errors import ConfigurationError
from llm_trader.evaluation.report import page as report_page
from llm_trader.evaluation.report import wording
from llm_trader.evaluation.report.charts import drawdown_pct
from llm_trader.evaluation.report.formats import DASH
from llm_trader.evaluation.report.page import write_report
from llm_trader.evaluation.results import Arm, Bin, Command, Metrics, Probe, Trials
from llm_trader.evaluation.significance import Verdict
from llm_trader.retrieval.intervals import Interval
from llm_trader.timeframe import HORIZONS
from tests.evaluation.report import pages
from tests.evaluation.report.metrics import (
    COMMANDS,
    SAME,
    SYMBOLS,
    UNKNOWN,
    VARIANTS,
    made_up_metrics,
    metrics_of_command,
    unknown,
    with_readings,
)
from tests.evaluation.report.pages import Page

Render = Callable[[Metrics], Page]

MAX_BYTES = 6_000_000
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
HEADLINES: dict[Verdict, str] = {
    "better": "Better: similar past states forecast better than a volatility model alone does.",
    "worse": "Worse: similar past states forecast worse than a volatility model alone does.",
    "no evidence": "No evidence that similar past states forecast better or worse than a "
    "volatility model alone does.",
}


@pytest.fixture
def page_of(tmp_path: Path) -> Callable[[Metrics], Page]:
    return lambda metrics: pages.page_of(metrics, tmp_path)


def empty_metrics() -> Metrics:
    lists = "skills directions probabilities bands arms controls probes slices histograms curves"
    more = "undirected", "band_cells", "readings"
    nothing: Any = {name: [] for name in [*lists.split(), *more]}
    trials = Trials(so_far=0, configurations=[], superior_p_value=None, tested=0)
    return replace(made_up_metrics(), trials=trials, **nothing)


def with_failed_control() -> Metrics:
    metrics = made_up_metrics()
    failed = replace(metrics.controls[0], passed=False, skill=Interval(0.02, 0.01, 0.03))
    return replace(metrics, verdict="better", controls=[failed, *metrics.controls[1:]])


def test_every_section_is_there_in_its_order(page_of: Render) -> None:
    assert page_of(made_up_metrics()).sections == SECTIONS


@pytest.mark.parametrize("verdict", ["better", "worse", "no evidence"])
def test_the_verdict_stands_at_the_top_in_words(page_of: Render, verdict: Verdict) -> None:
    metrics = replace(made_up_metrics(), verdict=verdict)
    page = page_of(metrics)
    top = page.top
    assert HEADLINES[verdict] in top
    assert all(reading in top for reading in metrics.readings)
    assert page.text.startswith(f"{verdict.capitalize()}: evaluation of BTCUSDT and ETHUSDT")
    assert wording.DISTRUST not in page.text


def test_a_failed_control_is_what_the_report_says_first(page_of: Render) -> None:
    page = page_of(with_failed_control())
    assert page.text.startswith("NOT TRUSTWORTHY")
    failure = page.text.index("it found skill in data that holds none (skill +2.00 %)")
    assert page.text.index(wording.DISTRUST) < failure < page.text.index("Without these failures")
    assert page.text.index("Without these failures") < page.text.index(HEADLINES["better"])
    assert "1 of 5 controls failed" in page.text
    assert [row[-1] for row in page.rows if row[0] == "shuffled outcomes"] == ["✗ failed"]


def test_a_leak_is_said_first_too(page_of: Render) -> None:
    leak = Probe(name="canary", symbol="BTCUSDT", checked=9, problem="3 answers changed")
    page = page_of(replace(made_up_metrics(), probes=[leak]))
    assert page.text.startswith("NOT TRUSTWORTHY")
    assert "“canary” found a problem on BTCUSDT: 3 answers changed" in page.text


def test_controls_that_were_not_run_are_missed(page_of: Render) -> None:
    metrics = made_up_metrics()
    negative = [control for control in metrics.controls if control.kind == "negative"]
    idle = [replace(probe, checked=0) for probe in metrics.probes]
    page = page_of(replace(metrics, controls=negative, probes=idle))
    top = page.top
    assert "No positive control was run" in top
    assert "No negative control" not in top
    assert "No query was probed for knowledge of the future" in top
    assert [row[-1] for row in page.rows if row[0] == "future canary"] == ["not checked"] * 2


def test_where_nothing_has_an_interval_the_verdict_is_too_little_data(page_of: Render) -> None:
    metrics = made_up_metrics()
    skills = [replace(result, skill=UNKNOWN, verdict="no evidence") for result in metrics.skills]
    page = page_of(replace(metrics, skills=skills))
    assert page.text.startswith("Too little data: evaluation of BTCUSDT and ETHUSDT")
    top = page.top
    assert "Too little data to say whether similar past states forecast better or worse" in top
    assert "evidence" not in top.replace(" ".join(metrics.readings), "").lower()


def test_the_report_of_a_calibration_says_the_level_of_its_intervals_and_nothing_it_lacks(
    page_of: Render,
) -> None:
    metrics = replace(made_up_metrics(), command="calibrate")
    skills = [
        replace(result, potential=None, p_value=None, p_adjusted=None, detectable=None)
        for result in metrics.skills
    ]
    page = page_of(replace(metrics, skills=skills))
    assert page.text.count("98.75 % interval") >= 4
    assert "95 % interval" not in page.text
    assert not re.search("[Dd]etectable|adjusted p-value", page.text)
    assert not any("potential" in row for row in page.rows)
    whole = page_of(metrics).text
    assert "smallest skill that would be found with 80 % power" in whole
    assert "adjusted p-value" in whole


def test_bins_of_similarity_are_told_apart(page_of: Render) -> None:
    metrics = made_up_metrics()
    narrow = replace(metrics.histograms[0], edges=[0.861, 0.863, 0.865], counts=[4, 5])
    rows = page_of(replace(metrics, histograms=[narrow])).rows
    assert [row[1] for row in rows if row[0] == narrow.symbol and " to 0.86" in row[1]] == [
        "0.861 to 0.863",
        "0.863 to 0.865",
    ]


def test_empty_lists_leave_sections_that_say_so(page_of: Render) -> None:
    page = page_of(empty_metrics())
    assert page.sections == SECTIONS
    assert page.charts == []
    assert page.rows == []
    for sentence in (
        "No skill was measured.",
        "No probabilities were judged.",
        "No controls were run",
    ):
        assert sentence in page.text


def test_what_is_not_known_is_a_dash_and_never_zero(page_of: Render) -> None:
    metrics = made_up_metrics()
    first = metrics.skills[0]
    lost = replace(
        first, skill=UNKNOWN, potential=None, p_value=None, p_adjusted=nan, detectable=None
    )
    page = page_of(replace(metrics, skills=[lost, *metrics.skills[1:]]))
    row = [first.symbol, first.horizon, first.reference, "too little data"]
    assert [*row, DASH, DASH, DASH, DASH, DASH, "11,520"] in page.rows
    assert not re.search(r"\b(nan|None|inf)\b", page.text)
    page = page_of(replace(metrics, skills=[lost]))
    assert ["total return", "+3.10 %", "+4.60 %", DASH] in page.rows
    assert "too little data for intervals" in page.text
    assert not re.search(r"\b(nan|None|inf)\b", page.text)


def test_charts_have_gaps_where_numbers_are_not_known(page_of: Render) -> None:
    metrics = made_up_metrics()
    bins = [Bin(nan, nan, 0), Bin(0.5, 0.52, 40)]
    result = replace(metrics.probabilities[0], skill=UNKNOWN, bins=bins)
    curves = [replace(metrics.curves[0], value=[None, 1.0, nan])]
    chart, *_, equity = page_of(
        replace(metrics, skills=[], slices=[], histograms=[], probabilities=[result], curves=curves)
    ).charts
    assert chart["data"][1]["y"] == [52.0]
    assert chart["data"][2]["y"] == [40]
    assert equity["data"][0]["y"] == [None, 1.0, None]
    assert equity["data"][1]["y"] == [None, 0.0, None]


def test_drawdown_is_from_the_highest_value_before() -> None:
    assert drawdown_pct([1.0, 2.0, None, 1.5, nan, 3.0, 0.0]) == [0, 0, None, -25, None, 0, -100]


def test_a_nasty_name_stays_text(page_of: Render) -> None:
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


def test_nothing_is_loaded_from_anywhere(page_of: Render) -> None:
    page = page_of(made_up_metrics())
    loading = {"src", "href", "srcset", "data", "action", "poster", "xlink:href"}
    # Links to the page's own sections load nothing.
    tags = [(tag, dict(attributes)) for tag, attributes in page.tags]
    links = [attributes.pop("href") or "" for tag, attributes in tags if tag == "a"]
    assert [link.removeprefix("#") for link in links] == page.sections
    assert not [tag for tag, attributes in tags if loading & set(attributes)]
    assert not {"link", "iframe", "img", "object", "base"} & {tag for tag, _ in page.tags}
    quoted = re.findall(r"[\"'`(]\s*(?:https?:)?//[\w.-]+\.[a-z]+", page.html)
    assert {address.lstrip("\"'`( ") for address in quoted} <= {"http://www.w3.org"}
    assert not re.search(r"cdn\.|jsdelivr|unpkg|@import", page.html)
    policies = [attributes for tag, attributes in page.tags if "http-equiv" in attributes]
    assert "default-src 'none'" in str(policies[0]["content"])


def test_plotly_is_embedded_once_and_the_file_stays_small(page_of: Render) -> None:
    page = page_of(made_up_metrics())
    assert page.html.count("* plotly.js v") == 1
    assert len(page.html.encode()) < MAX_BYTES


@pytest.mark.parametrize("package", ["plotly.offline", "jinja2"])
def test_without_the_packages_of_the_extra_the_remedy_is_named(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    report_page._environment.cache_clear()
    with pytest.raises(ConfigurationError, match=re.escape('pip install "llm-trader-rag[eval]"')):
        write_report(made_up_metrics(), tmp_path / "report.html")


def test_equal_metrics_give_equal_files(page_of: Render) -> None:
    assert page_of(made_up_metrics()).html == page_of(made_up_metrics()).html


def test_section_counts_say_what_the_numbers_say(page_of: Render) -> None:
    text = page_of(made_up_metrics()).text
    assert "Of 26 comparisons, 7 came out better, none worse and 19 without evidence." in text
    assert "at most 0.05 in 7 of them." in text
    assert "a skill of 2.10 % would have been found 4 times in 5" in text
    assert "4 estimates rest on too little data." in text
    assert "closer to 80 % in 8 of 8 cases" in text


def test_forecasts_that_are_those_of_the_reference_are_called_the_same_and_not_counted(
    page_of: Render,
) -> None:
    metrics = made_up_metrics()
    same = [result for result in metrics.skills if result.skill == SAME]
    assert [(result.symbol, result.horizon, result.reference) for result in same] == [
        ("BTCUSDT", "24h", "volatility model"),
        ("BTCUSDT", "24h", "random neighbours"),
    ]
    page = page_of(metrics)
    references = {result.reference for result in metrics.skills}
    told = [row for row in page.rows if row[:2] == ["BTCUSDT", "24h"] and row[2] in references]
    assert {row[2]: row[3] for row in told} == {
        "base rate": "▲ better",
        "rescaled base rate": "● no evidence",
        "volatility model": "the same",
        "random neighbours": "the same",
    }
    (cells,) = [row[2:6] for row in page.rows if row[4:6] == ["the same", "the same"]]
    assert all("%" in cell for cell in cells[:2])
    different = [result for result in metrics.skills if result.skill != SAME]
    for text in (page.text, page_of(replace(metrics, skills=different)).text):
        assert "Of 26 comparisons, 7 came out better, none worse and 19 without evidence." in text
        # Forecasts that do not differ tell nothing of the smallest skill that could be found.
        assert "a skill of 2.10 % would have been found 4 times in 5" in text


def test_a_comparison_counts_no_case_in_which_the_volatility_model_forecasts_alone(
    page_of: Render,
) -> None:
    # Of two symbols and four horizons, one case has too little data.
    text = page_of(metrics_of_command("compare")).text
    assert "“state” is better in none and worse in none of 6 cases." in text
    assert "“none” is better" not in text


def test_regimes_in_which_the_volatility_model_forecasts_alone_are_not_counted(
    page_of: Render,
) -> None:
    metrics = made_up_metrics()
    alone = [regime for regime in metrics.slices if regime.skill == SAME]
    assert {regime.horizon for regime in alone} == {"24h"}
    others = [regime for regime in metrics.slices if regime.skill != SAME]
    told, without = (
        re.findall(r"Of \d+ intervals, .*? on one side", page_of(of).text)
        for of in (metrics, replace(metrics, slices=others))
    )
    # Of two symbols: the wild are not known, twelve stretches of the day, seven days.
    assert [sentence.split(",")[0] for sentence in told] == [
        "Of 4 intervals",
        "Of 24 intervals",
        "Of 14 intervals",
    ]
    assert told == without


def test_coverage_is_shown_for_every_cell_of_each_division(page_of: Render) -> None:
    metrics = made_up_metrics()
    page = page_of(metrics)
    headings = [
        [by, "symbol", "horizon", "before", "after", "queries"]
        for by in ("expected / last 24h", "hour (UTC)")
    ]
    starts = [page.rows.index(heading) + 1 for heading in headings]
    of_ratios = page.rows[starts[0] : starts[1] - 1]
    of_hours = page.rows[starts[1] :][: len(SYMBOLS) * len(HORIZONS) * 6]
    assert len(of_ratios) == len(SYMBOLS) * len(HORIZONS) * 5
    assert of_ratios[:2] == [
        ["fifth 1 of 5", "BTCUSDT", "15m", "71.0 %", "79.0 %", "900"],
        ["fifth 2 of 5", "BTCUSDT", "15m", "73.0 %", "80.0 %", "901"],
    ]
    assert of_hours[0] == ["00-04", "BTCUSDT", "15m", "71.0 %", "79.0 %", "900"]
    assert of_hours[-1] == ["20-24", "ETHUSDT", "24h", "81.0 %", "84.0 %", "905"]
    rows = page_of(replace(metrics, band_cells=[])).rows
    assert not any(heading in rows for heading in headings)


def test_the_potential_of_each_skill_stands_beside_it_where_it_was_measured(
    page_of: Render,
) -> None:
    metrics = made_up_metrics()
    rows = page_of(metrics).rows
    (heading,) = [row for row in rows if "potential" in row]
    column, start = heading.index("potential"), rows.index(heading) + 1
    assert heading[column - 1] == "95 % interval"
    shown = [row[column] for row in rows[start:][: len(metrics.skills)]]
    potentials = [result.potential or 0.0 for result in metrics.skills]
    assert shown == [f"{100 * share:+.2f} %".replace("-", "−") for share in potentials]
    one, *others = metrics.skills
    rows = page_of(replace(metrics, skills=[replace(one, potential=None), *others])).rows
    assert rows[start][column] == DASH
    unmeasured = [replace(result, potential=None) for result in metrics.skills]
    rows = page_of(replace(metrics, skills=unmeasured)).rows
    assert not any("potential" in row for row in rows)


def test_arms_are_counted_without_naming_an_empty_group(page_of: Render) -> None:
    metrics = made_up_metrics()
    text = page_of(metrics).text
    assert "none show higher earnings, none lower earnings and 2 no clear difference." in text
    better: list[Arm] = [
        replace(arm, difference=Interval(0.02, 0.01, 0.03), verdict="better")
        if arm.difference
        else arm
        for arm in metrics.arms
    ]
    text = page_of(replace(metrics, arms=better)).text
    assert "4 show higher earnings (with evidence and never trades) and none lower" in text
    assert "no clear difference" not in text
    idle = [replace(arm, difference=arm.difference and UNKNOWN) for arm in metrics.arms]
    text = page_of(replace(metrics, arms=idle)).text
    assert "There is too little data to compare earnings with those of the baseline." in text


def test_daily_ranges_are_told_by_name_or_by_symbol(page_of: Render) -> None:
    metrics = made_up_metrics()
    curve = replace(metrics.curves[-1], value=[0.8, 0.9])
    curves = [replace(curve, name=name) for name in ("over 1h", "over 4h")]
    text = page_of(replace(metrics, curves=curves)).text
    assert "Over 1h: 80.0 to 90.0 %; over 4h: 80.0 to 90.0 %." in text
    text = page_of(replace(metrics, curves=[curve])).text
    assert f"{curve.symbol}: 80.0 to 90.0 %." in text


def test_right_signs_have_no_mark_as_they_do_not_allow_for_their_number(page_of: Render) -> None:
    metrics = metrics_of_command("compare")
    clear = [replace(hits, accuracy=Interval(0.6, 0.55, 0.65)) for hits in metrics.directions]
    # Skills of exactly nothing have no mark either.
    same = [replace(skill, skill=Interval(0, 0, 0)) for skill in metrics.skills]
    rows = page_of(replace(metrics, directions=clear, skills=same)).rows
    cells = [cell for row in rows for cell in row]
    assert "60.0 %55.0 to 65.0 %" in cells
    assert "the same" in cells
    assert not any("▲" in cell and "%" in cell for cell in cells)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("alter", [lambda metrics: metrics, unknown])
def test_pages_of_every_command_are_whole(
    page_of: Render, command: Command, alter: Callable[[Metrics], Metrics]
) -> None:
    page = page_of(with_readings(alter(metrics_of_command(command))))
    assert page.open == []
    assert not re.search(r"\b(nan|None|inf)\b", page.text)


def test_a_comparison_has_every_kind_of_neighbours_beside_the_others(page_of: Render) -> None:
    page = page_of(metrics_of_command("compare"))
    kinds = [row[1] for row in page.rows if row[0] == "BTCUSDT" and row[1] in VARIANTS]
    assert kinds == 3 * list(VARIANTS)
    assert "decisions" not in page.sections
    assert "Everything below is about “state”" in page.text


def test_a_test_of_two_arms_opens_with_their_decisions(page_of: Render) -> None:
    page = page_of(metrics_of_command("ab"))
    assert page.sections[:4] == ["origin", "decisions", "controls", "probes"]
    assert "<title>No evidence: with evidence against indicators alone on BTCUSDT" in page.html


def test_a_control_without_an_interval_is_not_counted_as_passed(page_of: Render) -> None:
    metrics = made_up_metrics()
    idle = [replace(control, wide=UNKNOWN, skill=UNKNOWN) for control in metrics.controls[:4]]
    page = page_of(replace(metrics, controls=[*idle, *metrics.controls[4:]]))
    assert "4 controls had too little data to fail" in page.top
    assert "1 positive control found what was planted" in page.text
    assert "negative controls found" not in page.text
    assert "4 controls had too little data for a result." in page.text
    assert [row[-1] for row in page.rows if row[:2] == ["wrong symbol", "negative"]] == [
        "too little data"
    ]


def test_neighbours_that_do_harm_where_there_is_nothing_to_find_are_no_failure(
    page_of: Render,
) -> None:
    metrics = made_up_metrics()
    below = Interval(-0.02, -0.03, -0.01)
    harmful = replace(metrics.controls[0], skill=below, wide=below)
    metrics = replace(metrics, controls=[harmful, *metrics.controls[1:]])
    assert "1 negative control came out worse than the volatility model" in page_of(metrics).text
    assert not wording.distrust(metrics)


def test_the_digest_of_the_plan_is_named_so_beside_that_of_the_settings(page_of: Render) -> None:
    metrics = made_up_metrics()
    text = page_of(metrics).text
    assert f"Plan digest {metrics.origin.settings_digest} Data digest" in text
    origin = replace(metrics.origin, program_settings_digest="0123456789ab")
    text = page_of(replace(metrics, origin=origin)).text
    assert f"Plan digest {metrics.origin.settings_digest} Settings digest 0123456789ab" in text


def test_three_lines_on_top_answer_how_far_which_way_and_money(page_of: Render) -> None:
    metrics = made_up_metrics()
    lines = [f"{question.title} {question.answer}" for question in wording.questions(metrics)]
    assert [line.split()[0] for line in lines] == ["How", "Which", "Money"]
    top = page_of(metrics).top
    places = [top.index(line) for line in lines]
    assert places == sorted(places)
    assert places[-1] < top.index(wording.headline(metrics))


def test_which_way_and_money_say_what_a_better_headline_hides() -> None:
    metrics = made_up_metrics()
    coins = [replace(hits, accuracy=Interval(0.5, 0.48, 0.52)) for hits in metrics.directions]
    level = [replace(p, skill=Interval(0.0, -0.01, 0.01)) for p in metrics.probabilities]
    losses = [
        replace(
            arm,
            name={"with evidence": "rag"}.get(arm.name, arm.name),
            performance=replace(arm.performance, total_return_pct=-9.6),
        )
        for arm in metrics.arms
    ]
    metrics = replace(metrics, verdict="better", directions=coins, probabilities=level, arms=losses)
    _, way, money = wording.questions(metrics)
    assert way.verdict == "no evidence"
    assert "the sign was right in 50.0 %" in way.answer
    assert f"better than the base rates in none of {len(level)}" in way.answer
    assert money.verdict == "worse"
    assert "returned −9.60 % on BTCUSDT" in money.answer
    nothing = wording.questions(empty_metrics())
    assert [question.verdict for question in nothing] == ["no evidence"] * 3


def test_every_cell_of_a_table_names_its_column_for_narrow_screens(page_of: Render) -> None:
    page = page_of(made_up_metrics())
    body = [tag for tag in page.tags if tag[0] in ("td", "th") and tag[1].get("scope") != "col"]
    assert body
    assert all("data-label" in attributes for _, attributes in body)
    assert "content: attr(data-label)" in page.html


def test_every_arm_is_defined(page_of: Render) -> None:
    metrics = made_up_metrics()
    text = page_of(metrics).text
    for name in {arm.name for arm in metrics.arms}:
        assert f"“{name}” " in text[text.index("The arms: ") :]


def test_a_chart_without_intervals_does_not_claim_to_have_them(page_of: Render) -> None:
    metrics = made_up_metrics()
    bare = [replace(regime, skill=Interval(0.01, None, None)) for regime in metrics.slices]
    text = page_of(replace(metrics, slices=bare)).text
    assert "there is too little data for intervals." in text
    assert "with its 95 % interval where there is enough data" not in text
