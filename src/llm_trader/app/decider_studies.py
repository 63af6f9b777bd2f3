"""Studies that ask a decider about thousands of past states: an A/B of a model, and `reads`.

1. `prepare_*`      states and evidence from the store; nothing is asked yet
2. `estimate_cost`  what of it is on record already, and what the rest may cost
3. `decide`         all of it, at once within the rate limit; what is on record is not asked again
4. `run_*`          what the decisions were worth, or whether they follow the evidence
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import date
from decimal import Decimal
from typing import Literal, NamedTuple

import msgspec

from llm_trader.app.evaluation import StudyInputs, read_subject, refuse_without_extra
from llm_trader.app.indexes import collection_of, loaded_calibration
from llm_trader.app.job import Job, blocking
from llm_trader.app.llm_deciders import (
    DeciderChoice,
    llm_config,
    open_llm_decider,
    priced_model,
)
from llm_trader.embedding.state import StateSpace
from llm_trader.errors import BudgetError, ConfigurationError, InvalidInputError
from llm_trader.evaluation import reading_study, study
from llm_trader.evaluation.decisions import arms as model_arms
from llm_trader.evaluation.decisions.cases import Evidences
from llm_trader.evaluation.decisions.deciding import (
    Ask,
    KeylessDecider,
    Made,
    decide_all,
)
from llm_trader.evaluation.decisions.model_decider import ModelDecider, StudyName
from llm_trader.evaluation.decisions.results import ReadsMetrics
from llm_trader.evaluation.plan import StudyPlan
from llm_trader.evaluation.result_files import refuse_unwritable, write_reads, write_study
from llm_trader.evaluation.results import DeciderStudy, Metrics
from llm_trader.evaluation.symbol_study import Subject
from llm_trader.evaluation.verdict.multiple_testing import Ledger
from llm_trader.evaluation.workers import available_cores
from llm_trader.index.ingestion import Spaces
from llm_trader.index.points import STATE
from llm_trader.llm.aggregator import Aggregator
from llm_trader.llm.config import ProviderName
from llm_trader.llm.cost import estimate_study
from llm_trader.llm.decision import Decider
from llm_trader.llm.llm_decider import LlmDecider
from llm_trader.llm.prompt.render import TEMPLATE_VERSION
from llm_trader.llm.providers.capabilities import capabilities_of
from llm_trader.llm.providers.protocol import LlmRequest, ProviderError
from llm_trader.llm.record.calls import CallLog
from llm_trader.llm.record.requests import request_hash
from llm_trader.llm.recorded_calls import RecordedCalls
from llm_trader.llm.replayed_calls import ReplayedCalls
from llm_trader.llm.rules import MacdSign, RsiReversal
from llm_trader.market.store import MarketStore
from llm_trader.progress import Progress, labelled
from llm_trader.timeframe import DAY_MS, Millis, iso8601, midnight_ms, utc_date

KeylessName = Literal["aggregator", "rsi-7", "macd-sign"]
Clock = Callable[[], Millis]


class Model(NamedTuple):
    """The model that a study asks, through the record. `clock` is that of its records."""

    choice: DeciderChoice
    clock: Clock
    study: StudyName


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """What a study will cost: of `decisions`, `recorded` are paid for already.

    `missing` counts those that a replay lacks, which will be HOLDs by error. At `minutes` the rate
    limit lets the last call through, if none is repeated.
    """

    decisions: int
    recorded: int
    missing: int
    expected_usd: Decimal
    at_most_usd: Decimal
    minutes: float


class PreparedReads(NamedTuple):
    inputs: StudyInputs
    plan: StudyPlan
    subject: Subject
    prepared: reading_study.Prepared
    asks: list[Ask]
    started: float


class PreparedAb(NamedTuple):
    inputs: StudyInputs
    plan: StudyPlan
    subject: Subject
    arms: tuple[str, str]
    parts: list[model_arms.ArmAsks]

    @property
    def asks(self) -> list[Ask]:
        return model_arms.all_asks(self.parts)

    def with_progress(self, progress: Progress) -> PreparedAb:
        job = self.inputs.job._replace(progress=progress)
        return self._replace(inputs=self.inputs._replace(job=job))


@blocking
async def check_model(job: Job, model: Model) -> None:
    """Raises `ConfigurationError` where the model cannot be asked, before minutes of other work."""
    async with _open(job, model):
        pass


def prepare_reads(
    inputs: StudyInputs, plan: StudyPlan, states: int, *, masked: bool
) -> PreparedReads:
    started = time.monotonic()
    subject, evidences = _prepare(inputs, plan)
    progress = labelled(inputs.job.progress, "reading")

    @blocking
    async def prepare() -> reading_study.Prepared:
        with MarketStore.open(subject.store) as store:
            return await reading_study.prepare_reading(
                subject.dataset, store, evidences, plan, states, progress
            )

    prepared = prepare()
    if not prepared.states:
        raise InvalidInputError(
            "no state of this time has evidence that leans to a side; give an earlier --start, or "
            "import more data"
        )
    asks = reading_study.reading_asks(prepared, masked)
    return PreparedReads(inputs, plan, subject, prepared, asks, started)


def prepare_ab(
    inputs: StudyInputs, plan: StudyPlan, arm_a: str, arm_b: str, *, masked: bool
) -> PreparedAb:
    study.refuse_arms(arm_a, arm_b, model_arms=True)
    names = model_arms.model_arms(arm_a, arm_b, masked=masked)
    if not names:
        raise InvalidInputError(f"neither {arm_a} nor {arm_b} asks a model; leave out --decider")
    subject, evidences = _prepare(inputs, plan)

    @blocking
    async def ask_for() -> list[model_arms.ArmAsks]:
        with MarketStore.open(subject.store) as store:
            return await model_arms.arm_asks(
                subject.dataset, store, evidences, names, plan.step_ms, inputs.job.progress
            )

    return PreparedAb(inputs, plan, subject, (arm_a, arm_b), ask_for())


@blocking
async def estimate_cost(job: Job, model: Model, asks: Sequence[Ask]) -> Estimate:
    """Raises `BudgetError` where the rest would cost more than the day has left, as expected."""
    async with _open(job, model) as decider:
        # One by one, as the texts of all together would take more memory than the study.
        requests = (ModelDecider(decider, model.study).request(ask) for ask in asks)
        calls = decider.calls
        if isinstance(calls, ReplayedCalls):
            return _of_replay(calls, requests, len(asks))
        if not isinstance(calls, RecordedCalls):
            raise ConfigurationError(f"the calls of {calls.provider} have no price")
        config = llm_config(job, model.choice)
        settings, prices = priced_model(job, config)
        unpaid = _unpaid(calls.log, requests)
        cost = estimate_study(unpaid, prices, thinks=settings.thinks)
        spent_usd = calls.log.spent_usd(utc_date(job.now_ms))
    limit_usd = Decimal(str(config.daily_budget_usd))
    if cost.expected_usd > limit_usd - spent_usd:
        raise BudgetError(
            f"{cost.calls:,} calls cost about {cost.expected_usd:.2f} USD, and of the "
            f"{limit_usd:.2f} USD that a day may cost (llm.daily_budget_usd) {spent_usd:.2f} are "
            "spent, so the last ones would fail; raise it, or ask about fewer states"
        )
    return Estimate(
        decisions=len(asks),
        recorded=len(asks) - cost.calls,
        missing=0,
        expected_usd=cost.expected_usd,
        at_most_usd=cost.at_most_usd,
        minutes=cost.calls / config.requests_per_minute,
    )


@blocking
async def decide(job: Job, model: Model, asks: Sequence[Ask]) -> list[Made]:
    """Every ask once, whatever fails; an interrupted run pays for nothing twice."""
    async with _open(job, model) as decider:
        return await decide_all(ModelDecider(decider, model.study), asks, job.progress)


@blocking
async def decide_by_rule(name: KeylessName, plan: StudyPlan, asks: Sequence[Ask]) -> list[Made]:
    """The same by a decider that costs nothing."""
    rules: dict[KeylessName, Decider] = {
        "aggregator": Aggregator(plan.aggregator),
        "rsi-7": RsiReversal(),
        "macd-sign": MacdSign(),
    }
    return await decide_all(KeylessDecider(rules[name]), asks)


def run_reads(
    prepared: PreparedReads, decider: Model | KeylessName, made: Sequence[Made], *, masked: bool
) -> ReadsMetrics:
    """Effects, verdicts and controls; writes the files."""
    inputs, job = prepared.inputs, prepared.inputs.job
    if isinstance(decider, Model):
        about = _about(job, decider, prepared.asks[0])
        who = reading_study.Asked(about.name, about.provider, about.model, masked)
    else:
        who = reading_study.Asked(decider)
    run = _run(inputs)
    metrics = asyncio.run(
        reading_study.measure_all(
            prepared.prepared,
            made,
            who,
            prepared.plan,
            study.origin_of(prepared.subject, prepared.plan, run),
            run.created_at,
            prepared.started,
        )
    )
    write_reads(metrics, inputs.out)
    return metrics


def run_ab(prepared: PreparedAb, model: Model, made: Sequence[Made]) -> Metrics:
    """Trade the decisions, compare the arms, run the controls; writes the files."""
    job, plan = prepared.inputs.job, prepared.plan
    given, decided = model_arms.given_arms(prepared.parts, made, plan.account_usd)
    about = _about(job, model, prepared.asks[0])
    cutoff = about.cutoff
    arms = study.ModelArms(
        given,
        DeciderStudy(
            provider=about.provider,
            model=about.model,
            knowledge_cutoff=None if cutoff is None else cutoff.isoformat(),
            template_version=TEMPLATE_VERSION,
            arms=decided,
        ),
        # The whole day of the cutoff may be known.
        None if cutoff is None else midnight_ms(cutoff) + DAY_MS,
    )
    answer = study.ab(prepared.subject, plan, *prepared.arms, _run(prepared.inputs), arms)
    write_study(answer, prepared.inputs.out)
    return answer.metrics


@blocking
async def request_of(job: Job, model: Model, ask: Ask) -> LlmRequest:
    """What is asked, without asking it."""
    async with _open(job, model) as decider:
        return ModelDecider(decider, model.study).request(ask)


class _About(NamedTuple):
    name: str
    provider: str
    model: str
    cutoff: date | None


def _about(job: Job, model: Model, ask: Ask) -> _About:
    """The model that is really asked, also where its replies come from a record."""
    request = request_of(job, model, ask)
    capabilities = capabilities_of(msgspec.convert(request.provider, ProviderName), request.model)
    name = f"{request.provider}/{request.model}"
    return _About(name, request.provider, request.model, capabilities.knowledge_cutoff)


def _open(job: Job, model: Model) -> AbstractAsyncContextManager[LlmDecider]:
    origin = f"evaluate {model.study}"
    return open_llm_decider(job, model.choice, origin=origin, clock=model.clock)


def _unpaid(log: CallLog, requests: Iterable[LlmRequest]) -> Iterator[LlmRequest]:
    seen = set()
    for request in requests:
        digest = request_hash(request)
        if digest not in seen and log.find(digest) is None:
            yield request
        seen.add(digest)


def _of_replay(calls: ReplayedCalls, requests: Iterable[LlmRequest], decisions: int) -> Estimate:
    missing = 0
    for request in requests:
        try:
            calls.recorded(request)
        except ProviderError:
            missing += 1
    return Estimate(
        decisions=decisions,
        recorded=decisions - missing,
        missing=missing,
        expected_usd=Decimal(0),
        at_most_usd=Decimal(0),
        minutes=0.0,
    )


def _prepare(inputs: StudyInputs, plan: StudyPlan) -> tuple[Subject, Evidences]:
    # Both before minutes of work.
    refuse_unwritable(inputs.out)
    refuse_without_extra()
    if plan.search.vector != STATE:
        raise InvalidInputError(
            f"the evidence of a model is searched by state vectors here, not by "
            f"{plan.search.vector}; give --vector state"
        )
    job, retrieval = inputs.job, inputs.job.settings.retrieval
    subject = read_subject(inputs, plan)
    dataset = subject.dataset
    spaces = Spaces(StateSpace(dataset.intraday), rules=dataset.rules)
    spec = msgspec.structs.replace(retrieval.search(), **plan.search.neighbour_fields())
    collection = collection_of(spaces, dataset.exchange)
    return subject, Evidences(dataset, collection, spec, loaded_calibration(job.settings))


def _run(inputs: StudyInputs) -> study.StudyRun:
    job, processes = inputs.job, inputs.processes or available_cores()
    created_at, digest = iso8601(job.now_ms), job.settings.digest()
    return study.StudyRun(Ledger(inputs.out), processes, job.progress, created_at, digest)
