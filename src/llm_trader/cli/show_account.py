"""Describes the account of a workflow, its orders and its kill switch."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Final

from rich.text import Text

from llm_trader.cli.output import Description, line, minute, price_text, table
from llm_trader.timeframe import HOUR_MS, MINUTE_MS, SECOND_MS, Millis, iso8601

if TYPE_CHECKING:
    from llm_trader.app.workflow.account import Account, ListedOrder, OpenPosition, Orders
    from llm_trader.app.workflow.status import Switched, WorkflowStatus
    from llm_trader.workflow.paper.ledger import LedgerReport

_NONE: Final = "-"


def describe_account(account: Account, now_ms: Millis) -> Description:
    if account.positions:
        yield table(
            f"Open positions, {account.broker}",
            *("symbol", "quantity", "entry", "price", "seen", f"profit {account.currency}"),
            *("stop", "target", "opened", "closes at"),
            rows=(_position_row(one, now_ms) for one in account.positions),
        )
        yield ""
    else:
        yield line(f"No position is open ({account.broker}).")
    yield line(_equity(account))


def describe_orders(found: Orders) -> Description:
    if not found.orders:
        yield line(f"There are no such orders in {found.file}.")
        return
    yield table(
        f"Orders, newest first ({found.broker})",
        *("made (UTC)", "symbol", "side", "to", "is", "quantity", "price", "order"),
        rows=(_order_row(one) for one in found.orders),
        right_from=2,
    )
    for one in found.orders:
        if one.reason is not None:
            yield line(f"{one.client_order_id}: {one.reason}")
    if found.total > len(found.orders):
        yield line(f"{len(found.orders)} of {found.total:,}; more: --limit")


def describe_check(report: LedgerReport) -> Description:
    counts = f"{report.transactions:,} transactions with {report.entries:,} entries"
    counts += f", {report.orders:,} orders, {report.fills:,} fills"
    if report.problems:
        yield Text(f"The books do not balance: {counts}", "red")
        for problem in report.problems:
            yield line(problem)
    else:
        yield line(f"The books balance: {counts}.")
    rows = ((name, f"{amount:f}") for name, amount in sorted(report.balances.items()))
    yield table("Balances", "account", "amount", rows=rows)


def describe_switch_on(switched: Switched) -> Description:
    if switched.before is not None:
        yield line(f"It was on before: {switched.before}.")
    yield Text("No process opens a position now, until: llm-trader kill off", "yellow")


def describe_switch_off(switched: Switched) -> Description:
    if switched.before is None:
        yield line("The kill switch was off.")
    else:
        yield line(f"It was on: {switched.before}. New positions are allowed again.")


def describe_status(status: WorkflowStatus, now_ms: Millis) -> Description:
    if status.kill_switch is None:
        if "kill_switch" not in status.unknown:
            yield line("The kill switch is off.")
    else:
        yield Text(f"Nothing new is traded: {status.kill_switch}.", "red")
    money = "real money" if status.live else "its demo account"
    yield line(f"Orders go to {status.broker}{'' if status.broker == 'paper' else ', ' + money}.")
    if status.unsettled:
        count = "1 order" if status.unsettled == 1 else f"{status.unsettled} orders"
        yield Text(f"Nobody knows yet what became of {count}.", "yellow")
    if status.account is not None:
        held = len(status.account.positions)
        yield line(f"{_equity(status.account)} {held or 'No'} open position{'s'[: held != 1]}.")
        yield line(_day(status.account, status.max_daily_loss_pct))
    if status.runs is not None:
        states = ", ".join(f"{count} {state}" for state, count in status.runs.states.items())
        at_ms = status.runs.newest_at_ms
        newest = "" if at_ms is None else f"; the newest {_ago(at_ms, now_ms)} ago"
        yield line(f"Of the newest runs: {states or 'none'}{newest}.")
    if (one := status.newest_decision) is not None:
        hold = one.decision.hold_reason
        action = one.decision.action + ("" if hold is None else f" ({hold})")
        if one.vetoes:
            action += " (refused by guards)"
        yield line(
            f"Newest decision: {action} for {one.symbol} at {minute(iso8601(one.as_of_ms))}, by "
            f"{one.decider}; llm-trader decisions show {one.id}"
        )
    for reason in dict.fromkeys(status.unknown.values()):
        yield Text(f"{reason[:1].upper()}{reason[1:].rstrip('.')}.", "yellow")


def _position_row(one: OpenPosition, now_ms: Millis) -> tuple[str, ...]:
    return (
        one.symbol,
        f"{one.quantity:f}",
        _price(one.entry_price),
        _price(one.price),
        _NONE if one.price_at_ms is None else f"{_ago(one.price_at_ms, now_ms)} ago",
        _money(one.unrealized),
        _price(one.stop_price),
        _price(one.target_price),
        _minute(one.opened_at_ms),
        _minute(one.close_at_ms),
    )


def _order_row(one: ListedOrder) -> tuple[str, ...]:
    return (
        _minute(one.created_at_ms),
        one.symbol,
        one.side,
        one.kind,
        one.state,
        f"{one.quantity:f}",
        _price(one.average_price),
        one.client_order_id,
    )


def _equity(account: Account) -> str:
    if account.equity is None:
        return "The equity is unknown: no price of an open position was seen yet."
    return f"Equity {account.equity:,.2f} {account.currency}."


def _day(account: Account, limit_pct: float) -> str:
    if account.day_result is None or account.equity is None:
        return "What the day has brought is unknown."
    began = account.equity - account.day_result
    share = f" ({100 * account.day_result / began:+.2f} %)" if began > 0 else ""
    amount = f"{account.day_result:+,.2f} {account.currency}{share}"
    return f"This UTC day: {amount}; -{limit_pct:g} % ends trading for the day."


def _price(price: Decimal | None) -> str:
    return _NONE if price is None else price_text(float(price))


def _minute(at_ms: Millis | None) -> str:
    return _NONE if at_ms is None else minute(iso8601(at_ms - at_ms % MINUTE_MS))


def _money(amount: Decimal | None) -> str:
    return _NONE if amount is None else f"{amount:+,.2f}"


def _ago(then_ms: Millis, now_ms: Millis) -> str:
    passed_ms = max(now_ms - then_ms, 0)
    if passed_ms < 2 * MINUTE_MS:
        return f"{passed_ms // SECOND_MS} s"
    if passed_ms < 2 * HOUR_MS:
        return f"{passed_ms // MINUTE_MS} min"
    return f"{passed_ms // HOUR_MS} h"
