"""An evaluation from data to results: walks, scores, controls, decisions, and what they mean.

1. `examining`  of each symbol: the neighbours of every query under the as-of rule, what forecasts
                made of them lost, and what decisions made of them earned
2. `controls`   the same on data of which the answer is known, each time
3. `trials`     the configurations of a sweep, counted with all that were tried before
4. `judging`    the verdict, allowing for how much was looked at; `wording` puts it into words

The pieces of 1 to 3 are independent and run in processes of their own.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from llm_trader import __version__
from llm_trader.embedding.state import StateSpace
from llm_trader.errors import InvalidInputError
from llm_trader.evaluation.backtest.strategies import ARMS, BASELINE, Traded
from llm_trader.evaluation.controls.negative_controls import market_controls, simulated_controls
from llm_trader.evaluation.csv_tables import Steps
from llm_trader.evaluation.dataset import Dataset
from llm_trader.evaluation.plan import AS_IT_IS, NONE, PROTOTYPE, VARIANTS, StudyPlan
from llm_trader.evaluation.report import wording
from llm_trader.evaluation.results import (
    SCHEMA_VERSION,
    Command,
    Configuration,
    Control,
    Metrics,
    Origin,
    Trials,
)
from llm_trader.evaluation.significance import Verdict
from llm_trader.evaluation.symbol_study import (
    Arms,
    Examined,
    Findings,
    Gains,
    Subject,
    examine,
    trial_step_ms,
    try_variants,
)
from llm_trader.evaluation.verdict.multiple_testing import (
    Ledger,
    Trial,
    queries_digest,
    superior_p_value,
    tried_on,
)
from llm_trader.evaluation.verdict.verdicts import adjusted, arms_verdict, forecast_verdict
from llm_trader.evaluation.workers import Piece, run
from llm_trader.progress import Progress
from llm_trader.timeframe import DAY_MS, iso8601


@dataclass(frozen=True, slots=True)
class Study:
    """What was found, and the rows it was made of."""

    metrics: Metrics
    steps: Sequence[Steps]
    traded: Sequence[tuple[str, Traded]]


@dataclass(frozen=True, slots=True)
class Running:
    """How a study is run: where its trials are kept, on how many cores, and who is told."""

    ledger: Ledger
    jobs: int
    progress: Progress
    created_at: str


@dataclass(frozen=True, slots=True)
class _Question:
    """What a command wants to know: `main` of the variants is looked at closely, `sweep` are
    further configurations, `arms` ways to decide with the baseline among them.
    """

    command: Command
    plan: StudyPlan
    variants: Mapping[str, StudyPlan]
    main: str
    sweep: Mapping[str, StudyPlan]
    arms: tuple[str, ...]
    baseline: str


def evaluate(subject: Subject, plan: StudyPlan, running: Running) -> Study:
    """Everything there is to say of one configuration, and of its sweep."""
    main, sweep = plan.search.vector, plan.variants()
    if sweep:
        # By the same queries as the others, so that they can be compared.
        sweep = {AS_IT_IS: plan, **sweep}
    question = _Question("evaluate", plan, {main: plan}, main, sweep, ARMS, BASELINE)
    return _answered(subject, question, running)


def compare(subject: Subject, plan: StudyPlan, names: Sequence[str], running: Running) -> Study:
    """Forecasts by several kinds of vectors, of the queries that all of them can answer.

    The verdict is on the plan's own vector where it is one of them, else on the last one.
    """
    variants = {name: variant_of(plan, name) for name in names}
    if not variants:
        raise InvalidInputError(f"name vectors to compare: {', '.join(VARIANTS)}")
    main = plan.search.vector if plan.search.vector in variants else list(variants)[-1]
    question = _Question("compare", plan, variants, main, {}, (), BASELINE)
    return _answered(subject, question, running)


def ab(subject: Subject, plan: StudyPlan, arm_a: str, arm_b: str, running: Running) -> Study:
    """Two ways to decide on the same snapshots; the second is judged by the first."""
    refuse_arms(arm_a, arm_b)
    main = plan.search.vector
    question = _Question("ab", plan, {main: plan}, main, {}, (arm_a, arm_b), arm_a)
    return _answered(subject, question, running)


def refuse_arms(arm_a: str, arm_b: str) -> None:
    """Raises `InvalidInputError` unless they are two that are known."""
    for arm in (arm_a, arm_b):
        if arm not in ARMS:
            raise InvalidInputError(f"there is no arm {arm!r}; known: {', '.join(ARMS)}")
    if arm_a == arm_b:
        raise InvalidInputError(f"both arms are {arm_a!r}; name two different ones")


def variant_of(plan: StudyPlan, name: str) -> StudyPlan:
    """The plan with another way to look for neighbours, by a name of `VARIANTS`.

    `none` is the base rate treated alike; `prototype` is what this program replaces: five
    neighbours by text, overlapping ones too, as they were.
    """
    if name not in VARIANTS:
        raise InvalidInputError(f"there is no vector {name!r}; known: {', '.join(VARIANTS)}")
    search, rules = plan.search, plan.rules
    if name == NONE:
        search = replace(search, vector="random")
        rules = {of: replace(rule, neighbour_share=0.0) for of, rule in rules.items()}
    elif name == PROTOTYPE:
        search = replace(search, vector="text", evidence_k=5, min_gap_hours=0.0)
        alone = {"neighbour_share": 1.0, "rescale": 0.0, "kernel": 0.0}
        rules = {of: replace(rule, **alone) for of, rule in rules.items()}
    else:
        search = replace(search, vector=name)
    return replace(plan, search=search, rules=rules, sweep=())


def _answered(subject: Subject, question: _Question, running: Running) -> Study:
    started = time.monotonic()
    symbols, plan = sorted(subject.dataset.points), question.plan
    tried = _configurations(question, running.ledger, subject.dataset)
    trials = len(symbols) * (tried + len(question.arms))
    arms = Arms(question.arms, question.baseline, trials, len(symbols))
    pieces = {
        "examined": [
            Piece(examine, (subject, symbol, question.variants, question.main, arms))
            for symbol in symbols
        ],
        "swept": [
            Piece(try_variants, (subject, symbol, question.sweep))
            for symbol in symbols
            if question.sweep
        ],
        "controls": [Piece(market_controls, (subject.dataset, symbol, plan)) for symbol in symbols]
        + [Piece(simulated_controls, (subject.dataset.intraday, len(symbols), plan))],
    }
    done = iter(run([one for of in pieces.values() for one in of], running.jobs, running.progress))
    examined, swept, controls = ([next(done) for _ in of] for of in pieces.values())
    metrics = _metrics(subject, question, running, examined, swept, controls)
    return Study(
        replace(metrics, seconds=time.monotonic() - started),
        [one for of in examined for one in of.steps],
        [(of.symbol, one) for of in examined for one in of.traded],
    )


def _configurations(question: _Question, ledger: Ledger, dataset: Dataset) -> int:
    """How many have been tried once this study is done."""
    plans = [*question.variants.values(), *question.sweep.values()]
    known = {trial.configuration for trial in ledger.trials()}
    return len(known | {_configuration(plan, dataset) for plan in plans})


def _metrics(
    subject: Subject,
    question: _Question,
    running: Running,
    examined: Sequence[Examined],
    swept: Sequence[tuple[list[Configuration], dict[str, Gains]]],
    controls: Sequence[list[Control]],
) -> Metrics:
    found = Findings.joined([of.findings for of in examined])
    skills = adjusted(found.skills)
    verdict: Verdict = forecast_verdict(skills, question.main)
    if question.command == "ab":
        verdict = arms_verdict(found.arms, question.arms[1])
    metrics = Metrics(
        schema_version=SCHEMA_VERSION,
        command=question.command,
        created_at=running.created_at,
        origin=_origin(subject, question.plan),
        verdict=verdict,
        readings=[],
        skills=skills,
        undirected=found.undirected,
        directions=found.directions,
        probabilities=found.probabilities,
        bands=found.bands,
        arms=found.arms,
        controls=[one for of in controls for one in of],
        probes=found.probes,
        slices=found.slices,
        trials=_trials(subject, question, running.ledger, examined, swept),
        histograms=found.histograms,
        curves=found.curves,
        seconds=0.0,
    )
    return replace(metrics, readings=wording.readings(metrics, question.main))


def _trials(
    subject: Subject,
    question: _Question,
    ledger: Ledger,
    examined: Sequence[Examined],
    swept: Sequence[tuple[list[Configuration], dict[str, Gains]]],
) -> Trials:
    """Keep this study's trials, and test them with those that were asked the same queries."""
    dataset, plan = subject.dataset, question.plan
    queries = queries_digest(dataset, trial_step_ms(plan))
    gains: dict[str, Gains] = {}
    for of_symbol in [of.gains for of in examined] + [gains for _, gains in swept]:
        for label, columns in of_symbol.items():
            gains.setdefault(label, {}).update(columns)
    for label, tried in {**question.sweep, **question.variants}.items():
        ledger.add(
            Trial(
                label=label,
                configuration=_configuration(tried, dataset),
                queries=queries,
                first_day_ms=dataset.start_ms,
                gains=gains[label],
            )
        )
    tested = tried_on(ledger.trials(), queries)
    p_value = superior_p_value(list(tested.values()), reps=plan.reps, seed=plan.seed)
    return Trials(
        so_far=ledger.configurations(),
        configurations=[one for of, _ in swept for one in of],
        superior_p_value=p_value,
        tested=len(tested),
    )


def _configuration(plan: StudyPlan, dataset: Dataset) -> str:
    """With the spaces whose vectors are compared: those of another model are another one."""
    texts = dataset.text_space_id if plan.search.vector in ("text", "hybrid") else None
    return plan.configuration(StateSpace(dataset.intraday).space_id, texts)


def _origin(subject: Subject, plan: StudyPlan) -> Origin:
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
        data_digest=dataset.digest(),
        whole_lookback={
            symbol: float((of.timestamp_ms - plan.search.lookback_days * DAY_MS >= first).mean())
            for symbol, points in dataset.points.items()
            for of, first in [(dataset.queries(symbol, plan.step_ms), points.timestamp_ms[0])]
        },
        plan=plan,
    )
