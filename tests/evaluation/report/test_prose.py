from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from math import nan
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from rich.console import Console

from llm_trader.cli import show_evaluation
from llm_trader.evaluation.backtest.strategies import RAG
from llm_trader.evaluation.report import prose, remarks, summary
from llm_trader.evaluation.report.page import write_report
from llm_trader.evaluation.results import VERDICT_REFERENCE, Arm, Command, Metrics, Skill
from llm_trader.evaluation.significance import Verdict
from llm_trader.evaluation.verdict.gate import Change, GateReport
from llm_trader.evaluation.verdict.verdicts import verdict_variant
from llm_trader.retrieval.intervals import Interval
from tests.evaluation.report.metrics import made_up_metrics, performance

COMMANDS: tuple[Command, ...] = ("evaluate", "compare", "ab", "calibrate")
VARIANTS = ("none", "random", "text", "hybrid", "prototype", "state")
NOWHERE = Interval(None, None, None)
VOID = {"meta", "br", "img", "input", "hr", "link"}


class Balanced(HTMLParser):
    """Raises where a tag is closed that is not the innermost open one."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "tr" in self.open:
            self.rows[-1][-1] += data


def of_command(command: Command) -> Metrics:
    """As that command would find it, each with a word said of it."""
    found = replace(made_up_metrics(), command=command)
    if command in ("compare", "calibrate"):
        found = replace(
            found, arms=[], curves=[one for one in found.curves if one.kind != "equity"]
        )
        found = replace(found, trials=replace(found.trials, configurations=[]))
    if command == "compare":
        found = replace(
            found,
            skills=[replace(one, variant=of) for of in VARIANTS for one in found.skills],
            directions=[replace(one, variant=of) for of in VARIANTS for one in found.directions],
        )
    if command == "ab":
        found = replace(found, arms=[one for one in found.arms if one.name != "never trades"])
    if command == "calibrate":
        found = replace(found, controls=[], probes=[], slices=[], directions=[], probabilities=[])
    return replace(found, readings=prose.readings(found, verdict_variant(found)))


def unknown(metrics: Metrics) -> Metrics:
    """The same with nothing known of it."""
    nothing = performance(None, 0)
    return replace(
        metrics,
        skills=[
            replace(one, skill=NOWHERE, p_value=None, p_adjusted=nan, detectable=None)
            for one in metrics.skills
        ],
        directions=[replace(one, accuracy=NOWHERE) for one in metrics.directions],
        probabilities=[
            replace(one, brier=nan, base_brier=nan, skill=NOWHERE, bins=[])
            for one in metrics.probabilities
        ],
        bands=[replace(one, before=NOWHERE, after=NOWHERE) for one in metrics.bands],
        arms=[
            replace(one, performance=nothing, difference=one.difference and NOWHERE)
            for one in metrics.arms
        ],
        controls=[replace(one, skill=NOWHERE, wide=NOWHERE) for one in metrics.controls],
        slices=[replace(one, skill=NOWHERE) for one in metrics.slices],
        trials=replace(
            metrics.trials,
            superior_p_value=nan,
            configurations=[replace(one, skill=NOWHERE) for one in metrics.trials.configurations],
        ),
        curves=[replace(one, value=[None] * len(one.value)) for one in metrics.curves],
    )


def page_of(metrics: Metrics, folder: Path) -> str:
    write_report(metrics, folder / "report.html")
    return (folder / "report.html").read_text(encoding="utf-8")


def shown(metrics: Metrics) -> str:
    told = io.StringIO()
    show_evaluation.study(Console(file=told, width=130), metrics, Path("out"))
    return told.getvalue()


def with_verdicts(metrics: Metrics, *verdicts: Verdict) -> Metrics:
    """What is judged has these verdicts in turn."""
    sure = [one for one in metrics.skills if one.reference == VERDICT_REFERENCE]
    rest = [one for one in metrics.skills if one.reference != VERDICT_REFERENCE]
    known = Interval(0.01, 0.005, 0.015)
    judged: list[Skill] = [
        replace(one, skill=known, verdict=verdicts[at % len(verdicts)])
        for at, one in enumerate(sure)
    ]
    return replace(metrics, skills=rest + judged)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("evaluate", "Better: similar past states forecast better than the base rate does"),
        ("compare", "Better: neighbours by “state” forecast better than the base rate does"),
        ("ab", "Better: with evidence earned more than indicators alone"),
    ],
)
def test_the_headline_names_what_the_command_judged(command: Command, said: str) -> None:
    assert prose.headline(replace(of_command(command), verdict="better")) == said


def test_where_the_plans_own_vector_was_not_compared_the_last_one_is_judged() -> None:
    metrics = of_command("compare")
    others = [one for one in metrics.skills if one.variant != "state"]
    assert "“prototype”" in prose.headline(replace(metrics, skills=others, verdict="worse"))


def test_better_here_and_worse_there_is_not_called_no_evidence() -> None:
    metrics = with_verdicts(of_command("evaluate"), "better", "worse")
    assert prose.headline(replace(metrics, verdict="no evidence")).startswith("Mixed: better than")
    metrics = with_verdicts(metrics, "better", "no evidence")
    assert prose.headline(replace(metrics, verdict="better")) == (
        "Better: similar past states forecast better than the base rate does"
    )


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("evaluate", "whether similar past states forecast better or worse than the base rate"),
        ("compare", "whether neighbours by “state” forecast better or worse than the base rate"),
        ("ab", "whether with evidence earned more or less than indicators alone"),
    ],
)
def test_without_an_interval_there_is_no_verdict_of_no_evidence(
    command: Command, said: str
) -> None:
    headline = prose.headline(unknown(of_command(command)))
    assert headline.startswith(f"Too little data to say {said}")
    assert prose.headline(of_command(command)).startswith("No evidence that ")


@pytest.mark.parametrize(
    ("forecasts", "earned", "said"),
    [
        ("better", "no evidence", "Skill in forecasting did not turn into earnings"),
        ("better", "better", "Skill in forecasting turned into earnings after costs"),
        ("no evidence", "better", "luck, until shown otherwise"),
        ("no evidence", "no evidence", "Neither forecasts nor earnings show anything"),
    ],
)
def test_readings_say_whether_skill_in_forecasting_turned_into_earnings(
    forecasts: Verdict, earned: Verdict, said: str
) -> None:
    metrics = with_verdicts(made_up_metrics(), forecasts)
    arms = [
        replace(one, name=RAG, verdict=earned) if one.name == "with evidence" else one
        for one in metrics.arms
    ]
    readings = prose.readings(replace(metrics, arms=arms), "state")
    assert said in " ".join(readings)
    assert not re.search(r"\b0 (earned|worse|less)", " ".join(readings))


def test_few_trades_are_said_to_show_little() -> None:
    metrics = made_up_metrics()
    arms = [replace(one, performance=performance(0.1, 3)) for one in metrics.arms]
    said = summary.of_earnings(metrics.skills, arms, "with evidence")
    assert "With so few trades, little could have been shown." in said
    assert "BTCUSDT: with evidence returned +0.10 % in 3 trades" in said


def test_kinds_of_neighbours_are_ranked_and_told_from_what_needs_none() -> None:
    worth = {"none": 0.01, "random": 0.008, "state": 0.03}
    one = replace(made_up_metrics().skills[0], reference="base rate")
    skills = [replace(one, variant=of, skill=Interval(at, at, at)) for of, at in worth.items()]
    said = remarks.of_variants(skills, "state")
    assert "best first: “state” +3.00 %, “none” +1.00 % and “random” +0.80 %" in said
    assert "So “state” is 2.00 points ahead of what needs no neighbours" in said
    assert "and 2.20 points ahead of neighbours drawn by chance" in said
    level = [*skills, replace(skills[0], variant="prototype", skill=skills[2].skill)]
    assert "and level with what this program" in remarks.of_variants(level, "state")
    said = remarks.of_variants(skills, "random")
    assert "So “random” is 0.20 points behind what needs no neighbours" in said


@pytest.mark.parametrize(
    ("whole", "own", "said"),
    [
        (0.05, 0.02, "Of that, +2.00 % is left once"),
        (0.05, -0.0007, "Nothing of that is left once"),
        (0.05, 0.06, "+5.00 % on average."),
        (-0.01, -0.02, "−1.00 % on average."),
    ],
)
def test_what_is_left_of_the_skill_is_said_only_where_something_is(
    whole: float, own: float, said: str
) -> None:
    one = made_up_metrics().skills[0]
    plain, alike = (
        replace(one, reference=of, skill=Interval(at, at - 0.001, at + 0.001))
        for of, at in (("base rate", whole), (VERDICT_REFERENCE, own))
    )
    (told,) = summary.of_plain([plain], [alike], one.variant)
    assert said in told
    assert told.endswith(said) or whole > own
    idle = replace(alike, skill=Interval(own, None, None))
    (told,) = summary.of_plain([plain], [idle], one.variant)
    assert "left" not in told
    lost = replace(plain, skill=Interval(whole, None, None))
    assert summary.of_plain([lost], [alike], one.variant) == []


def test_arms_are_counted_without_saying_that_none_cannot_be_told_apart() -> None:
    arms = made_up_metrics().arms
    assert "2 cannot be told from it" in remarks.of_arms(arms)
    better: list[Arm] = [
        replace(one, difference=Interval(0.02, 0.01, 0.03), verdict="better")
        if one.difference
        else one
        for one in arms
    ]
    said = remarks.of_arms(better)
    assert "4 earned more than it (with evidence and never trades) and none earned less." in said
    assert "cannot be told" not in said
    idle = [replace(one, difference=one.difference and NOWHERE) for one in arms]
    assert remarks.of_arms(idle).startswith("There is too little data to compare what was earned")


@pytest.mark.parametrize(
    ("so_far", "tested", "said"),
    [
        (1, 1, "There are too few days to test whether it beats the base rate."),
        (4, 3, "There are too few days to test whether the best of them beats the base rate."),
        (4, 0, "Whether the best of them beats the base rate was not tested."),
    ],
)
def test_why_trials_were_not_tested_is_said(so_far: int, tested: int, said: str) -> None:
    trials = replace(made_up_metrics().trials, so_far=so_far, tested=tested, superior_p_value=None)
    assert prose.of_trials(trials).endswith(said)


def test_a_sentence_on_curves_begins_like_one() -> None:
    curve = replace(made_up_metrics().curves[-1], value=[0.8, 0.9])
    found = [replace(curve, name=name) for name in ("over 1h", "over 4h")]
    assert remarks.of_curves(found, 100, 1, " %") == (
        "Over 1h between 80.0 % and 90.0 %; over 4h between 80.0 % and 90.0 %."
    )


def test_right_signs_have_no_mark_for_they_do_not_allow_for_their_number(tmp_path: Path) -> None:
    metrics = of_command("compare")
    clear = [replace(one, accuracy=Interval(0.6, 0.55, 0.65)) for one in metrics.directions]
    # Skills of exactly nothing have no mark either.
    same = [replace(one, skill=Interval(0, 0, 0)) for one in metrics.skills]
    metrics = replace(metrics, directions=clear, skills=same)
    signs = [cell for row in Balanced(page_of(metrics, tmp_path)).rows for cell in row]
    assert "60.0 %55.0 to 65.0 %" in signs
    assert not any("▲" in cell and "%" in cell for cell in signs)
    for line in shown(metrics).splitlines():
        assert "▲" not in line or line.startswith("Skill in %")
    assert "60.0 [55.0, 65.0]" in shown(metrics)


def test_the_terminal_counts_only_checks_that_could_have_failed() -> None:
    metrics = made_up_metrics()
    told = " ".join(shown(metrics).split())
    assert "controls: 5 of 5 as they should be; leak probes: 2 of 2 quiet; " in told
    controls = [replace(metrics.controls[0], wide=NOWHERE), *metrics.controls[1:]]
    probes = [replace(metrics.probes[0], checked=0), metrics.probes[1]]
    told = " ".join(shown(replace(metrics, controls=controls, probes=probes)).split())
    assert "controls: 4 of 4 as they should be, 1 had too little data; " in told
    assert "leak probes: 1 of 1 quiet, 1 had nothing to check; " in told


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("alter", [lambda found: found, unknown])
def test_pages_and_tables_of_every_command_are_whole(
    command: Command, alter: Any, tmp_path: Path
) -> None:
    metrics = alter(of_command(command))
    metrics = replace(metrics, readings=prose.readings(metrics, verdict_variant(metrics)))
    html = page_of(metrics, tmp_path)
    assert Balanced(html).open == []
    told = html.split("<main>")[1].split("</main>")[0]
    prose_only = re.sub(r"<script.*?</script>", "", told, flags=re.S)
    for text in (prose_only, shown(metrics)):
        assert not re.search(r"\b(nan|None|inf)\b", text)
    assert "…" not in shown(metrics)
    assert max(map(len, shown(metrics).splitlines())) <= 130


def test_a_comparison_has_every_kind_of_neighbours_beside_the_others(tmp_path: Path) -> None:
    metrics = of_command("compare")
    html = page_of(metrics, tmp_path)
    kinds = [row[1] for row in Balanced(html).rows if row[0] == "BTCUSDT" and row[1] in VARIANTS]
    assert kinds == 3 * list(VARIANTS)
    assert 'id="decisions"' not in html
    assert "All that follows is of “state”" in html
    for line in shown(metrics).splitlines():
        assert "Decisions" not in line


def test_a_test_of_two_arms_opens_with_their_decisions(tmp_path: Path) -> None:
    html = page_of(of_command("ab"), tmp_path)
    keys = re.findall(r'<section id="(\w+)"', html)
    assert keys[:4] == ["origin", "decisions", "controls", "probes"]
    assert "<title>No evidence: with evidence against indicators alone on BTCUSDT" in html


def test_a_failed_check_comes_before_every_number_in_the_terminal() -> None:
    metrics = made_up_metrics()
    above = Interval(0.02, 0.01, 0.03)
    failed = replace(metrics.controls[0], passed=False, skill=above, wide=above)
    told = shown(replace(metrics, controls=[failed], readings=["never said"]))
    assert prose.DISTRUST.upper() in told.splitlines()[1]
    said = "it found skill in data that holds none (skill +2.00 %)"
    assert said in " ".join(told.split())
    assert "never said" not in told


def test_neighbours_that_do_harm_where_there_is_nothing_to_know_are_told_of_and_no_failure() -> (
    None
):
    metrics = made_up_metrics()
    below = Interval(-0.02, -0.03, -0.01)
    harmful = replace(metrics.controls[0], skill=below, wide=below)
    told = prose.of_controls([harmful, *metrics.controls[1:]])
    assert "1 negative control came out worse than the base rate" in told
    assert not prose.distrust(replace(metrics, controls=[harmful]))


def test_a_control_without_an_interval_is_not_counted_as_passed(tmp_path: Path) -> None:
    metrics = made_up_metrics()
    idle = [replace(one, wide=NOWHERE, skill=NOWHERE) for one in metrics.controls[:4]]
    metrics = replace(metrics, controls=[*idle, *metrics.controls[4:]])
    assert any("4 controls had too little data to fail" in gap for gap in prose.unchecked(metrics))
    assert prose.of_controls(metrics.controls).startswith("1 positive control found what")
    rows = Balanced(page_of(metrics, tmp_path)).rows
    assert [row[-1] for row in rows if row[:2] == ["wrong symbol", "negative"]] == [
        "too little data"
    ]
    lost = replace(metrics.controls[4], wide=NOWHERE, skill=NOWHERE, passed=False)
    assert "too little data for a result" in prose.distrust(replace(metrics, controls=[lost]))[0]


def test_a_symbol_that_was_not_probed_is_named() -> None:
    metrics = made_up_metrics()
    probes = [replace(one, checked=9 * (one.symbol == "BTCUSDT")) for one in metrics.probes]
    told = prose.unchecked(replace(metrics, probes=probes))
    assert told == ["Nothing was probed for knowledge of the future on ETHUSDT."]


def test_a_gate_says_first_what_stops_it() -> None:
    fell = Change(symbol="BTCUSDT", horizon="1h", before=0.016, now=0.01, regressed=True)
    gone = Change(symbol="BTCUSDT", horizon="4h", before=0.016, now=None, regressed=True)
    report = GateReport(
        passed=False, problems=["skill [fell]"], notes=["older"], changes=[fell, gone]
    )
    told = io.StringIO()
    show_evaluation.gate_report(Console(file=told, width=130), report)
    first, second, third, *_ = told.getvalue().splitlines()
    assert [first.strip(), second.strip(), third.strip()] == [
        "✗ STOPPED: 1 reason",
        "skill [fell]",
        "note: older",
    ]
    cells = [line.split() for line in told.getvalue().splitlines() if "BTCUSDT" in line]
    assert [row[-1] for row in cells] == ["worse", "missing"]
    assert "−0.60" in cells[0]
