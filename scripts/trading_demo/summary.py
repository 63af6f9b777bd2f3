"""What became of a stretch of the demo, from the record, the books and the runs; and its claims."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from llm_trader.llm.record.decisions import RecordedDecision
from llm_trader.timeframe import Millis
from llm_trader.workflow.engine.protocol import RunSummary
from llm_trader.workflow.orders import ZERO, Fill, client_order_id
from llm_trader.workflow.paper.accounting import WALLET
from llm_trader.workflow.paper.ledger import Ledger, LedgerReport
from llm_trader.workflow.paper.reading import PaperBooks, read_books
from trading_demo.processes import DemoError
from trading_demo.surroundings import SYMBOLS, Surroundings

_ALL = 1_000_000


@dataclass(frozen=True)
class Stretch:
    """`decisions` are those that were heard of; amounts are of `start_ms <= time < end_ms`."""

    decisions: Sequence[RecordedDecision]
    runs: Sequence[RunSummary]
    books: PaperBooks
    report: LedgerReport
    start_ms: Millis
    end_ms: Millis

    def fills(self) -> list[Fill]:
        return [one for one in self.books.fills if self.start_ms <= one.time_ms < self.end_ms]

    def total(self, account: str) -> Decimal:
        changes = self.books.changes
        return sum(
            (
                one.amount
                for one in changes
                if one.account == account and self.start_ms <= one.time_ms < self.end_ms
            ),
            ZERO,
        )

    def equity(self) -> Decimal:
        return equity(self.books)

    def holding_pct(self) -> float:
        """Half of the money in each symbol, from its first state to its last."""
        changes = []
        for symbol in SYMBOLS:
            prices = [one.snapshot.price for one in self.decisions if one.symbol == symbol]
            first, last = prices[0], prices[-1]
            if first is None or last is None:
                raise DemoError(f"a state of {symbol} has no price")
            changes.append(last / first - 1)
        return 100 * sum(changes) / len(changes)

    def orders_of(self, run: str) -> int:
        opening = client_order_id(run, run.partition("-")[0], "o")
        return sum(order.intent.client_order_id == opening for order in self.books.orders)

    def without_evidence(self) -> list[RecordedDecision]:
        return [one for one in self.decisions if not one.has_evidence]


def equity(books: PaperBooks) -> Decimal:
    cash = sum((one.amount for one in books.changes if one.account == WALLET), ZERO)
    gains = (
        holding.unrealized(books.marks[symbol].price) for symbol, holding in books.positions.items()
    )
    return cash + sum(gains, ZERO)


def books_of(surroundings: Surroundings) -> PaperBooks:
    books = read_books(surroundings.ledger, None, _ALL)
    if books is None:
        raise DemoError(f"there are no books at {surroundings.ledger}")
    return books


def stretch_of(
    surroundings: Surroundings,
    decisions: Sequence[RecordedDecision],
    start_ms: Millis,
    end_ms: Millis,
) -> Stretch:
    """Reads everything anew, when the runs have ended."""
    runs = [
        run
        for run in asyncio.run(_ended_runs(surroundings))
        if run.as_of_ms is not None and start_ms <= run.as_of_ms < end_ms
    ]
    ledger = Ledger(surroundings.ledger)
    try:
        report = ledger.check()
    finally:
        ledger.close()
    return Stretch(decisions, runs, books_of(surroundings), report, start_ms, end_ms)


async def _ended_runs(surroundings: Surroundings) -> Sequence[RunSummary]:
    from llm_trader.workflow.engine.config import RunsConfig
    from llm_trader.workflow.engine.durable.database import run_database
    from llm_trader.workflow.engine.durable.run_log import RunLog
    from llm_trader.workflow.nodes.scripts import SCRIPTS

    log = RunLog(run_database(RunsConfig(folder=surroundings.runs), {}), dict(SCRIPTS))
    try:
        async with asyncio.timeout(20):
            while await log.depth():  # noqa: ASYNC110  another process carries them out
                await asyncio.sleep(0.02)
        return await log.runs(limit=_ALL)
    except TimeoutError:
        raise DemoError("some runs have not ended 20 s after the last decision") from None
    finally:
        log.close()


def check(stretch: Stretch, count: int) -> None:
    """Raises `DemoError` for the first claim of every stretch that does not hold."""
    decided = Counter((one.symbol, one.as_of_ms) for one in stretch.decisions)
    if len(decided) != count or decided.total() != count:
        raise DemoError(f"{len(decided)} states have {decided.total()} decisions, not {count}")
    states = Counter(run.state for run in stretch.runs)
    if states != {"done": count}:
        raise DemoError(f"not all {count} runs are done: {dict(states)}")
    orders = Counter(order.intent.client_order_id for order in stretch.books.orders)
    if repeated := [name for name, times in orders.items() if times > 1]:
        raise DemoError(f"orders were placed twice: {', '.join(repeated)}")
    if stretch.report.problems:
        raise DemoError(f"the books do not balance: {'; '.join(stretch.report.problems)}")
    if not stretch.fills():
        raise DemoError("nothing was traded")


def lines(stretch: Stretch) -> Iterator[tuple[str, str]]:
    """A name and what there is to say, each in one line of a terminal."""
    yield "decisions", _decisions(stretch.decisions)
    if vetoes := _vetoes(stretch.decisions):
        yield "vetoed", vetoes
    yield "evidence", _evidence(stretch.decisions)
    yield "fills", _fills(stretch)
    yield (
        "costs",
        f"fees {stretch.total('fees'):,.2f}, slippage {stretch.total('slippage'):,.2f}, "
        f"funding {stretch.total('funding'):+,.2f} {stretch.books.currency}",
    )
    yield "equity", _equity(stretch)
    yield "model", _model(stretch.decisions)
    yield "runs", f"{len(stretch.runs)} durable runs, all done, each state decided on once"
    report = stretch.report
    yield "books", f"balanced: {report.transactions} transactions, {report.entries} entries"


def _decisions(decisions: Sequence[RecordedDecision]) -> str:
    actions = Counter(one.decision.action for one in decisions)
    holds = Counter(one.decision.hold_reason for one in decisions if one.decision.hold_reason)
    kinds = ", ".join(f"{holds[kind]} {kind}" for kind in ("model", "guard", "error"))
    sides = ", ".join(f"{actions[action]} {action}" for action in ("LONG", "SHORT", "HOLD"))
    return f"{len(decisions)}: {sides} (by {kinds})"


def _vetoes(decisions: Sequence[RecordedDecision]) -> str:
    rules = Counter(veto.rule for one in decisions for veto in one.vetoes)
    vetoed = sum(bool(one.vetoes) for one in decisions)
    listed = ", ".join(f"{rule} {count}" for rule, count in rules.most_common())
    return f"{vetoed} by guards: {listed}" if vetoed else ""


def _evidence(decisions: Sequence[RecordedDecision]) -> str:
    answers = [one.answer for one in decisions if one.has_evidence and one.answer is not None]
    verdicts = Counter(answer.evidence.verdict for answer in answers)
    listed = ", ".join(f"{verdicts[name]} {name}" for name in ("informative", "weak", "none"))
    matches = sum(len(answer.matches) for answer in answers)
    without = len(decisions) - len(answers)
    return f"{len(answers)} with ({listed}; {matches} past states), {without} without"


def _fills(stretch: Stretch) -> str:
    fills = stretch.fills()
    closed = Counter(one.reason for one in fills if not one.opens)
    listed = ", ".join(f"{count} {reason}" for reason, count in closed.most_common())
    opened, still = sum(one.opens for one in fills), len(stretch.books.positions)
    ended = f"{closed.total()} closed ({listed})" if closed else "none closed"
    return f"{len(fills)}: {opened} opened, {ended}; {still} open now"


def _equity(stretch: Stretch) -> str:
    before = -sum((one.amount for one in stretch.books.changes if one.account == "deposits"), ZERO)
    now = stretch.equity()
    change = 100 * float(now / before - 1)
    held = stretch.holding_pct()
    return f"{now:,.2f} of {before:,.0f} ({change:+.2f} %); holding both: {held:+.2f} % meanwhile"


def _model(decisions: Sequence[RecordedDecision]) -> str:
    costs = [one.costs for one in decisions]
    sent, came = sum(one.input_tokens for one in costs), sum(one.output_tokens for one in costs)
    usd = sum(one.cost_usd for one in costs)
    return f"{sent:,} tokens in, {came:,} out; the real model would have cost ${usd:.3f}"
