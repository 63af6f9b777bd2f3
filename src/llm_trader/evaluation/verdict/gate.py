"""Whether an evaluation is worse than an earlier one, or cannot be trusted: for CI.

The same plan on the same queries gives the same numbers, so a change comes from the code. A skill
is a regression where it fell by more than the tolerance; that a control or a leak probe fails, or
that a comparison is missing, stops the gate whatever the numbers say.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from llm_trader.errors import ConfigurationError, InvalidInputError
from llm_trader.evaluation.plan import StudyPlan
from llm_trader.evaluation.results import JUDGED, SCHEMA_VERSION, Command, Metrics
from llm_trader.evaluation.significance import Verdict
from llm_trader.retrieval.intervals import Interval

TOLERANCE: Final = 0.002

_RANK: Final[dict[Verdict, int]] = {"worse": 0, "no evidence": 1, "better": 2}


class _Skill(msgspec.Struct, frozen=True):
    variant: str
    symbol: str
    horizon: str
    reference: str
    skill: Interval
    verdict: Verdict


class _Control(msgspec.Struct, frozen=True):
    name: str
    kind: str
    symbol: str
    horizon: str
    wide: Interval
    passed: bool


class _Probe(msgspec.Struct, frozen=True):
    name: str
    symbol: str
    checked: int
    problem: str | None


class _Origin(msgspec.Struct, frozen=True):
    symbols: list[str]
    start: str
    end: str
    feature_version: str
    state_space_id: str
    data_digest: str
    plan: StudyPlan


class Result(msgspec.Struct, frozen=True):
    """What a gate reads of a `metrics.json`."""

    schema_version: int
    command: Command
    origin: _Origin
    skills: list[_Skill]
    controls: list[_Control]
    probes: list[_Probe]

    def plan_again(self) -> StudyPlan:
        """What asks the same queries again, whatever else the store has by now."""
        of = self.origin
        return replace(of.plan, symbols=tuple(of.symbols), start=of.start, end=of.end, sweep=())


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One skill against the base rate treated alike, then and now; None is not known."""

    symbol: str
    horizon: str
    before: float | None
    now: float | None
    regressed: bool


class GateReport(msgspec.Struct, frozen=True, kw_only=True):
    """`problems` is empty where the gate is passed. `notes` are no reason to stop."""

    passed: bool
    problems: list[str]
    notes: list[str]
    changes: list[Change]


def read_result(path: Path) -> Result:
    """Raises `ConfigurationError` where it is not there or no result of `evaluate`."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from None
    try:
        found = msgspec.json.decode(raw, type=Result)
    except (msgspec.MsgspecError, InvalidInputError) as error:
        raise ConfigurationError(
            f"{path} is not the metrics.json of an evaluation by this version: {error}"
        ) from None
    if found.schema_version != SCHEMA_VERSION or found.command != "evaluate":
        raise ConfigurationError(
            f"{path} has the schema {found.schema_version} of `{found.command}`; a gate takes a "
            f"metrics.json that `llm-trader evaluate` wrote with schema {SCHEMA_VERSION}"
        )
    return found


def result_of(metrics: Metrics) -> Result:
    """As it would be read from the file."""
    return msgspec.json.decode(msgspec.json.encode(metrics), type=Result)


def judge(then: Result, now: Result, tolerance: float = TOLERANCE) -> GateReport:
    """`tolerance` is the share of skill that may be lost, 0.002 for 0.2 % points."""
    changes = _changes(then, now, tolerance)
    problems = _distrust(now) + _regressions(changes) + _verdicts(then, now)
    notes = [
        f"{what} was {before} and is {here}: the skills are not of the same states"
        for what in ("feature_version", "state_space_id", "data_digest")
        if (before := getattr(then.origin, what)) != (here := getattr(now.origin, what))
    ]
    return GateReport(passed=not problems, problems=problems, notes=notes, changes=changes)


def _distrust(now: Result) -> list[str]:
    controls = [
        f"the {one.kind} control “{one.name}” failed on {one.symbol} {one.horizon}".rstrip()
        for one in now.controls
        if not one.passed
    ]
    leaks = [
        f"the leak probe “{one.name}” on {one.symbol}: {one.problem}"
        for one in now.probes
        if one.problem is not None
    ] + [
        f"the leak probe “{one.name}” on {one.symbol} found nothing to check"
        for one in now.probes
        if not one.checked
    ]
    controls += [
        f"the {one.kind} control “{one.name}” on {one.symbol} {one.horizon} had too little data"
        for one in now.controls
        if one.passed and one.wide.low is None
    ]
    unchecked = [] if now.controls and now.probes else ["no controls or no leak probes were run"]
    return controls + leaks + unchecked


def _regressions(changes: list[Change]) -> list[str]:
    found = []
    for one in changes:
        where = f"{one.symbol} {one.horizon}"
        if one.now is None:
            found.append(f"{where} was measured then and is not now")
        elif one.regressed and one.before is not None:
            found.append(f"{where}: skill fell from {one.before:+.2%} to {one.now:+.2%}")
    return found


def _changes(then: Result, now: Result, tolerance: float) -> list[Change]:
    here = {
        (one.symbol, one.horizon): one.skill.value for one in now.skills if one.reference == JUDGED
    }
    found = []
    for one in then.skills:
        if one.reference != JUDGED or one.skill.value is None:
            continue
        before, value = one.skill.value, here.get((one.symbol, one.horizon))
        found.append(
            Change(
                symbol=one.symbol,
                horizon=one.horizon,
                before=before,
                now=value,
                regressed=value is None or value < before - tolerance,
            )
        )
    return found


def _verdicts(then: Result, now: Result) -> list[str]:
    """Where the verdict on one symbol and horizon got worse."""
    here = {(one.symbol, one.horizon): one.verdict for one in now.skills if one.reference == JUDGED}
    return [
        f"{one.symbol} {one.horizon}: the verdict was “{one.verdict}” and is “{verdict}”"
        for one in then.skills
        if one.reference == JUDGED
        and (verdict := here.get((one.symbol, one.horizon))) is not None
        and _RANK[verdict] < _RANK[one.verdict]
    ]
