from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_trader.cli import options
from tests.cli.conftest import Typing
from tests.cli.corridor import END_MS, SYMBOL, Corridor
from tests.llm.stub.server import TEST_KEY, StubServer
from tests.workflow.engine.test_kills import REPLY
from tests.workflow.graphs import MAIN

RUN = f"{SYMBOL}-20250302T0000-"


@pytest.fixture(scope="module")
def stub() -> Iterator[StubServer]:
    with StubServer() as running:
        yield running


_OF_MODEL = ("[llm]", "base_url", "requests_per_minute")


@pytest.fixture
def settings(
    stub: StubServer, corridor: Corridor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A file of settings, in surroundings with a key of a model."""
    stub.clear()
    stub.decide = lambda request: REPLY
    path = tmp_path / "llm-trader.toml"
    path.write_text(
        f'[market]\nstore = "{corridor.store}"\n[decisions]\nrecord = "{tmp_path / "decisions"}"\n'
        f'[llm]\nbase_url = "{stub.url}"\nrequests_per_minute = 1000\n'
        f'[workflow.runs]\nfolder = "{tmp_path / "runs"}"\nrag_url = "tcp://127.0.0.1:1"\n'
        f'[workflow.paper]\nledger = "{tmp_path / "paper.sqlite"}"\n'
        f'[workflow.guards]\nkill_switch = "{tmp_path / "kill"}"\nmin_reward_risk = 0\n'
    )
    monkeypatch.setenv("LLM_TRADER_CONFIG", str(path))
    monkeypatch.setenv("ANTHROPIC_API_KEY", TEST_KEY)
    monkeypatch.setattr(options, "now_ms", lambda: END_MS + 2000)
    return path


def test_a_run_by_hand_is_listed_shown_and_not_repeated(
    typed: Typing, settings: Path, stub: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = f"llm-trader workflow run {MAIN} --symbol {SYMBOL}"
    ran = typed(command)
    assert ran.code == 0
    assert "nothing listens on 127.0.0.1:1" in ran.err
    assert "Decision: LONG; order: placed." in ran.out
    assert "Decided with the baseline prompt, without evidence" in " ".join(ran.out.split())
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    lines = settings.read_text().splitlines()
    settings.write_text("\n".join(one for one in lines if not one.startswith(_OF_MODEL)))
    again = typed(command)
    assert again.out.startswith("The aggregator decides by fixed rules, without a model")
    assert "This state was decided on before" in again.out
    assert len(stub.requests) == 1
    (listed,) = typed("llm-trader workflow list", "--json").json
    assert listed["run_id"].startswith(RUN)
    assert (listed["state"], listed["action"]) == ("done", "LONG")
    shown = typed(f"llm-trader workflow show {listed['run_id']}").out
    assert "nothing listens on 127.0.0.1:1" in shown
    refused = typed(f"llm-trader workflow resume {listed['run_id']}")
    assert (refused.code, refused.out) == (2, "")
    assert "has ended well; there is nothing to resume" in refused.err
    assert (
        "has ended, so it cannot be cancelled"
        in typed(f"llm-trader workflow cancel {listed['run_id']}").err
    )


def test_a_backtest_shows_its_account_and_prints_all_as_json(
    typed: Typing, settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    command = f"llm-trader workflow backtest {MAIN} --symbol {SYMBOL} --start 2025-03-01T12:00:00Z"
    shown = typed(command)
    assert shown.code == 0
    assert "48 states, 0 not usable" in " ".join(shown.out.split())
    assert "Equity, USDT" in shown.out
    assert max(map(len, shown.out.splitlines())) <= 80
    report = typed(command, "--json").json
    assert sum(report["actions"].values()) == report["states"] == 48
    assert report["book_problems"] == []


@pytest.mark.soak
def test_an_old_state_is_decided_on_and_not_traded(typed: Typing, settings: Path) -> None:
    ran = typed(
        f"llm-trader workflow run {MAIN} --symbol {SYMBOL} --at 2025-02-25T12:00:00Z", "--json"
    )
    summary = ran.json["summary"]
    assert (summary["action"], summary["hold_reason"]) == ("HOLD", "guard")
    assert summary["execution"] == "none"


def test_the_shipped_graph_is_sound_and_is_drawn(typed: Typing, tmp_path: Path) -> None:
    assert "is sound: 7 nodes" in typed(f"llm-trader workflow validate {MAIN}").out
    assert "──▶ guard" in typed(f"llm-trader workflow graph {MAIN}").out
    target = tmp_path / "graph.svg"
    assert typed(f"llm-trader workflow graph {MAIN} --svg {target}").code == 0
    assert target.read_text().startswith("<svg")


def test_a_mistake_in_a_graph_is_named_with_its_place(typed: Typing, tmp_path: Path) -> None:
    path = tmp_path / "main.yml"
    path.write_text(MAIN.read_text().replace("type: llm", "type: lm"))
    (tmp_path / "nodes").mkdir()
    (tmp_path / "nodes/rag-query.yml").write_text((MAIN.parent / "nodes/rag-query.yml").read_text())
    ran = typed(f"llm-trader workflow validate {path}")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"error: {path}:31:5: there is no type 'lm'; one of input, tool")


@pytest.mark.parametrize("command", ["validate", "serve"])
def test_an_interval_beside_that_of_the_snapshots_is_refused(
    typed: Typing, settings: Path, tmp_path: Path, command: str
) -> None:
    path = tmp_path / "main.yml"
    shutil.copytree(MAIN.parent / "nodes", tmp_path / "nodes")
    path.write_text(MAIN.read_text().replace("snapshot.post", "snapshot.post\n      every: 20m"))
    ran = typed(f"llm-trader workflow {command} {path}")
    assert ran.code == 2
    assert "has every: 20m, which is no multiple of the snapshots' interval, 15m" in ran.err
    path.write_text(path.read_text().replace("every: 20m", "every: 30m"))
    assert typed(f"llm-trader workflow validate {path}").code == 0


def test_without_any_run_the_list_says_how_to_begin(typed: Typing, settings: Path) -> None:
    ran = typed("llm-trader workflow list")
    assert ran.code == 2
    assert "begin with: llm-trader workflow serve" in ran.err
