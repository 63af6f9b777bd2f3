"""`positions`, `orders`, `ledger check`, `kill` and `status`: the account of a workflow."""

from __future__ import annotations

from typing import Annotated

import typer
from typer import Argument, Option

from llm_trader.app.job import Job
from llm_trader.cli import options
from llm_trader.cli.options import with_job
from llm_trader.cli.output import Result

ledger_app = typer.Typer(no_args_is_help=True, help="The books of the paper account: check them.")
kill_app = typer.Typer(
    no_args_is_help=True, help="The kill switch: stop new positions in every process, or go on."
)

_BY_HAND = "by hand"


@with_job()
def positions(job: Job) -> Result:
    """Show the open positions and the equity of the account that a workflow trades.

    The account is that of the setting workflow.broker. On paper it is read beside the workflow,
    with the prices that the workflow has seen; an exchange is asked, which needs its keys.
    """
    from llm_trader.app.workflow.account import read_account
    from llm_trader.cli.show_account import describe_account

    account = read_account(job)
    return Result(account, describe_account(account, job.now_ms))


@with_job()
def orders(
    job: Job,
    symbol: Annotated[
        str | None, Option("--symbol", "--symbols", help="Only orders of this symbol.")
    ] = None,
    limit: Annotated[
        int, Option("--limit", "-n", min=1, max=10_000, help="Most orders to list.")
    ] = 20,
) -> Result:
    """List orders, the newest first: of the paper account, or those sent to an exchange.

    An order that is `unknown` stops its symbol until the exchange has said what became of it;
    a workflow asks before each decision.
    """
    from llm_trader.app.workflow.account import list_orders
    from llm_trader.cli.show_account import describe_orders

    found = list_orders(job, None if symbol is None else options.one_symbol(symbol), limit)
    return Result(found, describe_orders(found))


@ledger_app.command("check")
@with_job()
def check(job: Job) -> Result:
    """Add up the books of the paper account anew; exits with 1 where they do not balance.

    Every transaction must sum to zero, every balance must be the sum of its entries, and every
    position that of its fills. A workflow may trade meanwhile.
    """
    from llm_trader.app.workflow.account import check_ledger
    from llm_trader.cli.show_account import describe_check

    report = check_ledger(job)
    return Result(report, describe_check(report), bool(report.problems))


@ledger_app.callback()
def _ledger() -> None:
    pass


@kill_app.command()
@with_job()
def on(
    job: Job,
    reason: Annotated[str, Argument(help="Why, for whoever finds it.")] = _BY_HAND,
) -> Result:
    """Stop new positions in every process, within a second, until `kill off`.

    Decisions are made and recorded as before; each becomes a HOLD by this guard. Open positions
    keep their stops and targets, and are closed by them or when their time is over.
    """
    from llm_trader.app.workflow.status import switch_on
    from llm_trader.cli.show_account import describe_switch_on

    switched = switch_on(job, reason)
    return Result(switched, describe_switch_on(switched))


@kill_app.command()
@with_job()
def off(job: Job) -> Result:
    """Allow new positions again."""
    from llm_trader.app.workflow.status import switch_off
    from llm_trader.cli.show_account import describe_switch_off

    switched = switch_off(job)
    return Result(switched, describe_switch_off(switched))


@with_job("runs", "postgres_url", "record")
def status(job: Job) -> Result:
    """Show at a glance whether the workflow trades: kill switch, account, orders, runs, decisions.

    What cannot be known is said in words.
    """
    from llm_trader.app.workflow.status import workflow_status
    from llm_trader.cli.show_account import describe_status

    found = workflow_status(job)
    return Result(found, describe_status(found, job.now_ms))
