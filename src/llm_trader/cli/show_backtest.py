"""Describes the backtest of a workflow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from llm_trader.cli.output import Description, line, minute, number, table

if TYPE_CHECKING:
    from llm_trader.app.workflow.backtest_report import BacktestReport

# The whole list is in the JSON.
_TRADES_SHOWN = 10


def describe_backtest(report: BacktestReport) -> Description:
    performance = report.performance
    yield line(
        f"The graph {report.graph} ({report.digest}) on {report.symbol} from "
        f"{minute(report.start)} to {minute(report.end)}: {report.states:,} states, "
        f"{report.states_missing:,} not usable."
    )
    for problem in (*report.failures, *report.book_problems):
        yield Text(f"{problem[:1].upper()}{problem[1:].rstrip('.')}.", "red")
    counts = {
        "decision": report.actions,
        "veto": report.vetoes,
        "order": report.orders,
        "error": report.node_errors,
    }
    rows = [(kind, name, f"{n:,}") for kind, of in counts.items() for name, n in of.items()]
    yield table("Decisions", "what", "which", "times", rows=rows, right_from=2)
    won_pct = None if performance.win_rate is None else performance.win_rate * 100
    figures = (
        ("Equity, USDT", f"{report.equity_usd:,.2f} of {report.deposit_usd:,.2f}"),
        ("Return, %", number(performance.total_return_pct, "+.2f")),
        ("Deepest fall, %", number(performance.max_drawdown_pct, ".2f")),
        ("Sharpe ratio, per year", number(performance.sharpe, "+.2f")),
        ("Trades", f"{performance.trades:,}"),
        ("Won, %", number(won_pct, ".0f")),
        ("Mean net result of a position, %", number(performance.mean_net_pct, "+.3f")),
        ("Fees and slippage, USDT", f"{report.costs_usd:,.2f}"),
        ("Funding paid, USDT", f"{report.funding_usd:,.2f}"),
    )
    yield table("Account", "figure", "value", rows=figures, right_from=1)
    if report.trades:
        yield table(
            f"The last of {len(report.trades):,} trades; --json has all",
            *("entry", "side", "end", "price", "to", "by", "net %"),
            rows=(
                (
                    minute(one.entry),
                    one.side,
                    one.exit[:16].replace("T", " "),  # a stop is met within a candle
                    f"{one.entry_price:g}",
                    f"{one.exit_price:g}",
                    one.exit_reason,
                    f"{one.net_pct:+.2f}",
                )
                for one in report.trades[-_TRADES_SHOWN:]
            ),
            right_from=9,
        )
