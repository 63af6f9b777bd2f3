from __future__ import annotations

import io
import re
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from msgspec.structs import replace

from llm_trader.cli import show_evaluation
from llm_trader.cli.output import Description, describe
from llm_trader.evaluation.report import wording
from llm_trader.evaluation.results import Command, Metrics
from llm_trader.evaluation.verdict.gate import Change, GateReport
from llm_trader.retrieval.intervals import Interval
from tests.evaluation.report.metrics import (
    COMMANDS,
    UNKNOWN,
    made_up_metrics,
    metrics_of_command,
    unknown,
    with_readings,
)


def shown(metrics: Metrics, columns: int = 130) -> str:
    return printed(show_evaluation.describe_study(metrics, Path("out")), columns)


def printed(description: Description, columns: int = 130) -> str:
    output = io.StringIO()
    with redirect_stdout(output), pytest.MonkeyPatch.context() as environ:
        environ.setenv("COLUMNS", str(columns))
        describe(description)
    return output.getvalue()


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("alter", [lambda metrics: metrics, unknown])
@pytest.mark.parametrize("columns", [60, 80, 130])
def test_tables_of_every_command_are_whole(
    command: Command, alter: Callable[[Metrics], Metrics], columns: int
) -> None:
    text = shown(with_readings(alter(metrics_of_command(command))), columns)
    assert not re.search(r"\b(nan|None|inf)\b", text)
    assert "…" not in text
    assert max(len(row.rstrip()) for row in text.splitlines()) <= columns


def test_a_comparison_shows_no_decisions() -> None:
    assert "Decisions" not in shown(metrics_of_command("compare"))


def test_right_signs_have_no_mark_as_they_do_not_allow_for_their_number() -> None:
    metrics = metrics_of_command("compare")
    clear = [replace(hits, accuracy=Interval(0.6, 0.55, 0.65)) for hits in metrics.directions]
    # Skills of exactly nothing have no mark either.
    same = [replace(skill, skill=Interval(0, 0, 0)) for skill in metrics.skills]
    text = shown(replace(metrics, directions=clear, skills=same))
    for line in text.splitlines():
        assert "▲" not in line or line.startswith("Skill in %")
    assert "60.0 [55.0, 65.0]" in text


def test_forecasts_that_are_those_of_the_volatility_model_are_called_the_same() -> None:
    lines = shown(made_up_metrics()).splitlines()
    (heading,) = [line for line in lines if "random direction" in line]
    verdicts = {
        tuple(line.split()[:2]): line[heading.index("verdict") :].strip()
        for line in lines[lines.index(heading) :]
        if line.split()[:1] in (["BTCUSDT"], ["ETHUSDT"]) and "[" in line
    }
    assert verdicts["BTCUSDT", "24h"] == "the same"
    assert verdicts["BTCUSDT", "4h"] == "no evidence"
    lines = shown(metrics_of_command("compare")).splitlines()
    (start,) = [
        row for row, line in enumerate(lines) if "over the volatility model, 95 % intervals" in line
    ]
    rows = [line for line in lines[start:] if line.split()[:2] == ["BTCUSDT", "state"]]
    assert rows[0].rstrip().endswith("the same")


def test_only_checks_that_could_have_failed_are_counted() -> None:
    metrics = made_up_metrics()
    text = " ".join(shown(metrics).split())
    assert "controls: 5 of 5 passed; leak probes: 2 of 2 found nothing; " in text
    controls = [replace(metrics.controls[0], wide=UNKNOWN), *metrics.controls[1:]]
    probes = [replace(metrics.probes[0], checked=0), metrics.probes[1]]
    text = " ".join(shown(replace(metrics, controls=controls, probes=probes)).split())
    assert "controls: 4 of 4 passed, 1 had too little data; " in text
    assert "leak probes: 1 of 1 found nothing, 1 had nothing to check; " in text


def test_a_failed_check_comes_before_every_number() -> None:
    metrics = made_up_metrics()
    above = Interval(0.02, 0.01, 0.03)
    failed = replace(metrics.controls[0], passed=False, skill=above, wide=above)
    text = shown(replace(metrics, controls=[failed], readings=["never shown"]))
    assert wording.DISTRUST.upper() in text.splitlines()[1]
    failure = "it found skill in data that holds none (skill +2.00 %)"
    assert failure in " ".join(text.split())
    assert "never shown" not in text


def test_a_gate_says_first_what_stops_it() -> None:
    fell = Change(symbol="BTCUSDT", horizon="1h", before=0.016, now=0.01, regressed=True)
    gone = Change(symbol="BTCUSDT", horizon="4h", before=0.016, now=None, regressed=True)
    report = GateReport(
        passed=False, problems=["skill [fell]"], notes=["older"], changes=[fell, gone]
    )
    text = printed(show_evaluation.describe_gate(report))
    first, second, third, *_ = text.splitlines()
    assert [first.strip(), second.strip(), third.strip()] == [
        "✗ STOPPED: 1 reason",
        "skill [fell]",
        "note: older",
    ]
    cells = [line.split() for line in text.splitlines() if "BTCUSDT" in line]
    assert [row[-1] for row in cells] == ["worse", "missing"]
    assert "−0.60" in cells[0]
