"""Describes decisions, their record, and what followed them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from rich.table import Table
from rich.text import Text

from llm_trader.cli.output import Description, heading, line, minute, number, price_text, table
from llm_trader.cli.show_answer import matches_table, quote_of
from llm_trader.timeframe import MINUTE_MS, SECOND_MS, iso8601

if TYPE_CHECKING:
    from llm_trader.app.decisions import DecisionReport, ShownPrompt
    from llm_trader.llm.decision import Decision
    from llm_trader.llm.record.call_rows import RecordedCall
    from llm_trader.llm.record.decisions import Costs, DecisionSummary, RecordedDecision, Veto
    from llm_trader.llm.record.statistics import (
        DailyCost,
        DecisionGroup,
        DecisionStatistics,
        Followed,
        GroupOutcome,
    )
    from llm_trader.llm.replay import Replay
    from llm_trader.retrieval.intervals import Interval

_WHY_HOLD: Final = {
    "model": "by choice",
    "error": "because of an error",
    "guard": "because of a guard",
}
_DIFF_SHOWN: Final = 40
_SHOWN_DAYS: Final = 14


def describe_decision(report: DecisionReport) -> Description:
    one = report.decision
    for note in report.notes:
        yield Text(note, "yellow")
    yield from _decision_lines(one, report.calls)
    if one.id:
        again = f"llm-trader replay {one.id}"
        yield line(f"Recorded as decision {one.id}. The same again from the record: {again}")


def describe_record(report: DecisionReport, *, verbose: bool) -> Description:
    one = report.decision
    yield from _decision_lines(one, report.calls)
    made = f"Decision {one.id}, made at {_time(one.created_at_ms)} by {one.origin}"
    labels = "".join(f", {name} {value}" for name, value in one.labels.items())
    yield line(f"{made}{labels}; settings {one.settings_digest}.")
    if one.answer is not None and one.answer.matches:
        yield ""
        yield matches_table(one.answer.matches)
    yield ""
    yield table("Made with", "", "version", rows=one.versions.items(), right_from=2)
    if report.calls:
        yield ""
        yield _calls(report.calls)
    if verbose:
        for call in report.calls:
            yield from _texts(call)
    elif report.calls:
        yield line("The prompt and the replies: --verbose")


def describe_list(decisions: list[DecisionSummary]) -> Description:
    rows = (
        (
            one.id,
            _time(one.created_at_ms),
            one.symbol,
            _time(one.as_of_ms),
            one.decider,
            one.arm_used,
            _action(one.decision) + (" (refused)" if one.vetoes else ""),
            number(one.decision.confidence, ".2f"),
            f"{one.costs.cost_usd:.4f}",
            f"{one.costs.latency_ms / SECOND_MS:.1f}",
        )
        for one in decisions
    )
    columns = "id", "made (UTC)", "symbol", "as of", "decider", "arm", "action", "confidence"
    yield table("Decisions, newest first", *columns, "USD", "seconds", rows=rows)
    if not decisions:
        yield line("none; make one with: llm-trader decide --symbol BTCUSDT")


def describe_replay(report: Replay) -> Description:
    if report.is_same:
        yield heading(
            f"Decision {report.id} is the same, byte for byte: {_action(report.recorded)}"
        )
    else:
        yield heading(f"Decision {report.id} is another one now")
        yield line(f"recorded: {_in_words(report.recorded)}")
        yield line(f"now: {_in_words(report.replayed)}")
    yield line(f"{report.note}. It cost nothing.")
    if not report.prompt_is_same:
        yield line("The prompt differs from the recorded one:")
        for text in report.prompt_diff[:_DIFF_SHOWN]:
            yield Text(f"    {text}")
        if (more := len(report.prompt_diff) - _DIFF_SHOWN) > 0:
            yield line(f"and {more} more lines; all are in --json")
    for changed in report.differences:
        yield line(f"{changed.name}: {changed.recorded} then, {changed.now} now")


def describe_prompt(shown: ShownPrompt) -> Description:
    prompt = shown.prompt
    for note in shown.notes:
        yield Text(note, "yellow")
    yield heading(f"System, {prompt.template_version}")
    yield Text(prompt.system)
    yield ""
    yield heading(f"User, arm {prompt.arm}" + ("" if prompt.has_evidence else ", no evidence"))
    yield Text(prompt.user)
    yield ""
    yield line(
        f"State of {shown.symbol} at {_time(shown.as_of_ms)}. Some {shown.tokens_estimated:,} "
        f"tokens with the schema of the reply: {shown.model} costs about {shown.expected_usd:.5f} "
        f"USD for a decision, and {shown.at_most_usd:.5f} at most."
    )


def describe_statistics(found: DecisionStatistics) -> Description:
    if not found.decisions:
        yield line("no decision is on record that matches; see: llm-trader decisions list")
        return
    yield _group_counts(found.groups)
    yield ""
    yield _group_costs(found.groups)
    if any(one.cost_usd for one in found.daily_costs):
        yield ""
        yield _daily_costs(found.daily_costs)
    if found.outcomes:
        yield ""
        rows = (
            (*_group_names(one), *_followed(one.followed), one.unknown) for one in found.outcomes
        )
        columns = "decider", "arm", "origin", "known", "effective", "hit rate", "mean move"
        outcomes = table(
            f"What followed LONG and SHORT within {found.horizon}, in their direction",
            *columns,
            "unknown",
            rows=rows,
        )
        outcomes.caption = (
            f"{100 * found.interval_level:.0f} % intervals in brackets; moves before costs. "
            "Decisions whose horizons overlap count as one in effective. Unknown: the horizon has "
            "not passed, or the store lacks it."
        )
        yield outcomes
    if found.bands:
        yield ""
        yield _bands(found)


def _bands(found: DecisionStatistics) -> Table:
    rows = (
        (
            f"{band.low:.1f} to {band.high:.1f}",
            number(band.followed.confidence, ".2f"),
            *_followed(band.followed),
        )
        for band in found.bands
    )
    columns = "confidence", "mean", "known", "effective", "hit rate", "mean move"
    bands = table("Is the confidence right?", *columns, rows=rows)
    bands.caption = "A confidence is calibrated where its mean is the hit rate."
    return bands


def _group_counts(groups: Iterable[DecisionGroup]) -> Table:
    rows = (
        (
            *_group_names(one),
            f"{one.decisions:,}",
            *(one.long, one.short, one.hold_model, one.hold_error, one.hold_guard),
        )
        for one in groups
    )
    columns = "decider", "arm", "origin", "decisions", "LONG", "SHORT"
    holds = "HOLD model", "HOLD error", "HOLD guard"
    return table("Decisions by who made them", *columns, *holds, rows=rows)


def _group_costs(groups: Iterable[DecisionGroup]) -> Table:
    rows = (
        (
            *_group_names(one),
            f"{one.cost_usd:.4f}",
            f"{one.cost_usd / one.decisions:.5f}",
            f"{one.paid_usd:.4f}",
            f"{one.input_tokens:,}",
            f"{one.cached_input_tokens:,}",
            f"{one.output_tokens:,}",
            *(number(ms and ms / SECOND_MS, ".1f") for ms in _latencies(one)),
        )
        for one in groups
    )
    columns = "decider", "arm", "origin", "USD", "USD each", "USD paid", "tokens in", "cached"
    costs = table("Cost and latency", *columns, "out", "median s", "90 % s", rows=rows)
    costs.caption = "USD paid leaves out replies that the record already had."
    return costs


def _daily_costs(costs: Sequence[DailyCost]) -> Table:
    shown = [one for one in reversed(costs) if one.cost_usd][:_SHOWN_DAYS]
    rows = (
        (one.day, one.symbol, f"{one.decisions:,}", f"{one.cost_usd:.4f}", f"{one.paid_usd:.4f}")
        for one in shown
    )
    columns = "day (UTC)", "symbol", "decisions", "USD"
    days = table("Cost by day and symbol, newest first", *columns, "USD paid", rows=rows)
    if hidden := sum(bool(one.cost_usd) for one in costs) - len(shown):
        days.caption = f"{hidden:,} more: --json, or narrow them down with --symbol and --since."
    return days


def _latencies(one: DecisionGroup) -> tuple[float | None, float | None]:
    return one.latency_p50_ms, one.latency_p90_ms


def _group_names(one: DecisionGroup | GroupOutcome) -> tuple[str, str, str]:
    decider = "/".join(name for name in (one.provider, one.model) if name)
    return decider or "-", one.arm, one.origin


def _followed(one: Followed) -> tuple[str, str, str, str]:
    return (
        f"{one.decisions:,}",
        f"{one.effective:,}",
        _interval(one.hit_rate, 100, ".0f"),
        _interval(one.mean_pct, 1, "+.2f"),
    )


def _interval(interval: Interval, scale: float, spec: str) -> str:
    if interval.value is None:
        return "-"
    value = f"{scale * interval.value:{spec}} %"
    if interval.low is None or interval.high is None:
        return value
    return f"{value} [{scale * interval.low:{spec}}, {scale * interval.high:{spec}}]"


def _decision_lines(one: RecordedDecision, calls: Sequence[RecordedCall]) -> Description:
    price = one.snapshot.price
    at = "" if price is None else f" at {price_text(price)}{quote_of(one.symbol)}"
    yield heading(f"{_in_words(one.decision)}: {one.symbol}{at}, {_time(one.as_of_ms)}")
    yield line(_sentence(one.decision.reasoning))
    if one.expiry is not None and one.expiry.is_void:
        yield line(f"Too late to execute it: {one.expiry.reason}.")
    for veto in one.vetoes:
        yield line(_sentence(f"The guard {veto.rule} refused it: {_veto(veto)}"))
    if one.decision.hold_reason != "guard":
        yield line(_evidence(one))
    yield line(_cost(one, calls))


def _veto(veto: Veto) -> str:
    """Why, and the numbers that were compared."""
    numbers = ", ".join(f"{name} {_number(value)}" for name, value in veto.numbers.items())
    return f"{veto.message} ({numbers})" if numbers else veto.message


def _number(value: float | int | str | None) -> str:
    if value is None:
        return "unknown"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _action(decision: Decision) -> str:
    kind = "" if decision.hold_reason is None else f" ({decision.hold_reason})"
    return f"{decision.action}{kind}"


def _in_words(decision: Decision) -> str:
    parts: list[str] = [decision.action]
    if decision.hold_reason is not None:
        parts.append(_WHY_HOLD[decision.hold_reason])
    if decision.confidence is not None:
        parts.append(f"confidence {decision.confidence:.2f}")
    for name, value in (("stop", decision.stop_pct), ("target", decision.target_pct)):
        if value is not None:
            parts.append(f"{name} {value:+g} %")
    if decision.size_pct is not None:
        parts.append(f"size {decision.size_pct:g} %")
    return ", ".join(parts)


def _evidence(one: RecordedDecision) -> str:
    """The evidence that the decision was made with, in a line."""
    if one.retrieval_error is not None:
        return f"No evidence: {one.retrieval_error}."
    if one.arm_used == "baseline":
        return "No evidence: the arm baseline decides on the state alone."
    if one.answer is None:
        return "No evidence."
    evidence = one.answer.evidence
    shown = "" if one.has_evidence else ", of which the prompt had none"
    matches = f"{len(one.answer.matches)} matches, {evidence.episodes} episodes"
    return f"Evidence of {matches}{shown}, verdict {evidence.verdict}: {evidence.reason}."


def _cost(one: RecordedDecision, calls: Sequence[RecordedCall]) -> str:
    is_hold = one.decision.hold_reason in ("error", "guard")
    if not one.calls:
        by = "" if is_hold else f"Decided by {one.decider}. "
        return f"{by}No model was asked, so it cost nothing."
    costs = one.costs
    cached = f", {costs.cached_input_tokens:,} of them cached" if costs.cached_input_tokens else ""
    asked = "" if len(one.calls) == 1 else f" in {len(one.calls)} calls"
    return (
        f"{'Asked' if is_hold else 'Decided by'} {one.decider}, arm {one.arm_used}{asked}: "
        f"{costs.input_tokens:,} tokens in{cached}, {costs.output_tokens:,} out, "
        f"{_paid(costs, calls)}, {costs.latency_ms / SECOND_MS:.1f} s."
    )


def _paid(costs: Costs, calls: Sequence[RecordedCall]) -> str:
    if costs.paid_usd != costs.cost_usd:
        paid = f"{costs.paid_usd:.5f} USD" if costs.paid_usd else "nothing"
        return f"{paid} now, as the record had a reply ({costs.cost_usd:.5f} USD then)"
    ends = [call.reply or call.failure for call in calls]
    is_known = all(end is None or not end.unanswered for end in ends)
    at_most = "" if is_known else " at most, as attempts without an answer may be charged"
    return f"{costs.cost_usd:.5f} USD{at_most}"


def _calls(calls: Iterable[RecordedCall]) -> Table:
    rows = (
        (
            call.id,
            call.request_hash[:12],
            f"{call.request.provider}/{call.request.model}",
            call.state if call.failure is None else f"{call.state}: {call.failure.kind}",
            call.attempts,
            f"{call.latency_ms / SECOND_MS:.1f}",
            "unknown" if call.cost_usd is None else f"{call.cost_usd:.5f}",
        )
        for call in calls
    )
    columns = "call", "request", "model", "state", "attempts", "seconds", "USD"
    return table("Calls", *columns, rows=rows)


def _texts(call: RecordedCall) -> Description:
    request = call.request
    parts = [("System", request.system)]
    parts += [(message.role.capitalize(), message.text) for message in request.messages]
    if call.reply is not None:
        parts.append((f"Reply, {call.reply.finish}", call.reply.text))
    if call.failure is not None:
        parts.append((f"Failure, {call.failure.kind}", call.failure.message))
    for title, text in parts:
        yield ""
        yield heading(f"{title} (call {call.id})")
        yield Text(text)


def _sentence(text: str) -> str:
    text = text.strip() or "No reason was given"
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _time(time_ms: int) -> str:
    return minute(iso8601(time_ms // MINUTE_MS * MINUTE_MS))
