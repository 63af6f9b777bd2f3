"""Describes runs of a workflow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.text import Text

from llm_trader.cli.output import Description, line, minute, table
from llm_trader.timeframe import Millis, iso8601

if TYPE_CHECKING:
    from llm_trader.app.workflow.runs import HandRun
    from llm_trader.workflow.engine.protocol import NodeRecord, RunDetails, RunSummary

_STYLES = {"failed": "red", "cancelled": "yellow", "done": "green"}


def describe_runs(runs: Sequence[RunSummary]) -> Description:
    if not runs:
        yield line("There are no such runs.")
        return
    rows = (
        (
            one.run_id,
            "" if one.as_of_ms is None else minute(iso8601(one.as_of_ms)),
            one.state,
            _action(one),
            one.execution or "",
        )
        for one in runs
    )
    yield table("Runs", "run", "state of", "run is", "decision", "order", rows=rows, right_from=9)


def describe_hand_run(ran: HandRun) -> Description:
    yield from (Text(note, "yellow") for note in ran.notes)
    if ran.was_known:
        yield Text("This state was decided on before; it is not decided on again.", "yellow")
    yield from describe_run(ran.details)


def describe_run(details: RunDetails) -> Description:
    one = details.summary
    yield Text(f"{one.run_id}: {one.state}", _STYLES.get(one.state, ""))
    decision = _action(one)
    if decision:
        order = f"; order: {one.execution}" if one.execution else ""
        yield line(f"Decision: {decision}{order}.")
    for text in (one.note, one.error):
        if text:
            yield line(f"{text[:1].upper()}{text[1:].rstrip('.')}.")
    mode = "shadow, " if one.options.shadow else ""
    mode += f"both prompts, {one.options.ab} executes, " if one.options.ab != "off" else ""
    yield line(f"{one.workflow}, graph {one.graph_digest}, {mode}accepted {_time(one)}.")
    if details.records:
        yield ""
        yield table(
            "Nodes",
            *("node", "is", "tries", "ms", "what came of it"),
            rows=(_node_row(record) for record in details.records),
            right_from=9,
        )


def _node_row(record: NodeRecord) -> tuple[str, ...]:
    began, ended = record.started_at_ms, record.ended_at_ms
    lasted = "" if began is None or ended is None else str(ended - began)
    return (
        record.node,
        record.status,
        str(record.attempts or ""),
        lasted,
        "; ".join(_outcome(record)),
    )


def _outcome(record: NodeRecord) -> Iterator[str]:
    if record.error is not None:
        yield record.error.message
    output: Any = record.output
    for name in ("verdict", "matches", "state", "message", "note"):
        value = getattr(output, name, None)
        if value is not None:
            yield f"{name} {value}" if name in ("verdict", "matches", "state") else str(value)
    decision = getattr(output, "decision", None)
    if decision is not None:
        yield f"{decision.action}: {decision.reasoning}"


def _action(one: RunSummary) -> str:
    if one.action is None:
        return ""
    return one.action if one.hold_reason is None else f"{one.action} ({one.hold_reason})"


def _time(one: RunSummary) -> str:
    accepted: Millis = one.accepted_at_ms
    return iso8601(accepted)
