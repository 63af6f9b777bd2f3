"""Real processes that are killed while they make a call."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from llm_trader.llm.record.record import DecisionRecord
from tests.llm.decider_at_stub import TODAY
from tests.llm.stub.server import StubServer
from tests.processes import Forked

Order = Callable[..., str]


@pytest.fixture(scope="module")
def process(running_stub: StubServer) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.llm.record.killed_calls", running_stub.url]
    pipe = subprocess.PIPE
    with Forked(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


@pytest.fixture
def make_call(process: subprocess.Popen[str], stub: StubServer, tmp_path: Path) -> Order:
    """Makes a call in a process of its own, with an order when to kill it."""
    stdin, stdout = process.stdin, process.stdout

    def make(order: str, question: str = "now?") -> str:
        assert stdin is not None
        assert stdout is not None
        stdin.write(f"{order} {tmp_path} {question}\n")
        stdin.flush()
        said = ""
        while not (line := stdout.readline().strip()).startswith("end"):
            said = line
        return said or line.removeprefix("end ")

    return make


def test_a_reply_that_a_killed_process_lost_is_paid_for_twice_at_most(
    stub: StubServer, make_call: Order, tmp_path: Path
) -> None:
    assert make_call("between") == "killed"
    assert len(stub.requests) == 1
    with DecisionRecord.open(tmp_path) as record:
        worst_usd = Decimal(str(record.calls.get(1).reserved_usd))
        assert record.calls.get(1).state == "started"
        assert record.calls.spent_usd(TODAY) == worst_usd
    assert make_call("between") == "killed"
    assert make_call("finish") == make_call("finish") == "refused True"
    assert len(stub.requests) == 2
    with DecisionRecord.open(tmp_path) as record:
        assert [record.calls.get(number).state for number in (1, 2, 3, 4)] == [
            *("lost", "lost", "refused", "refused")
        ]
        assert record.calls.spent_usd(TODAY) == 2 * worst_usd


def test_a_call_that_was_killed_once_is_repeated_and_then_on_record(
    stub: StubServer, make_call: Order, tmp_path: Path
) -> None:
    assert make_call("between") == "killed"
    assert make_call("finish") == "replied True"
    assert make_call("finish") == "replied False"
    assert len(stub.requests) == 2
    with DecisionRecord.open(tmp_path) as record:
        lost, made = record.calls.get(1), record.calls.get(2)
        assert (lost.state, made.state) == ("lost", "replied")
        assert record.calls.spent_usd(TODAY) == pytest.approx(
            Decimal(str(lost.reserved_usd)) + Decimal(str(made.cost_usd))
        )


@pytest.mark.soak
def test_kills_at_any_moment_never_pay_a_third_time_and_lose_no_recorded_reply(
    stub: StubServer, make_call: Order, tmp_path: Path
) -> None:
    rng = random.Random(5)
    ends = []
    for number in range(30):
        question = f"question-{number}"
        make_call(str(rng.randrange(0, 150)), question)
        ends.append(make_call("finish", question))
        asked = [one for one in stub.requests if one.prompt == question]
        assert len(asked) <= 2
    assert {*ends} <= {"replied True", "replied False"}
    with DecisionRecord.open(tmp_path) as record:
        calls = [record.calls.get(number) for number in range(1, 31)]
        assert {call.state for call in calls} <= {"replied", "lost"}
