"""What a day came to, out of the record of decisions, the books and the runs; and its checks."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from llm_trader.app.job import Job
from llm_trader.app.workflow.runs import list_runs, show_run
from llm_trader.llm.record.decisions import RecordedDecision
from llm_trader.settings.loading import load_settings
from llm_trader.workflow.engine.protocol import RunSummary
from llm_trader.workflow.orders import ZERO, Fill, client_order_id
from llm_trader.workflow.paper.ledger import Ledger
from llm_trader.workflow.paper.reading import read_books
from trading_demo.processes import DemoError
from trading_demo.surroundings import SYMBOLS, Surroundings

# More than two days have of anything.
_ALL: Final = 100_000


@dataclass(frozen=True)
class Account:
    """The paper account at one moment. `totals` are the balances of its cost accounts."""

    equity: Decimal
    totals: dict[str, Decimal]
    fills: list[Fill]

    @classmethod
    def read(cls, surroundings: Surroundings) -> Account | None:
        """None before its first decision."""
        books = read_books(surroundings.ledger, None, _ALL)
        if books is None:
            return None
        totals: dict[str, Decimal] = defaultdict(lambda: ZERO)
        for change in books.changes:
            totals[change.account] += change.amount
        open_profit = sum(
            (held.unrealized(books.marks[name].price) for name, held in books.positions.items()),
            ZERO,
        )
        return cls(totals["wallet"] + open_profit, totals, books.fills)


def account(surroundings: Surroundings) -> Account:
    found = Account.read(surroundings)
    if found is None:
        raise DemoError(f"the workflow made no books in {surroundings.ledger}")
    return found


def describe_day(
    decisions: Sequence[RecordedDecision], before: Account | None, after: Account
) -> Iterator[str]:
    """Lines of at most 80 columns."""
    start = before.equity if before else -after.totals["deposits"]
    earlier = before.totals if before else defaultdict(lambda: ZERO)
    fees, slippage, funding = (
        after.totals[name] - earlier[name] for name in ("fees", "slippage", "funding")
    )
    fills = len(after.fills) - (len(before.fills) if before else 0)
    shown = [decision for decision in decisions if decision.has_evidence]
    states = sum(len(decision.match_ids) for decision in shown)
    yield _row("Decisions", f"{len(decisions)}: {_kinds(decisions)}")
    yield _row("Fills", f"{fills}")
    yield _row("Costs", f"fees {fees:,.2f}, slippage {slippage:,.2f}, funding {funding:,.2f} USDT")
    change = float((after.equity / start - 1) * 100)
    yield _row(
        "Equity",
        f"{start:,.2f} to {after.equity:,.2f} USDT ({change:+.2f} %); "
        f"holding both {_holding_pct(decisions):+.2f} %",
    )
    yield _row("Evidence", f"{len(shown)} decisions with it, from {states} similar states")
    costs = [decision.costs for decision in decisions]
    sent, returned = sum(c.input_tokens for c in costs), sum(c.output_tokens for c in costs)
    price = sum(c.cost_usd for c in costs)
    yield _row("Tokens", f"{sent:,} in, {returned:,} out; a real model would cost ${price:.4f}")


def _row(name: str, text: str) -> str:
    return f"   {name:<10} {text}"


def _kinds(decisions: Iterable[RecordedDecision]) -> str:
    counts = Counter(_kind(decision) for decision in decisions)
    return ", ".join(f"{count} {kind}" for kind, count in counts.most_common())


def _kind(decision: RecordedDecision) -> str:
    if decision.vetoes or decision.decision.hold_reason == "guard":
        return "HOLD by guards"
    made = decision.decision
    return made.action if made.hold_reason is None else f"HOLD by the {made.hold_reason}"


def _holding_pct(decisions: Sequence[RecordedDecision]) -> float:
    """Half of the money in each symbol, from the first decision to the last."""
    changes = []
    for symbol in SYMBOLS:
        prices = [d.snapshot.price for d in decisions if d.symbol == symbol]
        changes.append(prices[-1] / prices[0] - 1)
    return sum(changes) / len(changes) * 100


def check_runs(surroundings: Surroundings, now_ms: int, expected: int) -> str:
    """What is durable: each snapshot has one run, which is done. Raises `DemoError` if not so."""
    runs: Sequence[RunSummary] = list_runs(_job(surroundings, now_ms), _ALL, None)
    undone = [run for run in runs if run.state != "done"]
    if undone:
        first = undone[0]
        raise DemoError(f"run {first.run_id} is {first.state}: {first.error}")
    if len(runs) != expected:
        raise DemoError(f"there are {len(runs)} runs for {expected} snapshots")
    return _row("Runs", f"{len(runs)} of {expected} snapshots have one durable run, all done")


def check_books(surroundings: Surroundings) -> str:
    ledger = Ledger(surroundings.ledger)
    try:
        report = ledger.check()
    finally:
        ledger.close()
    if report.problems:
        raise DemoError(f"the books do not balance: {'; '.join(report.problems)}")
    return _row("Books", f"balance, over {report.transactions} transactions")


def check_killed_run(surroundings: Surroundings, now_ms: int, run: str, away_s: float) -> str:
    """The run in whose order the process died is done, and its order was filled once."""
    summary = show_run(_job(surroundings, now_ms), run).summary
    own = client_order_id(run, run.partition("-")[0], "o")
    fills = [fill for fill in account(surroundings).fills if fill.client_order_id == own]
    if summary.state != "done" or len(fills) != 1:
        raise DemoError(f"run {run} is {summary.state}, with {len(fills)} fills of its order")
    return _row("Workflow", f"back in {away_s:.1f} s; the order of {run[:21]}: one fill")


def check_baseline(decisions: Sequence[RecordedDecision]) -> str:
    """Without a RAG server each decision uses the baseline prompt, and says why."""
    for decision in decisions:
        if decision.arm_used != "baseline" or not decision.retrieval_error:
            raise DemoError(f"decision {decision.id} does not say that it had no evidence")
    return _row("No RAG", f"{len(decisions)} decisions with the baseline prompt, which say so")


def _job(surroundings: Surroundings, now_ms: int) -> Job:
    overrides = {"workflow.runs.folder": str(surroundings.runs)}
    return Job(load_settings(environ={}, overrides=overrides), os.environ, now_ms)
