"""Whether an evaluation is worse than a baseline, or cannot be trusted: for CI.

The same plan on the same queries gives the same numbers, so a change comes from the code. A skill
is a regression where it fell by more than the tolerance. A failed control or leak probe, or a
missing comparison, stops the gate whatever the numbers say.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from llm_trader.errors import ConfigurationError, InvalidInputError
from llm_trader.evaluation.plan import StudyPlan
from llm_trader.evaluation.results import SCHEMA_VERSION, VERDICT_REFERENCE, Metrics, Skill
from llm_trader.evaluation.significance import Verdict
from llm_trader.evaluation.verdict.verdicts import assess_trust
from llm_trader.storage.files import read_whole

_RANK: Final[dict[Verdict, int]] = {"worse": 0, "no evidence": 1, "better": 2}


class Change(msgspec.Struct, frozen=True):
    """A skill against the volatility model in both results; None is unknown."""

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


def read_metrics(path: Path) -> Metrics:
    """Raises `ConfigurationError` unless the file is a result of `llm-trader evaluate`."""
    try:
        metrics = msgspec.json.decode(read_whole(path), type=Metrics)
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from None
    except (msgspec.MsgspecError, InvalidInputError) as error:
        raise ConfigurationError(
            f"{path} is not the metrics.json of an evaluation by this version: {error}"
        ) from None
    if metrics.schema_version != SCHEMA_VERSION or metrics.command != "evaluate":
        raise ConfigurationError(
            f"{path} has the schema {metrics.schema_version} of `{metrics.command}`; a gate takes "
            f"a metrics.json that `llm-trader evaluate` wrote with schema {SCHEMA_VERSION}"
        )
    return metrics


def plan_of_same_queries(metrics: Metrics) -> StudyPlan:
    """The plan for asking the same queries again, whatever else the store has by now."""
    origin = metrics.origin
    symbols = tuple(origin.symbols)
    return replace(origin.plan, symbols=symbols, start=origin.start, end=origin.end, sweep=())


def compare_with_baseline(baseline: Metrics, current: Metrics, tolerance: float) -> GateReport:
    """`tolerance` is the share of skill that may be lost, 0.002 for 0.2 percentage points."""
    earlier, later = _skills(baseline), _skills(current)
    changes, problems, lost_verdicts = [], _distrust(current), []
    for case, skill in earlier.items():
        again, where = later.get(case), " ".join(case)
        if again and _RANK[again.verdict] < _RANK[skill.verdict]:
            lost_verdicts.append(
                f"{where}: the verdict was “{skill.verdict}” and is “{again.verdict}”"
            )
        baseline_skill, current_skill = skill.skill.value, again.skill.value if again else None
        if baseline_skill is None:
            continue
        regressed = current_skill is None or current_skill < baseline_skill - tolerance
        changes.append(Change(*case, baseline_skill, current_skill, regressed))
        if current_skill is None:
            problems.append(f"{where} was measured then and is not now")
        elif regressed:
            problems.append(
                f"{where}: skill fell from {baseline_skill:+.2%} to {current_skill:+.2%}"
            )
    notes = [
        f"{name} was {baseline_id} and is {current_id}: the skills are not of the same states"
        for name in ("feature_version", "state_space_id", "data_digest")
        if (baseline_id := getattr(baseline.origin, name))
        != (current_id := getattr(current.origin, name))
    ]
    problems += lost_verdicts
    return GateReport(passed=not problems, problems=problems, notes=notes, changes=changes)


def _skills(metrics: Metrics) -> dict[tuple[str, str], Skill]:
    """The skills that a gate compares, by symbol and horizon."""
    return {
        (skill.symbol, skill.horizon): skill
        for skill in metrics.skills
        if skill.reference == VERDICT_REFERENCE
    }


def _distrust(metrics: Metrics) -> list[str]:
    trust = assess_trust(metrics)
    problems = [
        f"the {control.kind} control “{control.name}” failed on {control.symbol} {control.horizon}"
        for control in trust.failed_controls
    ]
    problems += [
        f"the {control.kind} control “{control.name}” on {control.symbol} {control.horizon} had "
        "too little data"
        for control in trust.idle_controls
    ]
    problems += [
        f"the leak probe “{probe.name}” on {probe.symbol}: {probe.problem}" for probe in trust.leaks
    ]
    problems += [
        f"the leak probe “{probe.name}” on {probe.symbol} found nothing to check"
        for probe in trust.idle_probes
    ]
    if not (metrics.controls and metrics.probes):
        problems.append("no controls or no leak probes were run")
    return problems
