"""`make demo-trading`: two days of trading, from an exchange to orders on paper, with no keys.

1. An exchange replays a simulated market; `data collect` stores and indexes it, and posts a
   snapshot of each symbol every quarter-hour.
2. `llm-trader serve` answers what followed similar states.
3. The workflow asks it, formats the prompt, asks a model, guards the decision and executes it on
   paper. The model is a stub that speaks a provider's protocol to the provider's own package.
4. On the second day the RAG server is killed at noon, and then the workflow in the middle of an
   order, both by SIGKILL.

Every part is a process of its own. Exits with 1 and a reason if anything it claims did not happen.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_SCRIPTS = Path(__file__).resolve().parent
sys.path[:0] = [str(_SCRIPTS), str(_SCRIPTS.parent)]

from trading_demo.processes import DemoError, Process  # noqa: E402
from trading_demo.steering import QUARTER_MS, Steering  # noqa: E402
from trading_demo.summary import (  # noqa: E402
    Account,
    account,
    check_baseline,
    check_books,
    check_killed_run,
    check_runs,
    describe_day,
)
from trading_demo.surroundings import (  # noqa: E402
    DAY_START_MS,
    HISTORY_DAYS,
    SYMBOLS,
    Surroundings,
    listening,
    url_of,
)

from llm_trader.errors import LlmTraderError  # noqa: E402
from llm_trader.llm.record.decisions import RecordedDecision  # noqa: E402
from llm_trader.llm.record.record import DecisionRecord  # noqa: E402
from llm_trader.rpc.client import RpcClient  # noqa: E402
from llm_trader.serving.wire import QueryPatternsResult  # noqa: E402
from llm_trader.timeframe import DAY_MS, HOUR_MS, Millis, iso8601  # noqa: E402

_BOUNDARIES: Final = DAY_MS // QUARTER_MS
# The RAG server dies half-way, and the workflow in the first order after three quarters of the day.
_RAG_DIES_AFTER: Final = _BOUNDARIES // 2
_WORKFLOW_DIES_FROM_MS: Final[Millis] = DAY_START_MS + DAY_MS + 18 * HOUR_MS
# Without a terminal, a line for every second hour.
_LINE_EVERY: Final = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with tempfile.TemporaryDirectory(prefix="llm-trader-trading-") as folder:
            _show(Path(folder))
    except (DemoError, LlmTraderError) as error:
        sys.exit(f"\ndemo-trading failed: {error}")
    except KeyboardInterrupt:
        sys.stderr.write("\nStopped; every process has ended.\n")
        sys.exit(130)


def _show(folder: Path) -> None:
    began_s = time.monotonic()
    with ExitStack() as stack:
        demo = _Demo.start(Surroundings.in_folder(folder), stack)
        _say("\nThe first day:")
        before = demo.day(DAY_START_MS, None, demo.undisturbed)
        _say(f"   That was {time.monotonic() - began_s:.0f} s from the start.")
        _say("\nThe second day, with the RAG server killed at noon, and later the workflow:")
        demo.day(DAY_START_MS + DAY_MS, before, demo.disturbed)
    _say(f"\nDone in {time.monotonic() - began_s:.0f} s; every process has ended.")


@dataclass
class _Demo:
    surroundings: Surroundings
    steering: Steering
    rag: Process

    @classmethod
    def start(cls, surroundings: Surroundings, stack: ExitStack) -> _Demo:
        _say("1. An exchange replays a simulated market of two symbols.")
        exchange, model = surroundings.exchange(stack), surroundings.model(stack)
        model_url = url_of(model)
        collector = surroundings.collector(stack, url_of(exchange))
        _say(f"2. data collect fetches and indexes {HISTORY_DAYS} days.")
        for _ in SYMBOLS:
            added = collector.event(lambda event: bool(event.get("added")), 60.0)
            _say(f"   {added['symbol']}: {added['added']:,} states")
        _say("3. llm-trader serve opens the index; workflow serve, the graph and a paper account.")
        rag = stack.enter_context(surroundings.rag_server())
        dies = ("--die-in-order-from-ms", str(_WORKFLOW_DIES_FROM_MS))
        workflow = stack.enter_context(surroundings.workflow(model_url, *dies))
        listening(rag)
        # Its first answer loads the index, which takes longer than the workflow waits.
        asyncio.run(_first_question(surroundings.rag_port))
        listening(workflow)
        record = stack.enter_context(DecisionRecord.open(surroundings.record))
        steering = Steering(
            surroundings,
            record,
            workflow,
            [collector, exchange, model, rag],
            lambda: stack.enter_context(surroundings.workflow(model_url)),
        )
        return cls(surroundings, steering, rag)

    def day(self, start_ms: Millis, before: Account | None, kind: _Kind) -> Account:
        decisions: list[RecordedDecision] = []
        progress = _Progress()
        for number, made in enumerate(self.steering.decisions(start_ms, _BOUNDARIES), start=1):
            decisions += made
            progress.show(made, number)
            if kind.rag_dies_after == number:
                progress.end()
                self.steering.watched.remove(self.rag)
                self.rag.kill()
                _say("   The RAG server is killed.")
            if self.steering.killed_run is not None and not kind.is_kill_told:
                progress.end()
                kind.is_kill_told = True
                _say(f"   The workflow died in an order, and is back: {self.steering.killed_run}")
        progress.end()
        self.steering.stand_still()
        return self._summary(decisions, before, kind)

    def _summary(
        self, decisions: list[RecordedDecision], before: Account | None, kind: _Kind
    ) -> Account:
        after, now_ms = account(self.surroundings), self.surroundings.clock.now_ms()
        for line in describe_day(decisions, before, after):
            _say(line)
        days = 1 if before is None else 2
        expected = days * _BOUNDARIES * len(SYMBOLS)
        _say(check_runs(self.surroundings, now_ms, expected))
        _say(check_books(self.surroundings))
        _require(decisions, before, after)
        if kind.rag_dies_after is not None:
            _say(check_baseline(decisions[kind.rag_dies_after * len(SYMBOLS) :]))
            run = self.steering.killed_run
            if run is None:
                raise DemoError("no order came after 18:00 to kill the workflow in")
            _say(check_killed_run(self.surroundings, now_ms, run, self.steering.away_s))
        return after

    @property
    def undisturbed(self) -> _Kind:
        return _Kind(None)

    @property
    def disturbed(self) -> _Kind:
        return _Kind(_RAG_DIES_AFTER)


@dataclass
class _Kind:
    """Of a day: after how many boundaries the RAG server dies, if it does."""

    rag_dies_after: int | None
    is_kill_told: bool = False


def _require(decisions: Sequence[RecordedDecision], before: Account | None, after: Account) -> None:
    if not any(decision.has_evidence for decision in decisions):
        raise DemoError("no decision of the day had evidence")
    if len(after.fills) == (0 if before is None else len(before.fills)):
        raise DemoError("nothing was traded on the day")


async def _first_question(port: int) -> None:
    async with await RpcClient.connect("127.0.0.1", port, timeout_s=30.0) as client:
        params = {"symbol": SYMBOLS[0], "timestamp": DAY_START_MS - HOUR_MS}
        await client.call("rag.query_patterns", params, QueryPatternsResult)


class _Progress:
    """One line on a terminal, and otherwise a line now and then."""

    def __init__(self) -> None:
        self._is_terminal = sys.stdout.isatty()
        self._is_open = False

    def show(self, made: Sequence[RecordedDecision], number: int) -> None:
        # A decision to trade is more telling than a HOLD.
        decision = max(made, key=lambda one: one.decision.action != "HOLD")
        line = _in_a_line(decision, number)
        if self._is_terminal:
            sys.stdout.write(f"\r\x1b[K{line[:79]}")
            sys.stdout.flush()
            self._is_open = True
        elif number % _LINE_EVERY == 0:
            _say(line)

    def end(self) -> None:
        if self._is_open:
            sys.stdout.write("\n")
            self._is_open = False


def _in_a_line(decision: RecordedDecision, number: int) -> str:
    action = decision.decision.action
    if decision.vetoes:
        action = f"{action} vetoed: {decision.vetoes[0].rule}"
    because = "no evidence, baseline prompt"
    if decision.has_evidence and decision.answer is not None:
        mean = decision.answer.evidence.horizons["4h"].mean
        count = len(decision.match_ids)
        because = f"{count} similar"
        if mean is not None:
            because = f"{count} similar, 4h {mean.value:+.2f} % (usual {mean.base_rate:+.2f})"
    done = number * 100 // _BOUNDARIES
    return (
        f"   {iso8601(decision.as_of_ms)[11:16]} {done:3} %  {decision.symbol} {action}; {because}"
    )


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
