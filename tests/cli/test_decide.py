"""Decisions as a person makes them and looks at them, with a stub in the place of the provider."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_trader.cli import options
from llm_trader.timeframe import DAY_MS, HOUR_MS, iso8601
from tests.cli.conftest import Typing
from tests.cli.corridor import AT_MS, END_MS, SYMBOL, Corridor
from tests.llm.decider_at_stub import REPLY
from tests.llm.stub.faults import Status
from tests.llm.stub.server import TEST_KEY, StubServer

AT = iso8601(AT_MS)


@pytest.fixture(scope="module")
def stub() -> Iterator[StubServer]:
    with StubServer() as running:
        yield running


@pytest.fixture
def decide(
    stub: StubServer, corridor: Corridor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """The beginning of a command line that decides, in surroundings with a key."""
    stub.clear()
    stub.decide = lambda request: REPLY
    settings = tmp_path / "llm-trader.toml"
    settings.write_text(
        f'[market]\nstore = "{corridor.store}"\n[index]\npath = "{corridor.index}"\n'
        f'[decisions]\nrecord = "{tmp_path / "decisions"}"\n[llm]\nbase_url = "{stub.url}"\n'
        "requests_per_minute = 1000\nmax_retries = 0\n"
    )
    monkeypatch.setenv("LLM_TRADER_CONFIG", str(settings))
    monkeypatch.setenv("ANTHROPIC_API_KEY", TEST_KEY)
    monkeypatch.setattr(options, "now_ms", lambda: END_MS + HOUR_MS)
    return f"llm-trader decide --symbol {SYMBOL} --at {AT}"


def test_a_decision_shows_its_evidence_its_cost_and_its_record(
    typed: Typing, decide: str, stub: StubServer
) -> None:
    ran = typed(decide)
    assert (ran.code, ran.err) == (0, "")
    first, reason, *rest = [line.strip() for line in ran.out.splitlines()]
    assert first.startswith("LONG, confidence 0.70, stop -1.5 %, target +3 %: BTCUSDT at ")
    assert first.endswith("USDT, 2025-02-25 12:00")
    assert reason == "It rose."
    shown = " ".join(rest)
    for part in ("Evidence of 5 matches, ", " episodes, verdict ", "Decided by anthropic/", " USD"):
        assert part in shown
    assert "Recorded as decision 1. The same again from the record: llm-trader replay 1" in shown
    again = typed(decide, "--json").json
    assert again["decision"]["costs"]["paid_usd"] == 0
    assert again["decision"]["decision"]["action"] == "LONG"
    assert again["calls"][0]["reply"]["text"] == REPLY
    assert "nothing now, as the record had a reply" in typed(decide).out
    assert len(stub.requests) == 1
    typed(decide, "--ask-again")
    assert len(stub.requests) == 2


def test_a_replay_is_the_same_and_asks_nobody(
    typed: Typing, decide: str, stub: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(decide)
    stub.clear()
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    ran = typed("llm-trader replay 1")
    assert (ran.code, ran.err, stub.requests) == (0, "", [])
    assert ran.out.startswith("Decision 1 is the same, byte for byte: LONG\n")
    replayed = typed(decide, "--provider", "replay", "--json").json
    assert replayed["decision"]["decision"]["action"] == "LONG"
    assert (replayed["decision"]["provider"], stub.requests) == ("replay", [])
    missing = typed("llm-trader replay 77")
    assert missing.code == 2
    assert "there is no decision 77" in missing.err


def test_the_prompt_can_be_seen_before_anybody_is_asked(
    typed: Typing, decide: str, stub: StubServer
) -> None:
    line = decide.replace("decide", "prompt show", 1)
    rag, baseline = typed(line).out, typed(line, "--arm", "baseline").out
    assert "EVIDENCE" in rag
    assert "EVIDENCE" not in baseline
    assert "BTCUSDT" in rag
    assert '"BTCUSDT"' not in typed(line, "--masked").out
    assert stub.requests == []
    typed(decide)
    shown = typed(line, "--json").json["prompt"]
    assert stub.requests[0].prompt == shown["user"]
    assert stub.requests[0].system == shown["system"]


def test_an_error_is_a_hold_and_exits_with_1(typed: Typing, decide: str, stub: StubServer) -> None:
    stub.script(Status(529))
    ran = typed(decide)
    assert (ran.code, ran.err) == (1, "")
    assert ran.out.startswith("HOLD, because of an error: BTCUSDT at ")
    assert "(overloaded)" in ran.out
    assert TEST_KEY not in ran.out
    assert typed("llm-trader replay 1").code == 0


def test_old_data_are_a_hold_by_the_guard_without_a_call(
    typed: Typing, decide: str, stub: StubServer
) -> None:
    ran = typed(decide.replace(AT, "now"))
    assert (ran.code, stub.requests) == (0, [])
    assert ran.out.startswith("HOLD, because of a guard: BTCUSDT, 2025-03-02 01:00")
    assert "it closed at 2025-03-02T00:00:00Z, 60 minutes before" in ran.out
    assert "current_state" not in ran.out


def test_a_decision_on_the_present_says_whether_it_is_too_late_for_it(
    typed: Typing, decide: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "now_ms", lambda: END_MS + 400_000)
    ran = typed(decide.replace(AT, "now"))
    assert "Too late to execute it: it is 400 s old, at most 300 s are allowed" in ran.out
    monkeypatch.setattr(options, "now_ms", lambda: END_MS + 20_000)
    fresh = typed(decide.replace(AT, "now"), "--json").json["decision"]
    assert fresh["expiry"] == {"void_by": [], "age_s": 20.0, "price_move_pct": 0.0, "reason": ""}


def test_without_a_key_the_aggregator_decides_and_says_so(
    typed: Typing,
    decide: str,
    stub: StubServer,
    corridor: Corridor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    refused = typed(decide)
    assert refused.code == 2
    assert "set the environment variable ANTHROPIC_API_KEY" in refused.err
    monkeypatch.delenv("LLM_TRADER_CONFIG")
    places = f"--store {corridor.store} --index {corridor.index} --record {tmp_path / 'other'}"
    ran = typed(decide, *places.split())
    assert ran.code == 0
    assert ran.out.startswith("The aggregator decides by fixed rules, without a model: ")
    assert "Decided by aggregator. No model was asked, so it cost nothing." in ran.out
    assert stub.requests == []
    replayed = typed("llm-trader replay 1", "--record", tmp_path / "other")
    assert "Decided again by rule" in replayed.out
    refused = typed(decide, *places.split(), "--arm", "baseline")
    assert "the aggregator follows similar states, so it has no arm baseline" in refused.err


def test_a_missing_index_is_an_error_for_the_evidence_and_none_for_the_baseline(
    typed: Typing, decide: str, tmp_path: Path
) -> None:
    none = ("--index", str(tmp_path / "none"))
    held = typed(decide, *none)
    assert held.code == 1
    assert "there is no evidence to decide on: there is no index at " in " ".join(held.out.split())
    baseline = typed(decide, *none, "--arm", "baseline")
    assert baseline.code == 0
    assert "No evidence: the arm baseline decides on the state alone." in baseline.out


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ("--provider openai-compatible", "openai-compatible, which needs llm.model"),
        ("--model claude-nobody-9", "no price is known of claude-nobody-9"),
        ("--provider replay", "nothing can be replayed: "),
        ("--provider gemini", "Invalid value for '--provider'"),
        ("--store /nowhere/store", "there is no market store at /nowhere/store"),
        ("--symbol DOGEUSDT", "no data for symbol 'DOGEUSDT'; available: BTCUSDT, ETHUSDT"),
    ],
)
def test_what_cannot_work_is_an_error_before_anybody_is_asked(
    typed: Typing, decide: str, stub: StubServer, flags: str, told: str
) -> None:
    ran = typed(decide, *flags.split())
    assert (ran.code, ran.out, stub.requests) == (2, "", [])
    assert told in ran.err


def test_the_record_is_listed_shown_summed_up_exported_and_pruned(
    typed: Typing, decide: str, stub: StubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = typed("llm-trader decisions list")
    assert empty.code == 2
    assert "there is no record of decisions at" in empty.err
    for hours in (0, 4, 8):
        typed(decide.replace(AT, iso8601(AT_MS - hours * HOUR_MS)))
    typed(decide, "--arm", "baseline")
    typed(decide.replace(SYMBOL, "ETHUSDT"), "--provider", "aggregator")

    listed = typed("llm-trader decisions list").out
    rows = [line.split() for line in listed.splitlines() if line[:1].isdigit()]
    assert [row[0] for row in rows][:5] == ["5", "4", "3", "2", "1"]
    assert "anthropic/claude-" in listed
    assert [one["id"] for one in typed("llm-trader decisions list --arm baseline --json").json] == [
        4
    ]
    assert typed("llm-trader decisions list --symbol eth-usdt --json").json[0]["id"] == 5

    shown = typed("llm-trader decisions show 1 -v").out
    for part in ("Made with", "template", "replied", "System (call 1)", "Reply, complete", REPLY):
        assert part in shown

    stats = typed("llm-trader decisions stats --json").json
    assert stats["decisions"] == 5
    rag = next(one for one in stats["outcomes"] if one["arm"] == "rag")
    assert rag["followed"]["decisions"] == rag["followed"]["effective"] == 3
    assert rag["followed"]["hit_rate"]["low"] < rag["followed"]["hit_rate"]["high"]
    text = typed("llm-trader decisions stats").out
    for part in ("HOLD error", "USD each", "What followed LONG and SHORT within 4h", "Is the conf"):
        assert part in text

    file = tmp_path / "all.jsonl"
    assert typed("llm-trader decisions export", "--out", file).code == 0
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [one["decision"]["id"] for one in lines] == [1, 2, 3, 4, 5]
    assert lines[0]["calls"][0]["request"]["messages"][0]["text"] == stub.requests[0].prompt
    assert typed("llm-trader decisions export").out == file.read_text()

    monkeypatch.setattr(options, "now_ms", lambda: END_MS + 30 * DAY_MS)
    assert (
        "removed 5 decisions and 4 calls" in typed("llm-trader decisions prune --keep-days 7").out
    )
    assert typed("llm-trader decisions list --json").json == []


def test_the_outcome_of_a_decision_is_what_the_candles_say(
    typed: Typing, decide: str, corridor: Corridor, stub: StubServer
) -> None:
    stub.decide = lambda request: REPLY.replace("LONG", "SHORT")
    typed(decide)
    before, after = (corridor.fields_at(AT_MS + ms, "price")["price"] for ms in (0, HOUR_MS))
    stats = typed("llm-trader decisions stats --horizon 1h --json").json
    mean = stats["outcomes"][0]["followed"]["mean_pct"]["value"]
    assert mean == pytest.approx(-100 * (after / before - 1))
