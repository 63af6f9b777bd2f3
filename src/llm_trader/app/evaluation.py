"""Turns a plan and a market store into metrics and a report: is it better than nothing?"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from llm_trader.app.indexes import (
    open_index,
    refuse_another_exchange,
    snapshot_rules,
    snapshot_rules_of,
)
from llm_trader.app.ingestion import intraday_timeframe
from llm_trader.app.job import Job, blocking
from llm_trader.embedding.state import StateSpace
from llm_trader.errors import ConfigurationError, InvalidInputError
from llm_trader.evaluation import study
from llm_trader.evaluation.dataset import WARM_UP_DAYS, Dataset, read_dataset, read_index
from llm_trader.evaluation.forecast.given_forecasts import read_forecasts
from llm_trader.evaluation.judge_study import judge_forecasts
from llm_trader.evaluation.plan import Search, StudyPlan, read_plan, sweep_plans
from llm_trader.evaluation.result_files import Study, refuse_unwritable, write_study
from llm_trader.evaluation.results import Metrics
from llm_trader.evaluation.symbol_study import Subject
from llm_trader.evaluation.verdict import gate
from llm_trader.evaluation.verdict.gate import GateReport
from llm_trader.evaluation.verdict.multiple_testing import Ledger
from llm_trader.evaluation.workers import available_cores
from llm_trader.index.ingestion import Spaces
from llm_trader.index.points import STATE
from llm_trader.market.store import MarketStore
from llm_trader.progress import labelled
from llm_trader.retrieval.search_spec import NeighbourSearch
from llm_trader.settings.tree import Settings
from llm_trader.storage.files import read_whole
from llm_trader.timeframe import DAY_MS, LATEST, MINUTE_MS, Millis, iso8601, parse_end, parse_start

_NEEDED: Final = {"arch": "tests of many models at once", "jinja2": "reports", "plotly": "reports"}
# Vectors that can be computed from a market store; the others are read from an index.
_BY_STATE: Final = (STATE, "random")

Ask = Callable[[Subject, study.StudyRun], Study]


class StudyInputs(NamedTuple):
    """The inputs and outputs of a study.

    State vectors are computed from the store; text vectors come from the index, with `indexed` all.
    """

    job: Job
    out: Path
    indexed: bool = False
    processes: int | None = None


def make_plan(settings: Settings, path: Path | None, flags: Mapping[str, Any]) -> StudyPlan:
    """The plan of the flags, else of the file, else of the server's search."""
    served = {
        "step_minutes": settings.snapshot.interval_minutes,
        "search": msgspec.to_builtins(search_of(settings.retrieval)),
    }
    return read_plan(path, served, flags)


def search_of(spec: NeighbourSearch) -> Search:
    """The server's search in an evaluation."""
    return Search(**spec.neighbour_fields())


def is_plan(path: Path) -> bool:
    """Whether a TOML file has keys, and all of them are keys of a plan."""
    try:
        keys = tomllib.loads(read_whole(path).decode()).keys()
    except (OSError, ValueError):
        return False
    return bool(keys) and keys <= set(StudyPlan.__struct_fields__)


def evaluate(inputs: StudyInputs, plan: StudyPlan) -> Metrics:
    return run_study(inputs, plan, lambda subject, run: study.evaluate(subject, plan, run))


def compare(inputs: StudyInputs, plan: StudyPlan, vectors: Sequence[str]) -> Metrics:
    return run_study(
        inputs, plan, lambda subject, run: study.compare(subject, plan, vectors, run), vectors
    )


def compare_arms(inputs: StudyInputs, plan: StudyPlan, arm_a: str, arm_b: str) -> Metrics:
    study.refuse_arms(arm_a, arm_b)
    return run_study(inputs, plan, lambda subject, run: study.ab(subject, plan, arm_a, arm_b, run))


def judge(inputs: StudyInputs, path: Path, flags: Mapping[str, Any]) -> Metrics:
    """Judge the forecasts of a file beside the served forecast at their own times."""
    given = read_forecasts(path)
    start_ms, end_ms = given.span_ms()
    span: dict[str, Any] = {
        "start": iso8601(start_ms),
        "end": iso8601(end_ms),
        "symbols": list(given.forecasts),
    }
    settings = inputs.job.settings
    step_ms, interval_ms = given.step_ms(), settings.snapshot.interval_ms
    if step_ms % interval_ms or DAY_MS % step_ms:
        raise InvalidInputError(
            f"{given.name} has forecasts {step_ms / MINUTE_MS:g} minutes apart; their distance "
            f"must divide a day and be a multiple of {interval_ms // MINUTE_MS} minutes, "
            "snapshot.interval_minutes"
        )
    span["step_minutes"] = step_ms // MINUTE_MS
    plan = make_plan(settings, None, {**span, **flags})
    return run_study(inputs, plan, lambda subject, run: judge_forecasts(subject, given, plan, run))


def pass_gate(
    inputs: StudyInputs, baseline: Path, metrics: Path | None, tolerance_points: float
) -> GateReport:
    """Compare a new evaluation, or that of the file `metrics`, with a baseline."""
    reference = gate.read_metrics(baseline)
    if metrics is None:
        current = evaluate(inputs, gate.plan_of_same_queries(reference))
    else:
        current = gate.read_metrics(metrics)
    return gate.compare_with_baseline(reference, current, tolerance_points / 100)


def run_study(
    inputs: StudyInputs, plan: StudyPlan, ask: Ask, vectors: Sequence[str] = ()
) -> Metrics:
    """Read the states, run the study `ask` on them, and write its files."""
    if plan.decider == "llm":
        raise ConfigurationError(
            "the plan's decider is llm, and a language model is asked by: llm-trader evaluate ab "
            '--decider llm; set decider = "aggregator" in the plan of anything else'
        )
    # Both before minutes of work.
    refuse_unwritable(inputs.out)
    refuse_without_extra()
    subject = read_subject(inputs, plan, vectors)
    job, processes = inputs.job, inputs.processes or available_cores()
    created_at, digest = iso8601(job.now_ms), job.settings.digest()
    run = study.StudyRun(Ledger(inputs.out), processes, job.progress, created_at, digest)
    answer = ask(subject, run)
    write_study(answer, inputs.out)
    return answer.metrics


def read_subject(inputs: StudyInputs, plan: StudyPlan, vectors: Sequence[str] = ()) -> Subject:
    """The states of the plan's time and one lookback before, from the store or the index."""
    job, settings = inputs.job, inputs.job.settings
    _refuse_uneven_steps(plan, settings.snapshot.interval_minutes)
    plans = [plan, *sweep_plans(plan).values(), *(study.variant_of(plan, name) for name in vectors)]
    lookback_days = max(variant.search.lookback_days for variant in plans)
    with MarketStore.open(settings.market.store) as store:
        symbols = list(plan.symbols) or store.symbols()
        space = StateSpace(intraday_timeframe(settings, store, symbols))
        spans = [store.first_and_last_ms(symbol, space.intraday) for symbol in symbols]
        span = _query_span([span for span in spans if span], plan, lookback_days, job.now_ms)
        if inputs.indexed or any(variant.search.vector not in _BY_STATE for variant in plans):
            dataset = _from_index(job, store, space, symbols, span, lookback_days)
            if dataset.text_space_id is None:
                _refuse_texts(plans)
        else:
            dataset = read_dataset(
                store,
                Spaces(space, rules=snapshot_rules(settings)),
                symbols,
                *span,
                lookback_days=lookback_days,
                interval_ms=settings.snapshot.interval_ms,
                now_ms=job.now_ms,
                progress=labelled(job.progress, "reading"),
            )
    return Subject(dataset.trimmed(plan.step_ms), settings.market.store)


def _refuse_uneven_steps(plan: StudyPlan, interval_minutes: int) -> None:
    if plan.step_minutes % interval_minutes:
        raise InvalidInputError(
            f"a step of {plan.step_minutes} minutes is not a multiple of the {interval_minutes} "
            "minutes between states (snapshot.interval_minutes); choose another --step"
        )
    if plan.aggregator.horizon not in plan.rules:
        raise InvalidInputError(
            f"the aggregator decides by {plan.aggregator.horizon}, which has no trading rule; add "
            f"rules.{plan.aggregator.horizon} to the plan"
        )


@blocking
async def _from_index(
    job: Job,
    store: MarketStore,
    space: StateSpace,
    symbols: list[str],
    span: tuple[Millis, Millis],
    lookback_days: int,
) -> Dataset:
    async with open_index(job.settings, job.environ) as index:
        refuse_another_exchange(store, index)
        rules = snapshot_rules_of(index, job.settings)
        return await read_index(
            index, space, symbols, *span, lookback_days=lookback_days, rules=rules
        )


def _refuse_texts(plans: Sequence[StudyPlan]) -> None:
    vectors = {plan.search.vector for plan in plans} - set(_BY_STATE)
    if vectors:
        raise InvalidInputError(
            f"the index has no text vectors, which {' and '.join(sorted(vectors))} needs: give "
            "--index an index made with rag-ingest --text, or leave text, hybrid and prototype out"
        )


def _query_span(
    stored: Sequence[tuple[Millis, Millis]], plan: StudyPlan, lookback_days: int, now_ms: Millis
) -> tuple[Millis, Millis]:
    """The times of the first and the last query; by default all times with a whole lookback.

    `stored` has the first and the last candle of each symbol.
    """
    latest = [last_ms for _, last_ms in stored]
    end_ms = min(latest if plan.end == LATEST else [parse_end(plan.end, now_ms), *latest])
    if plan.start is not None:
        start_ms = parse_start(plan.start, end_ms)
    else:
        first_ms = max((first_ms for first_ms, _ in stored), default=end_ms)
        start_ms = first_ms + (WARM_UP_DAYS + lookback_days) * DAY_MS
    if start_ms >= end_ms:
        raise InvalidInputError(
            f"nothing to evaluate from {iso8601(start_ms)} to {iso8601(end_ms)}, the end of the "
            "data: give an earlier --start, or import more; without --start an evaluation begins "
            f"after one lookback of {lookback_days} days (--lookback-days)"
        )
    # Both lie on the step: a gate evaluates from the first to the last query, and must agree.
    return start_ms + -start_ms % plan.step_ms, end_ms - end_ms % plan.step_ms


def refuse_without_extra(*names: str, remedy: str = "") -> None:
    """Raises `ConfigurationError` before minutes of work are lost."""
    for name in names or _NEEDED:
        if find_spec(name) is None:
            raise ConfigurationError(
                f'{_NEEDED[name]} need {name}: pip install "llm-trader-rag[eval]"{remedy}'
            )
