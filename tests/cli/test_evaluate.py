"""`llm-trader evaluate` and its subcommands: what they write, show and refuse."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llm_trader.app import evaluation
from llm_trader.evaluation import result_files, study
from llm_trader.evaluation.report import wording
from llm_trader.evaluation.results import Control, Metrics
from llm_trader.evaluation.verdict.gate import read_metrics
from llm_trader.evaluation.verdict.multiple_testing import FOLDER
from llm_trader.market.store import MarketStore
from llm_trader.timeframe import DAY_MS
from tests.cli.conftest import Typed, Typing
from tests.cli.corridor import (
    START_MS,
    SYMBOL,
    SYMBOLS,
    Corridor,
    console_script,
    copied,
    until,
    write,
)
from tests.cli.test_leaks import tamper
from tests.evaluation.report.metrics import made_up_metrics

FILES = {"metrics.json", "steps.csv", "trades.csv", "report.html"}
CONFIG = """
reps = 100

[search]
lookback_days = 5
neighbours = 15
gap_hours = 3.0

[aggregator]
least_mean_bp = 5
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "plan.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[Control]:
    """Controls that take no time; what is in the list is what they found."""
    controls = list(made_up_metrics().controls)
    monkeypatch.setattr(study, "market_controls", lambda *of: controls[:4])
    monkeypatch.setattr(study, "simulated_controls", lambda *of: controls[4:])
    return controls


@pytest.fixture
def line(corridor: Corridor, config: Path) -> str:
    """Options of a short evaluation of one symbol, in this process."""
    return (
        f"--store {corridor.store} --plan {config} --symbols {SYMBOL} --step 1h --jobs 1 "
        "--start 2025-02-03T00:00:00Z --end 2025-02-15T00:00:00Z"
    )


def metrics_in(folder: Path) -> Metrics:
    # In JSON what is not known is null.
    plain = json.loads((folder / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert isinstance(plain, dict)
    return plain  # type: ignore[return-value]


def refused(ran: Typed, told: str) -> None:
    assert (ran.code, ran.out) == (2, "")
    assert told in ran.err
    assert "Traceback" not in ran.err


# --- evaluate


def test_it_writes_four_files_and_shows_the_verdict(
    typed: Typing, line: str, quick: list[Control], tmp_path: Path
) -> None:
    out = tmp_path / "deep" / "reports"
    ran = typed(f"llm-trader evaluate {line} --out {out}")
    assert (ran.code, ran.err) == (0, "")
    assert {path.name for path in out.iterdir()} == {*FILES, FOLDER}
    assert len(list((out / FOLDER).iterdir())) == 1
    found: Any = metrics_in(out)
    assert found["origin"]["symbols"] == [SYMBOL]
    assert found["origin"]["start"] == "2025-02-03T00:00:00Z"
    assert found["origin"]["plan"]["search"]["neighbours"] == 15
    assert {cell["by"] for cell in found["band_cells"]} == {"expected / last 24h", "hour (UTC)"}
    assert all(isinstance(one["potential"], float) for one in found["skills"])
    over_model = {
        one["horizon"]: one["skill"]["value"]
        for one in found["skills"]
        if one["reference"] == "volatility model"
    }
    # Over 24h the volatility model forecasts alone.
    assert [name for name, value in over_model.items() if value == 0] == ["24h"]
    said = f"{found['verdict'].capitalize()}(:| that) similar past states forecast "
    assert re.search(said, " ".join(ran.out.split()))
    assert str(out / "report.html") in ran.out
    for name in study.STRATEGIES:
        assert f" {name} " in ran.out


@pytest.mark.soak
def test_states_without_open_interest_are_evaluated_and_counted(
    typed: Typing, corridor: Corridor, line: str, quick: list[Control], tmp_path: Path
) -> None:
    history, out = corridor.histories[SYMBOL], tmp_path / "out"
    half_ms = START_MS + 38 * DAY_MS
    with MarketStore.open(tmp_path / "store", write=True, exchange="simulated") as store:
        interest = history.open_interest.between(half_ms, None)
        write(store, replace(history, open_interest=interest))
    of_part = line.replace(str(corridor.store), str(tmp_path / "store"))
    ran = typed(f"llm-trader evaluate {of_part} --out {out}")
    assert (ran.code, ran.err) == (0, "")
    found: Any = metrics_in(out)
    partial = found["origin"]["partial_states"][SYMBOL]
    assert 100 < partial < 20 * 96
    assert [probe["problem"] for probe in found["probes"]] == [None, None]
    assert all(probe["checked"] for probe in found["probes"])
    page = (out / "report.html").read_text()
    assert f"{partial} on {SYMBOL} lack open interest or funding" in page


@pytest.mark.soak
def test_json_is_the_file(typed: Typing, line: str, quick: list[Control], tmp_path: Path) -> None:
    ran = typed(f"llm-trader evaluate {line} --json --sweep --out {tmp_path}")
    assert (ran.code, ran.err) == (0, "")
    assert ran.json == metrics_in(tmp_path)
    assert ran.json["trials"]["so_far"] == 1 + len(ran.json["origin"]["plan"]["sweep"])


def test_a_control_that_fails_is_exit_code_one_and_said_in_place_of_the_verdict(
    typed: Typing, line: str, quick: list[Control], tmp_path: Path
) -> None:
    quick[0] = msgspec.structs.replace(quick[0], passed=False)
    ran = typed(f"llm-trader evaluate {line} --out {tmp_path}")
    assert ran.code == 1
    assert wording.DISTRUST.lower() in ran.out.lower()
    assert f"“{quick[0].name}” failed" in " ".join(ran.out.split())
    assert ran.out.lower().index(wording.DISTRUST.lower()) < ran.out.index("Skill")
    assert {path.name for path in tmp_path.iterdir()} >= FILES


@pytest.mark.soak
def test_as_a_process_of_its_own_with_its_controls(line: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [console_script("llm-trader"), "evaluate", *line.split()]
    ran = subprocess.run(
        # As far back, and with as many neighbours, as the planted pattern takes to be found.
        [*command, "--lookback-days", "10", "--step", "2h", "--jobs", "2", "--out", str(out)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    found: Any = metrics_in(out)
    assert [one["passed"] for one in found["controls"]] == [True] * 12
    assert [one["problem"] for one in found["probes"]] == [None] * 2
    assert {path.name for path in out.iterdir()} == {*FILES, FOLDER}


@pytest.mark.soak
def test_an_index_gives_what_its_store_does_unless_it_was_tampered_with(
    typed: Typing, corridor: Corridor, line: str, quick: list[Control], tmp_path: Path
) -> None:
    tampered = copied(corridor.index, tmp_path / "tampered")
    asyncio.run(tamper(tampered))
    found: list[Any] = []
    for name, more in (
        ("store", ""),
        ("index", f"--index {corridor.index}"),
        ("tampered", f"--index {tampered}"),
    ):
        ran = typed(f"llm-trader evaluate {line} {more} --json --out {tmp_path / name}")
        assert (ran.code, ran.err) == (1 if name == "tampered" else 0, "")
        found.append(ran.json)
    for part in ("skills", "arms", "bands", "probes"):
        assert found[1][part] == found[0][part]
    assert found[1]["origin"]["data_digest"] == found[0]["origin"]["data_digest"]
    told = [one["problem"] for one in found[2]["probes"]]
    assert told[0] is None
    assert told[1].startswith("outcome_1h of points is another, as known at 2025-02-")


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("--store /nowhere/store", "no market store at /nowhere/store"),
        ("--symbols DOGEUSDT", "DOGEUSDT"),
        ("--start 2025-02-20T00:00:00Z", "nothing to evaluate from"),
        ("--start yesterday", "yesterday"),
        ("--step 7m", "step_minutes 7 does not divide a day"),
        ("--step 1x", "timeframe '1x' is not like 3m, 4h or 1d"),
        ("--vector colour", "is not one of 'state', 'text'"),
        ("--vector text", "index"),
        ("--lookback-days 0", "$.search.lookback_days"),
        ("--jobs 0", "Invalid value for '--jobs'"),
        ("--plan /nowhere/plan.toml", "cannot read /nowhere/plan.toml"),
        ("--out /dev/null/reports", "cannot write to /dev/null/reports"),
    ],
)
def test_what_cannot_be_evaluated_is_exit_code_two_and_writes_nothing(
    typed: Typing, line: str, tmp_path: Path, more: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    refused(typed(f"llm-trader evaluate {line} {more}"), told)
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("serach = 1", "`serach`"),
        ("[search]\nepisods = 1", "`episods`"),
        ("[rules.2h]", "rules of 2h: the horizons are 15m, 1h, 4h, 24h"),
        ("seed = ", "is not TOML"),
        ('[[sweep]]\nlabel = "a"\n[sweep.search]\nepisods = 1', "the sweep's 'a'"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_named_with_the_key(
    typed: Typing, line: str, tmp_path: Path, text: str, told: str
) -> None:
    path = tmp_path / "typo.toml"
    path.write_text(text)
    ran = typed(f"llm-trader evaluate {line} --plan {path} --out {tmp_path / 'out'}")
    refused(ran, told)
    assert told == "the sweep's 'a'" or str(path) in ran.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("missing", ["arch", "jinja2", "plotly"])
def test_without_the_extra_the_remedy_is_named_before_any_work(
    typed: Typing, line: str, tmp_path: Path, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "find_spec", lambda name: None if name == missing else object())
    monkeypatch.setattr(evaluation, "read_dataset", lambda *of, **more: pytest.fail("it was read"))
    ran = typed(f"llm-trader evaluate {line} --out {tmp_path / 'out'}")
    refused(ran, 'pip install "llm-trader-rag[eval]"')
    assert missing in ran.err


def test_a_plan_given_as_the_settings_is_refused_with_the_option_it_belongs_to(
    typed: Typing, config: Path, tmp_path: Path
) -> None:
    for command in ("evaluate", "evaluate compare", "calibrate"):
        ran = typed(f"llm-trader {command} --config {config} --out {tmp_path / 'out'}")
        refused(
            ran, f"{config} is the plan of an evaluation, and --config takes a file of settings"
        )
        assert f"--plan {config}" in ran.err


def test_the_settings_of_an_evaluation_come_from_a_file_as_of_any_command(
    typed: Typing, line: str, tmp_path: Path
) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text("[snapshot]\ninterval_minutes = 45\n")
    ran = typed(f"llm-trader evaluate {line} --config {settings} --out {tmp_path / 'out'}")
    refused(ran, "a step of 60 minutes is not a multiple of the 45")


def test_options_that_would_go_unheard_are_refused(typed: Typing, line: str) -> None:
    ran = typed(f"llm-trader evaluate --seed 3 compare {line}")
    refused(ran, "Invalid value for '--seed': give it after `compare`")


# --- An evaluation that ends too early


@pytest.mark.soak
def test_an_evaluation_that_is_killed_while_it_writes_leaves_the_earlier_result_as_it_was(
    line: str, tmp_path: Path
) -> None:
    """Killed while the last file is half written, when all else is done."""
    earlier = {name: f"an earlier {name}".encode() for name in FILES}
    for name, content in earlier.items():
        (tmp_path / name).write_bytes(content)
    code = f"""
import os, signal, sys
from llm_trader.cli.main import main
from llm_trader.evaluation import result_files, study
def die(metrics, path):
    path.write_text("<html>")
    os.kill(os.getpid(), signal.SIGKILL)
result_files.write_report = die
study.market_controls = study.simulated_controls = lambda *of: []
sys.argv = ["llm-trader", "evaluate", *{line.split()!r}, "--out", {str(tmp_path)!r}]
main()
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (-signal.SIGKILL, "", "")
    assert {name: (tmp_path / name).read_bytes() for name in FILES} == earlier
    # What was tried was tried.
    assert len(list((tmp_path / FOLDER).glob("*.json"))) == 1


def test_a_file_that_cannot_be_written_leaves_nothing_behind(
    typed: Typing, line: str, quick: list[Control], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(metrics: Metrics, path: Path) -> None:
        path.write_text("<html>")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(result_files, "write_report", full)
    out = tmp_path / "out"
    ran = typed(f"llm-trader evaluate {line} --out {out}")
    refused(ran, f"cannot write to {out}: No space left on device")
    assert [path.name for path in out.iterdir()] == [FOLDER]


def test_ctrl_c_ends_it_at_once_and_without_a_traceback(line: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [console_script("llm-trader"), "evaluate", *line.split(), "--out", str(out)]
    with subprocess.Popen(
        [*command, "--jobs", "2", "--step", "15m"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=tmp_path,
    ) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        # The resource tracker and two workers.
        assert until(lambda: len(children.read_text().split()) >= 3, seconds=30)
        os.killpg(process.pid, signal.SIGINT)
        out_text, err = process.communicate(timeout=20)
    assert (process.returncode, out_text) == (130, "")
    assert err == "interrupted; nothing was changed\n"
    assert not out.exists()


# --- compare and ab


@pytest.mark.soak
def test_compare_shows_each_way_to_look_for_neighbours(
    typed: Typing, line: str, quick: list[Control], tmp_path: Path
) -> None:
    ran = typed(f"llm-trader evaluate compare --vectors none,state {line} --out {tmp_path}")
    assert (ran.code, ran.err) == (0, "")
    found: Any = metrics_in(tmp_path)
    assert found["command"] == "compare"
    assert [one["variant"] for one in found["directions"]] == ["state"] * 3
    judged = [one for one in found["skills"] if one["reference"] == "base rate"]
    assert [one["variant"] for one in judged] == ["none"] * 4 + ["state"] * 4
    assert {path.name for path in tmp_path.iterdir()} >= FILES


@pytest.mark.parametrize(
    ("vectors", "told"),
    [
        ("state,colour", "there is no vector 'colour'; known: none, random, state, text"),
        (",", "name vectors to compare"),
        ("text", "index"),
    ],
)
def test_vectors_that_cannot_be_compared_are_refused(
    typed: Typing, line: str, tmp_path: Path, vectors: str, told: str
) -> None:
    ran = typed(f"llm-trader evaluate compare --vectors {vectors} {line} --out {tmp_path / 'o'}")
    refused(ran, told)


def test_ab_trades_two_arms(typed: Typing, line: str, quick: list[Control], tmp_path: Path) -> None:
    ran = typed(f"llm-trader evaluate ab --arm-a hold --arm-b rag {line} --out {tmp_path}")
    assert (ran.code, ran.err) == (0, "")
    found: Any = metrics_in(tmp_path)
    assert [one["name"] for one in found["arms"]] == ["hold", "rag"]
    (judged,) = [one["verdict"] for one in found["arms"] if one["difference"]]
    assert (found["command"], found["verdict"]) == ("ab", judged)


@pytest.mark.parametrize(
    ("arms", "told"),
    [
        ("--arm-b oracle", "there is no arm 'oracle'; known: rag, baseline"),
        ("--arm-a rag", "both arms are 'rag'"),
        ("--decider oracle", "is not one of 'aggregator'"),
    ],
)
def test_arms_that_cannot_be_compared_are_refused_before_any_work(
    typed: Typing, line: str, arms: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "read_dataset", lambda *of, **more: pytest.fail("it was read"))
    refused(typed(f"llm-trader evaluate ab {arms} {line}"), told)


# --- gate


@pytest.fixture
def baseline(
    typed: Typing, corridor: Corridor, config: Path, quick: list[Control], tmp_path: Path
) -> Path:
    """Of all symbols, from the first time that can be asked about to the last."""
    out = tmp_path / "baseline"
    given = f"--store {corridor.store} --plan {config} --step 2h --jobs 1"
    assert typed(f"llm-trader evaluate {given} --out {out}").code == 0
    return out / "metrics.json"


def edited(path: Path, change: float) -> Path:
    """As if the skills had been higher by this much then."""
    plain = json.loads(path.read_text())
    for one in plain["skills"]:
        one["skill"]["value"] += change
    other = path.with_name("edited.json")
    other.write_text(json.dumps(plain))
    return other


@pytest.mark.soak
def test_an_evaluation_passes_the_gate_of_itself_and_stops_at_a_higher_one(
    typed: Typing, corridor: Corridor, baseline: Path, tmp_path: Path
) -> None:
    out = tmp_path / "again"
    gate = f"llm-trader evaluate gate --store {corridor.store} --jobs 1 --out {out}"
    ran = typed(f"{gate} --baseline {baseline} --json")
    assert (ran.code, ran.err) == (0, "")
    report = ran.json
    assert (report["passed"], report["problems"], report["notes"]) == (True, [], [])
    assert [one["now"] for one in report["changes"]] == [one["before"] for one in report["changes"]]
    assert len(report["changes"]) == 4 * len(SYMBOLS)
    assert read_metrics(out / "metrics.json").origin.data_digest == (
        read_metrics(baseline).origin.data_digest
    )

    higher = edited(baseline, 0.003)
    judged = f"llm-trader evaluate gate --metrics {out / 'metrics.json'} --baseline {higher}"
    ran = typed(judged)
    assert (ran.code, ran.err) == (1, "")
    assert "stopped" in ran.out.lower()
    assert "skill fell from" in ran.out
    ran = typed(f"{judged} --tolerance 0.4")
    assert ran.code == 0
    assert "passed" in ran.out.lower()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("--baseline /nowhere/metrics.json", "cannot read /nowhere/metrics.json"),
        ("--baseline {plan}", "plan.toml is not the metrics.json of an evaluation"),
        ("", "Missing option '--baseline'"),
        ("--baseline {plan} --tolerance -1", "Invalid value for '--tolerance'"),
    ],
)
def test_a_gate_without_a_baseline_is_exit_code_two(
    typed: Typing, config: Path, arguments: str, told: str
) -> None:
    refused(typed(f"llm-trader evaluate gate {arguments.format(plan=config)}"), told)
