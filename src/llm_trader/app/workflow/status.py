"""What the workflow is doing, in one look. A part that cannot be known says why, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from llm_trader.app.job import Job
from llm_trader.app.llm_deciders import open_record
from llm_trader.app.workflow.account import Account, open_journal, read_account
from llm_trader.app.workflow.runs import list_runs
from llm_trader.errors import InvalidInputError, LlmTraderError
from llm_trader.llm.record.decisions import DecisionFilter, DecisionSummary
from llm_trader.timeframe import Millis
from llm_trader.workflow.config import BrokerName
from llm_trader.workflow.kill_switch import KillSwitch
from llm_trader.workflow.moved_files import refuse_old_place

T = TypeVar("T")

# Enough for a day of two symbols.
_RUNS: Final = 200


class RunCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Of the newest runs, at most 200, by state; `newest_at_ms` is when the last was accepted."""

    states: dict[str, int]
    newest_at_ms: Millis | None


class WorkflowStatus(msgspec.Struct, frozen=True, kw_only=True):
    """`unknown` says why a part is None. `unsettled` are orders nobody knows the end of."""

    kill_switch: str | None
    broker: BrokerName
    live: bool
    account: Account | None
    max_daily_loss_pct: float
    unsettled: int | None
    runs: RunCounts | None
    newest_decision: DecisionSummary | None
    unknown: dict[str, str]


def workflow_status(job: Job) -> WorkflowStatus:
    config = job.settings.workflow
    unknown: dict[str, str] = {}

    def known(part: str, read: Callable[[], T]) -> T | None:
        try:
            return read()
        except LlmTraderError as error:
            unknown[part] = error.message
            return None

    return WorkflowStatus(
        kill_switch=known("kill_switch", KillSwitch(config.guards.kill_switch).reason),
        broker=config.broker,
        live=config.broker != "paper" and config.exchange.live,
        account=known("account", lambda: read_account(job)),
        max_daily_loss_pct=config.guards.max_daily_loss_pct,
        unsettled=known("unsettled", lambda: _unsettled(job)),
        runs=known("runs", lambda: _run_counts(job)),
        newest_decision=known("newest_decision", lambda: _newest_decision(job)),
        unknown=unknown,
    )


class Switched(msgspec.Struct, frozen=True, kw_only=True):
    """The kill switch now; `before` is what it said, None where it was off."""

    is_on: bool
    before: str | None


def switch_on(job: Job, reason: str) -> Switched:
    """Stops new positions in every process."""
    switch = KillSwitch(job.settings.workflow.guards.kill_switch)
    # Nothing keeps a switch from being turned on, not even one at its former place.
    before = switch.reason() if switch.path.exists() else None
    switch.turn_on(reason, job.now_ms)
    return Switched(is_on=True, before=before)


def switch_off(job: Job) -> Switched:
    switch = KillSwitch(job.settings.workflow.guards.kill_switch)
    before = switch.reason()
    switch.turn_off()
    return Switched(is_on=False, before=before)


def _unsettled(job: Job) -> int:
    """On paper every order has an end; without a journal none was sent."""
    config = job.settings.workflow
    if config.broker == "paper":
        return 0
    refuse_old_place(config.exchange.journal)
    if not config.exchange.journal.exists():
        return 0
    with open_journal(job) as journal:
        return journal.count(None, "sending", "unknown")


def _run_counts(job: Job) -> RunCounts:
    runs = list_runs(job, _RUNS, None)
    newest_at_ms = runs[0].accepted_at_ms if runs else None
    return RunCounts(states=dict(Counter(one.state for one in runs)), newest_at_ms=newest_at_ms)


def _newest_decision(job: Job) -> DecisionSummary:
    with open_record(job, create=False) as record:
        found = record.decisions.summaries(DecisionFilter(origin="workflow"), 1)
    if not found:
        raise InvalidInputError("no workflow has decided yet")
    return found[0]
