"""An evaluation from data to results.

1. `symbol_study`      for each symbol: the neighbours of every query under the as-of rule, what
                       forecasts made from them lost, and what decisions made from these earned
2. `controls`          the same on data with a known answer
3. `multiple_testing`  the configurations of a sweep, counted with all that were tried before
4. `verdicts`          the verdict, allowing for how much was compared; `report` words it

The parts of 1 to 3 are independent and run in processes of their own.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from msgspec.structs import replace

from llm_trader import __version__
from llm_trader.embedding.state import StateSpace
from llm_trader.errors import InvalidInputError
from llm_trader.evaluation.backtest.strategies import (
    BASELINE,
    MODEL_ARMS,
    RULE_ARMS,
    STRATEGIES,
    GivenArm,
)
from llm_trader.evaluation.controls.negative_controls import market_controls, simulated_controls
from llm_trader.evaluation.dataset import Dataset
from llm_trader.evaluation.plan import AS_IT_IS, NONE, PROTOTYPE, VARIANTS, StudyPlan, sweep_plans
from llm_trader.evaluation.report import wording
from llm_trader.evaluation.result_files import Study
from llm_trader.evaluation.results import (
    SCHEMA_VERSION,
    Command,
    Control,
    DeciderStudy,
    Metrics,
    Origin,
    Trials,
)
from llm_trader.evaluation.significance import Verdict
from llm_trader.evaluation.symbol_study import (
    Arms,
    Findings,
    Subject,
    Sweep,
    SymbolStudy,
    study_sweep,
    study_symbol,
    trial_step_ms,
)
from llm_trader.evaluation.verdict.multiple_testing import (
    Gains,
    Ledger,
    Trial,
    queries_digest,
    superior_p_value,
)
from llm_trader.evaluation.verdict.verdicts import adjusted, arms_verdict, forecast_verdict
from llm_trader.evaluation.workers import Task, run_tasks
from llm_trader.index.asof import visible_rows
from llm_trader.index.points import PointTable
from llm_trader.progress import Progress
from llm_trader.snapshot.outcome import LONGEST_HORIZON_MS
from llm_trader.timeframe import DAY_MS, Millis, iso8601


@dataclass(frozen=True, slots=True)
class StudyRun:
    """How a study runs: its ledger of trials, its processes, its progress, its place in time."""

    ledger: Ledger
    jobs: int
    progress: Progress
    created_at: str
    settings_digest: str | None = None


@dataclass(frozen=True, slots=True)
class _Question:
    """What a command asks: `main` of the variants is looked at closely, `sweep` are further
    configurations, `arms` strategies with the baseline among them.
    """

    command: Command
    plan: StudyPlan
    variants: Mapping[str, StudyPlan]
    main: str
    sweep: Mapping[str, StudyPlan]
    arms: tuple[str, ...]
    baseline: str
    model: ModelArms | None = None


@dataclass(frozen=True, slots=True)
class ModelArms:
    """The decisions of a language model by symbol and arm, made before, and about the model.

    `masked` arms beside the two that are compared are further controls.
    """

    given: Mapping[str, Mapping[str, GivenArm]]
    study: DeciderStudy
    cutoff_ms: Millis | None


def evaluate(subject: Subject, plan: StudyPlan, run: StudyRun) -> Study:
    """Everything there is to find about one configuration, and about its sweep."""
    main, sweep = plan.search.vector, sweep_plans(plan)
    if sweep:
        # By the same queries as the others, so that they can be compared.
        sweep = {AS_IT_IS: plan, **sweep}
    question = _Question("evaluate", plan, {main: plan}, main, sweep, STRATEGIES, BASELINE)
    return _answer(subject, question, run)


def compare(subject: Subject, plan: StudyPlan, names: Sequence[str], run: StudyRun) -> Study:
    """Forecasts by several kinds of vectors, of the queries that all of them can answer.

    The verdict is on the plan's own vector where it is one of them, else on the last one.
    """
    variants = {name: variant_of(plan, name) for name in names}
    if not variants:
        raise InvalidInputError(f"name vectors to compare: {', '.join(VARIANTS)}")
    main = plan.search.vector if plan.search.vector in variants else list(variants)[-1]
    question = _Question("compare", plan, variants, main, {}, (), BASELINE)
    return _answer(subject, question, run)


def ab(
    subject: Subject,
    plan: StudyPlan,
    arm_a: str,
    arm_b: str,
    run: StudyRun,
    model: ModelArms | None = None,
) -> Study:
    """Two strategies on the same snapshots; the verdict is on the second.

    With a `model` its further arms are compared with the first one, too.
    """
    refuse_arms(arm_a, arm_b, model_arms=model is not None)
    main = plan.search.vector
    names = [arm_a, arm_b]
    for arms in model.given.values() if model else ():
        names += [name for name in arms if name not in names]
    question = _Question("ab", plan, {main: plan}, main, {}, tuple(names), arm_a, model)
    return _answer(subject, question, run)


def refuse_arms(arm_a: str, arm_b: str, *, model_arms: bool = False) -> None:
    """Raises `InvalidInputError` unless they are two known strategies, or arms of a model."""
    known = MODEL_ARMS + RULE_ARMS if model_arms else STRATEGIES
    for arm in (arm_a, arm_b):
        if arm not in known:
            raise InvalidInputError(f"there is no arm {arm!r}; known: {', '.join(known)}")
    if arm_a == arm_b:
        raise InvalidInputError(f"both arms are {arm_a!r}; name two different ones")


def variant_of(plan: StudyPlan, name: str) -> StudyPlan:
    """The plan with another way to find neighbours, by a name of `VARIANTS`.

    `none` is the volatility model alone; `prototype` is what this program replaces: five neighbours
    by text, overlapping ones included, not scaled.
    """
    if name not in VARIANTS:
        raise InvalidInputError(f"there is no vector {name!r}; known: {', '.join(VARIANTS)}")
    search, rules = plan.search, plan.rules
    if name == NONE:
        search = replace(search, vector="random")
        rules = {
            horizon: replace(rule, weight_of_neighbours=0.0) for horizon, rule in rules.items()
        }
    elif name == PROTOTYPE:
        search = replace(search, vector="text", neighbours=5, gap_hours=0.0)
        prototype_rule = {"weight_of_neighbours": 1.0, "scale": "none", "kernel": 0.0}
        rules = {horizon: replace(rule, **prototype_rule) for horizon, rule in rules.items()}
    else:
        search = replace(search, vector=name)
    return replace(plan, search=search, rules=rules, sweep=())


def _answer(subject: Subject, question: _Question, run: StudyRun) -> Study:
    started = time.monotonic()
    symbols, plan, model = sorted(subject.dataset.points), question.plan, question.model
    plans = [*question.variants.values(), *question.sweep.values()]
    configurations = {_configuration(variant, subject.dataset) for variant in plans}
    trials = len(symbols) * (len(run.ledger.configurations() | configurations) + len(question.arms))
    given, cutoff_ms = ({}, None) if model is None else (model.given, model.cutoff_ms)
    arms = Arms(question.arms, question.baseline, trials, len(symbols), given, cutoff_ms)
    study_tasks = [
        Task(study_symbol, (subject, symbol, question.variants, question.main, arms))
        for symbol in symbols
    ]
    sweep_tasks = [
        Task(study_sweep, (subject, symbol, question.sweep)) for symbol in symbols if question.sweep
    ]
    control_tasks = [
        *(Task(market_controls, (subject.dataset, symbol, plan)) for symbol in symbols),
        Task(simulated_controls, (subject.dataset.intraday, len(symbols), plan)),
    ]
    results = iter(run_tasks([*study_tasks, *sweep_tasks, *control_tasks], run.jobs, run.progress))
    studies, sweeps, controls = (
        [next(results) for _ in tasks] for tasks in (study_tasks, sweep_tasks, control_tasks)
    )
    metrics = _metrics(subject, question, run, studies, sweeps, controls)
    return Study(
        replace(metrics, seconds=time.monotonic() - started),
        [steps for study in studies for steps in study.steps],
        [(study.symbol, backtest) for study in studies for backtest in study.backtests],
    )


def _metrics(
    subject: Subject,
    question: _Question,
    run: StudyRun,
    studies: Sequence[SymbolStudy],
    sweeps: Sequence[Sweep],
    controls: Sequence[list[Control]],
) -> Metrics:
    findings = Findings.joined([study.findings for study in studies])
    findings.skills = adjusted(findings.skills)
    verdict: Verdict = forecast_verdict(findings.skills, question.main)
    if question.command == "ab":
        verdict = arms_verdict(findings.arms, question.arms[1])
    metrics = Metrics(
        schema_version=SCHEMA_VERSION,
        command=question.command,
        created_at=run.created_at,
        origin=origin_of(subject, question.plan, run),
        verdict=verdict,
        controls=[control for part in controls for control in part],
        trials=_trials(subject, question, run.ledger, studies, sweeps),
        seconds=0.0,
        decider=question.model.study if question.model else None,
        **msgspec.structs.asdict(findings),
    )
    return replace(metrics, readings=wording.readings(metrics))


def _trials(
    subject: Subject,
    question: _Question,
    ledger: Ledger,
    studies: Sequence[SymbolStudy],
    sweeps: Sequence[Sweep],
) -> Trials:
    """Keep this study's trials, and test them with all others on the same queries."""
    dataset, plan = subject.dataset, question.plan
    queries = queries_digest(dataset, trial_step_ms(plan))
    gains: dict[str, Gains] = {}
    for symbol_gains in [study.gains for study in studies] + [sweep.gains for sweep in sweeps]:
        for label, columns in symbol_gains.items():
            gains.setdefault(label, {}).update(columns)
    for label, variant in {**question.sweep, **question.variants}.items():
        ledger.add(
            Trial(
                label=label,
                configuration=_configuration(variant, dataset),
                queries=queries,
                first_day_ms=dataset.start_ms,
                gains=gains[label],
            )
        )
    tested = ledger.trials_on(queries)
    return Trials(
        so_far=len(ledger.configurations()),
        configurations=[row for sweep in sweeps for row in sweep.configurations],
        superior_p_value=superior_p_value(tested, reps=plan.reps, seed=plan.seed),
        tested=len(tested),
    )


def _configuration(plan: StudyPlan, dataset: Dataset) -> str:
    """With the ids of the compared spaces: vectors of another model make another configuration."""
    text_space_id = dataset.text_space_id if plan.search.vector in ("text", "hybrid") else None
    return plan.configuration(StateSpace(dataset.intraday).space_id, text_space_id)


def origin_of(subject: Subject, plan: StudyPlan, run: StudyRun) -> Origin:
    """What was evaluated, and with what."""
    dataset = subject.dataset
    space = StateSpace(dataset.intraday)
    return Origin(
        package_version=__version__,
        exchange=dataset.exchange,
        symbols=sorted(dataset.points),
        start=iso8601(dataset.start_ms),
        end=iso8601(dataset.end_ms),
        feature_version=space.feature_version,
        state_space_id=space.space_id,
        text_space_id=dataset.text_space_id,
        settings_digest=plan.digest(),
        program_settings_digest=run.settings_digest,
        data_digest=dataset.digest(),
        lookback_filled={
            symbol: _lookback_filled(
                points, dataset.queries(symbol, plan.step_ms), plan.search.lookback_days
            )
            for symbol, points in dataset.points.items()
        },
        plan=plan,
        partial_states=dataset.partial_states(),
    )


def _lookback_filled(points: PointTable, queries: PointTable, lookback_days: int) -> float:
    times_ms = points.timestamp_ms
    first, last = visible_rows(times_ms, queries.timestamp_ms, lookback_days)
    interval_ms = int(np.diff(times_ms).min(initial=DAY_MS))
    states_of_lookback = (lookback_days * DAY_MS - LONGEST_HORIZON_MS) // interval_ms + 1
    return float(np.mean((last - first) / states_of_lookback))
