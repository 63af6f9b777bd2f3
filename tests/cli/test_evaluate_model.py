"""`evaluate reads` and `evaluate ab --decider llm`, on the corridor and a stand-in for a model.

The stand-in is asked by the unmodified SDK. It reads the mean over 4h out of the prompt, or not.
"""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from typer import Abort

from llm_trader.app import decider_studies, decisions
from llm_trader.app.evaluation import StudyInputs, make_plan
from llm_trader.app.job import Job
from llm_trader.app.llm_deciders import DeciderChoice
from llm_trader.cli.evaluate import ModelOptions
from llm_trader.evaluation import study
from llm_trader.evaluation.result_files import EARLIER
from llm_trader.llm.record.decisions import DecisionFilter
from llm_trader.llm.record.record import DecisionRecord
from tests.cli.conftest import Typed, Typing
from tests.cli.corridor import END_MS, SYMBOL, Corridor, console_script
from tests.evaluation.report.metrics import made_up_metrics
from tests.llm.stub.faults import Status
from tests.llm.stub.replies import StubRequest
from tests.llm.stub.server import TEST_KEY, StubServer

_MEAN_OVER_4H = re.compile(r"^4h: [^|]+\| ([+-]?[\d.]+) \[", re.MULTILINE)
PLAN = """
reps = 100

[search]
lookback_days = 5
neighbours = 15
gap_hours = 3.0
"""


def reply(action: str) -> str:
    fields = {"stop_pct": None, "target_pct": None, "size_pct": None}
    said = {"reasoning": "As told.", "action": action, "confidence": 0.6}
    return json.dumps(said | fields)


def follow(request: StubRequest) -> str:
    mean = _MEAN_OVER_4H.search(request.prompt)
    return reply("HOLD" if mean is None else "LONG" if float(mean[1]) > 0 else "SHORT")


def ignore(request: StubRequest) -> str:
    """By the last digit of the RSI, whatever the evidence."""
    rsi = re.search(r"RSI\(7\) (\d+\.\d)", request.prompt)
    assert rsi is not None
    return reply("LONG" if rsi[1][-1] in "02468" else "SHORT")


@pytest.fixture(scope="module")
def running_model() -> Iterator[StubServer]:
    with StubServer() as stub:
        yield stub


@pytest.fixture
def model(running_model: StubServer) -> Iterator[StubServer]:
    running_model.clear()
    running_model.decide = follow
    yield running_model
    assert running_model.failures == []


@pytest.fixture
def config(tmp_path: Path, model: StubServer) -> Path:
    path = tmp_path / "settings.toml"
    path.write_text(
        f"""
[llm]
provider = "openai-compatible"
model = "stand-in"
base_url = "{model.url}/v1"
requests_per_minute = 100000
input_usd_per_mtok = 1.0
output_usd_per_mtok = 4.0
max_retries = 0

[decisions]
record = "{tmp_path / "record"}"
"""
    )
    return path


@pytest.fixture
def line(corridor: Corridor, config: Path, tmp_path: Path) -> str:
    plan = tmp_path / "plan.toml"
    plan.write_text(PLAN)
    return (
        f"--store {corridor.store} --config {config} --plan {plan} --symbols {SYMBOL} --jobs 1 "
        f"--start 2025-02-08T00:00:00Z --end 2025-02-26T00:00:00Z --out {tmp_path / 'out'}"
    )


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    controls = list(made_up_metrics().controls)
    monkeypatch.setattr(study, "market_controls", lambda *of: controls[:4])
    monkeypatch.setattr(study, "simulated_controls", lambda *of: controls[4:])


def found(tmp_path: Path, name: str = "reads.json") -> Any:
    return json.loads((tmp_path / "out" / name).read_text(), parse_constant=pytest.fail)


def effect(tmp_path: Path, alteration: str) -> Any:
    effects = found(tmp_path)["subject"]["effects"]
    return next(one for one in effects if one["alteration"] == alteration)


READS = "llm-trader evaluate reads --step 1h --states 12"
AB = "llm-trader evaluate ab --decider llm --step 4h"
# Calls that a process that is killed may lose.
UNDER_WAY = 10


# --- reads


def test_a_model_that_follows_the_evidence_reads_it_and_a_repeated_study_pays_nothing(
    typed: Typing, line: str, model: StubServer, tmp_path: Path
) -> None:
    ran = typed(f"{READS} {line} --yes")
    assert ran.code == 0, ran.err
    assert "Stand-in of openai-compatible reads its evidence." in ran.out
    assert "60 decisions; 60 calls cost about $0." in ran.err
    first, asked = found(tmp_path), len(model.requests)
    assert asked == 60
    assert first["subject"]["verdict"] == "reads it"
    price = first["subject"]["price"]
    assert price["decisions"] == 60
    assert 0 < price["per_decision_usd"] < 0.01
    assert price["new_usd"] == price["total_usd"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<h1>Stand-in of openai-compatible reads its evidence.</h1>" in page
    assert "http" not in page.replace("http-equiv", "")
    with DecisionRecord.open(tmp_path / "record", create=False) as record:
        kept = record.decisions.summaries(DecisionFilter(origin="evaluate reads"), 1000)
    assert Counter(one.labels["variant"] for one in kept) == dict.fromkeys(
        ("original", "repeat", "flip", "shuffle", "removal"), 12
    )
    for more in ("", " --provider replay"):
        again = typed(f"{READS} {line}{more}")
        assert again.code == 0, again.err
        assert "60 decisions, all on record: nothing to pay" in again.err
        assert len(model.requests) == asked
        second = found(tmp_path)
        assert second["model"] == "stand-in"
        assert second["subject"]["effects"] == first["subject"]["effects"]
        assert second["subject"]["price"]["new_usd"] == 0
        assert second["subject"]["price"]["total_usd"] == price["total_usd"]
    assert (tmp_path / "out" / EARLIER).is_dir()


def test_nobody_pays_without_agreeing_to_a_price_that_a_day_allows(
    typed: Typing, line: str, model: StubServer, config: Path
) -> None:
    ran = typed(f"{READS} {line}")
    assert ran.code == 2
    assert re.search(r"nobody agreed to the price: .* cost about \$0\.\d+, at most \$", ran.err)
    assert "--yes" in ran.err
    text = config.read_text().replace("[decisions]", "daily_budget_usd = 0.01\n\n[decisions]")
    config.write_text(text)
    ran = typed(f"{READS} {line} --yes")
    assert ran.code == 2
    assert "the 0.01 USD that a day may cost (llm.daily_budget_usd) 0.00 are spent" in ran.err
    assert not model.requests


def test_failed_calls_are_counted_and_end_no_study(
    typed: Typing, line: str, model: StubServer, tmp_path: Path
) -> None:
    model.script(*[Status(500), None, Status(400), None] * 3)
    few = f"{READS.replace('12', '5')} {line} --yes"
    ran = typed(few)
    assert ran.code == 0
    flip = effect(tmp_path, "flip")
    assert flip["errors"] > 0
    assert flip["states"] + flip["errors"] == 5
    assert "A decision failed on" in ran.out
    # What failed is asked again by the next run, and nothing else is.
    before = model.arrivals
    assert typed(few).code == 0
    assert model.arrivals - before == 6
    assert effect(tmp_path, "flip")["errors"] == 0


def test_who_sits_at_a_terminal_is_asked_and_may_say_no(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    estimate = decider_studies.Estimate(
        decisions=1000,
        recorded=250,
        missing=0,
        expected_usd=Decimal("1.234"),
        at_most_usd=Decimal("9.87"),
        minutes=750.0,
    )
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    with pytest.raises(Abort):
        ModelOptions().approve(estimate)
    asked = capsys.readouterr().err
    assert "1,000 decisions, 250 of them on record; 750 calls cost about $1.23" in asked
    assert "at most $9.87" in asked
    assert "12.5 hours" in asked
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    ModelOptions().approve(estimate)


@pytest.mark.soak
def test_a_model_that_never_looks_at_the_evidence_ignores_it(
    typed: Typing, line: str, model: StubServer, tmp_path: Path
) -> None:
    model.decide = ignore
    both = line.replace(f"--symbols {SYMBOL}", "--symbols BTCUSDT,ETHUSDT")
    both = both.replace("--start 2025-02-08", "--start 2025-01-30")
    ran = typed(f"llm-trader evaluate reads --step 1h --states 100 {both} --yes")
    assert ran.code == 0
    metrics = found(tmp_path)
    assert metrics["subject"]["verdict"] == "ignores it"
    assert effect(tmp_path, "flip")["changed"]["value"] == 0
    assert [control["verdict"] for control in metrics["controls"]] == ["reads it", "ignores it"]


@pytest.mark.soak
def test_rules_are_asked_for_nothing(typed: Typing, line: str, model: StubServer) -> None:
    both = line.replace(f"--symbols {SYMBOL}", "--symbols BTCUSDT,ETHUSDT")
    both = both.replace("--start 2025-02-08", "--start 2025-01-30")
    plan = both.partition("--plan ")[2].split()[0]
    Path(plan).write_text(PLAN + "\n[aggregator]\nleast_mean_bp = 5\nleast_similarity = 0.1\n")
    for rule, verdict in (("macd-sign", "ignores it"), ("aggregator", "reads it")):
        ran = typed(f"llm-trader evaluate reads --states 100 {both} --decider {rule} --json")
        assert ran.code == 0
        assert ran.json["subject"]["verdict"] == verdict
        assert ran.json["subject"]["price"]["total_usd"] == 0
    assert not model.requests


@pytest.mark.soak
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_study_that_is_ended_resumes_and_pays_for_nothing_twice(
    typed: Typing,
    line: str,
    model: StubServer,
    config: Path,
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    # As many calls are under way at once as this rate allows within the timeout.
    slower = f"requests_per_minute = {60 * UNDER_WAY}\ntimeout_s = 1.0"
    config.write_text(config.read_text().replace("requests_per_minute = 100000", slower))

    def slowly(request: StubRequest) -> str:
        time.sleep(0.02)
        return follow(request)

    model.decide = slowly
    process = subprocess.Popen(
        [console_script("llm-trader"), *f"{READS} {line} --yes".split()[1:]],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while len(model.requests) < 20 and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert len(model.requests) < 60
    if number == signal.SIGINT:
        assert (process.returncode, "finished work is kept" in err) == (130, True)
    model.decide = follow
    assert typed(f"{READS} {line} --yes").code == 0
    # Replies that were on record are not asked for again; those that were under way when it was
    # killed are, once. Ctrl-C waits for them.
    repeated = len(model.requests) - 60
    assert 0 <= repeated <= (UNDER_WAY if number == signal.SIGKILL else 0)
    metrics = found(tmp_path)
    assert metrics["subject"]["price"]["decisions"] == 60
    assert effect(tmp_path, "flip")["errors"] == 0
    with DecisionRecord.open(tmp_path / "record", create=False) as record:
        assert len(record.decisions.summaries(DecisionFilter(), 1000)) == 60


# --- ab


@pytest.mark.usefixtures("quick")
def test_a_model_is_compared_with_itself_without_evidence(
    typed: Typing, line: str, model: StubServer, tmp_path: Path
) -> None:
    line = line.replace("--start 2025-02-08", "--start 2025-02-24")
    ran = typed(f"{AB} {line} --yes --masked --account-usd 1000")
    assert ran.code == 0, ran.err
    metrics, states = found(tmp_path, "metrics.json"), 12 + 1
    assert len(model.requests) == 4 * states
    study_of = metrics["decider"]
    assert (study_of["model"], study_of["knowledge_cutoff"]) == ("stand-in", None)
    arms = {arm["arm"]: arm for arm in study_of["arms"]}
    assert list(arms) == ["baseline", "rag", "baseline masked", "rag masked"]
    # Without evidence the stand-in holds, with it never.
    assert arms["baseline"]["actions"] == {"HOLD": states}
    assert sum(arms["rag"]["actions"].values()) == states
    assert "HOLD" not in arms["rag"]["actions"]
    assert arms["rag masked"]["actions"] == arms["rag"]["actions"]
    for arm in arms.values():
        assert arm["bill_pct"] == pytest.approx(arm["price"]["total_usd"] / 1000 * 100)
    [paired] = [p for p in metrics["paired"] if p["arm"] == "rag"]
    assert (paired["period"], paired["states"], paired["different"]) == ("all", states, states)
    by_name = {arm["name"]: arm["performance"] for arm in metrics["arms"]}
    # Who never trades pays for its decisions all the same.
    assert by_name["baseline"]["trades"] == 0
    bill = arms["baseline"]["bill_pct"]
    assert by_name["baseline"]["total_return_pct"] == pytest.approx(-bill)
    assert "No knowledge cutoff of stand-in is known" in " ".join(ran.out.split())
    page = (tmp_path / "out" / "report.html").read_text()
    assert "is the same model and prompt without the evidence" in page
    assert sum("BTC" not in request.prompt for request in model.requests) == 2 * states
    # A replay has what is on record, and says what it lacks.
    longer = typed(f"{AB} {line.replace('02-26T', '02-27T')} --provider replay")
    assert longer.code == 0
    assert "12 of which the record has no reply to" in longer.err
    assert len(model.requests) == 4 * states
    holds = [arm["holds"] for arm in found(tmp_path, "metrics.json")["decider"]["arms"]]
    assert [hold["error"] for hold in holds] == [6, 6]


def test_arms_that_no_model_decides_in_are_refused(typed: Typing, line: str) -> None:
    def refused(options: str, told: str) -> None:
        ran: Typed = typed(f"{AB} {line} {options}")
        assert ran.code == 2
        assert told in ran.err
        assert "Traceback" not in ran.err

    refused("--arm-b random", "there is no arm 'random'; known: baseline, rag")
    refused("--arm-a hold --arm-b rsi-7", "neither hold nor rsi-7 asks a model")
    refused("--vector random", "not by random; give --vector state")


@pytest.mark.parametrize("command", [READS, AB])
def test_a_model_without_a_key_is_refused_before_any_work(
    command: str, typed: Typing, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decider_studies, "_prepare", lambda *of: pytest.fail("it went to work"))
    ran = typed(f"{command} {line} --provider anthropic")
    assert (ran.code, ran.out) == (2, "")
    assert "set the environment variable ANTHROPIC_API_KEY" in ran.err


@pytest.mark.soak
@pytest.mark.usefixtures("quick")
def test_results_stand_apart_by_the_models_stated_knowledge_cutoff(
    typed: Typing,
    line: str,
    model: StubServer,
    config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The stand-in speaks as the maker's own interface, under the name of a model of 2025."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", TEST_KEY)
    text = config.read_text().replace("openai-compatible", "anthropic")
    text = text.replace("stand-in", "claude-haiku-4-5").replace(f"{model.url}/v1", model.url)
    config.write_text(text)
    ran = typed(f"{AB} {line} --yes")
    assert ran.code == 0, ran.err
    metrics = found(tmp_path, "metrics.json")
    assert metrics["decider"]["knowledge_cutoff"] == "2025-02-28"
    periods = {p["period"]: p["states"] for p in metrics["paired"]}
    assert periods == {"all": 109, "up to the cutoff": 109, "after the cutoff": 0}
    said = " ".join(ran.out.split())
    assert "All states lie before the knowledge cutoff of claude-haiku-4-5, 2025-02-28" in said
    page = (tmp_path / "out" / "report.html").read_text()
    assert "up to the cutoff" in page


# --- what is asked


def test_the_evaluated_prompt_is_the_live_prompt(corridor: Corridor, config: Path) -> None:
    settings = corridor.settings({"LLM_TRADER_CONFIG": str(config)})
    job = Job(settings, {}, END_MS)
    plan = make_plan(
        settings,
        None,
        {"symbols": [SYMBOL], "start": "2025-02-20T00:00:00Z", "end": "2025-02-21T00:00:00Z"}
        | {"step_minutes": 240, "search": {"lookback_days": 28}},
    )
    live = corridor.settings({"LLM_TRADER_CONFIG": str(config)}, retrieval__lookback_days=28)
    prepared = decider_studies.prepare_ab(
        StudyInputs(job, Path("unused")), plan, "baseline", "rag", masked=True
    )
    compared = 0
    for part in prepared.parts:
        for ask in part.asks[::3]:
            choice = DeciderChoice(arm=ask.arm, masked=ask.masked)
            shown = decisions.show_prompt(
                Job(live, {}, END_MS), SYMBOL, ask.case.as_of_ms, choice
            ).prompt
            model = decider_studies.Model(DeciderChoice(), lambda: END_MS, "ab")
            request = decider_studies.request_of(job, model, ask)
            assert request.system == shown.system
            assert [message.text for message in request.messages] == [shown.user]
            assert shown.has_evidence == (ask.arm == "rag")
            compared += 1
    assert compared == 12
