"""Decides, and reads the record of decisions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from llm_trader.app.job import Job, blocking
from llm_trader.app.llm_deciders import (
    DeciderChoice,
    llm_config,
    llm_decider,
    new_recorder,
    open_record,
    priced_model,
    program_versions,
    prompt_options,
)
from llm_trader.app.local_market import LocalCase, LocalMarket, open_local_market
from llm_trader.embedding.state import StateSpace
from llm_trader.errors import ConfigurationError, InvalidInputError
from llm_trader.llm.aggregator import Aggregator
from llm_trader.llm.config import LlmConfig
from llm_trader.llm.cost import estimate_study, estimated_tokens
from llm_trader.llm.decision import Decision
from llm_trader.llm.expiry import check_expiry
from llm_trader.llm.prompt.render import Prompt, render_prompt
from llm_trader.llm.prompt.retrieved import Retrieved
from llm_trader.llm.providers.connecting import api_key
from llm_trader.llm.record.call_rows import RecordedCall
from llm_trader.llm.record.decisions import (
    DecisionFilter,
    DecisionSummary,
    RecordedDecision,
)
from llm_trader.llm.record.record import DecisionRecord
from llm_trader.llm.record.statistics import DecisionStatistics, decision_statistics
from llm_trader.llm.recorder import Circumstances, Recorder
from llm_trader.llm.replay import Replay, replay_decision
from llm_trader.llm.reply.schema import DECISION_SCHEMA
from llm_trader.market.store import MarketStore
from llm_trader.settings.tree import Settings
from llm_trader.snapshot.outcome import LABEL_ROW, label_outcomes
from llm_trader.storage.files import write_all_atomically, write_errors
from llm_trader.timeframe import DAY_MS, HORIZONS, Millis, Timeframe

ORIGIN: Final = "decide"


class DecisionReport(msgspec.Struct, frozen=True):
    """A recorded decision, its calls, and what to know about how it was made."""

    decision: RecordedDecision
    calls: list[RecordedCall]
    notes: list[str] = []


class ShownPrompt(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt as a model would get it, and what a decision would cost: with a reply of usual
    length, and at most.
    """

    symbol: str
    as_of_ms: Millis
    model: str
    prompt: Prompt
    tokens_estimated: int
    expected_usd: float
    at_most_usd: float
    notes: list[str]


class Pruned(msgspec.Struct, frozen=True):
    decisions: int
    calls: int
    before_ms: Millis


@blocking
async def decide(
    job: Job,
    symbol: str,
    as_of_ms: Millis | None,
    choice: DeciderChoice,
    clock: Callable[[], Millis],
) -> DecisionReport:
    """Decide on a symbol and record it; without a time, on the newest data of the store."""
    choice, notes = with_provider(job, choice)
    arm = choice.arm or job.settings.decisions.arm
    async with open_local_market(job, symbol, retrieve=arm == "rag") as market:
        with open_record(job) as record:
            recorder = new_recorder(job, record, ORIGIN, clock, market.versions())
            local = await _local_case(job, market, symbol, as_of_ms)
            if choice.provider == "aggregator":
                recorded = await _aggregate(recorder, local)
            else:
                async with llm_decider(job, choice, record, recorder) as decider:
                    recorded = await decider.decide_recorded(
                        local.case, retrieval_error=local.retrieval_error, guard=local.stale
                    )
            # Whoever decides on the past does not mean to trade on it.
            if as_of_ms == job.now_ms and recorded.decision.action != "HOLD":
                recorded = _with_expiry(market, record, recorded, clock())
            return DecisionReport(recorded, _calls_of(record, recorded), notes)


@blocking
async def show_prompt(
    job: Job, symbol: str, as_of_ms: Millis | None, choice: DeciderChoice
) -> ShownPrompt:
    """The prompt of a decision, without asking anybody."""
    arm = choice.arm or job.settings.decisions.arm
    async with open_local_market(job, symbol, retrieve=arm == "rag") as market:
        local = await _local_case(job, market, symbol, as_of_ms)
    if local.stale is not None:
        raise InvalidInputError(f"there is no state to show: {local.stale}")
    retrieved = None if local.case.answer is None else Retrieved.of_answer(local.case.answer)
    options = prompt_options(job.settings.decisions, choice)
    prompt = render_prompt(arm, local.case.state.snapshot(0), retrieved, options)
    notes = [] if local.retrieval_error is None else [f"no evidence: {local.retrieval_error}"]
    model, prices = priced_model(job, llm_config(job, choice))
    request = model.request(prompt.system, prompt.messages, DECISION_SCHEMA)
    estimate = estimate_study([request], prices, thinks=model.thinks)
    return ShownPrompt(
        symbol=symbol,
        as_of_ms=local.case.as_of_ms,
        model=f"{model.provider}/{model.model}",
        prompt=prompt,
        tokens_estimated=estimated_tokens(request),
        expected_usd=float(estimate.expected_usd),
        at_most_usd=float(estimate.at_most_usd),
        notes=notes,
    )


@blocking
async def replay(job: Job, number: int) -> Replay:
    """Make a recorded decision again from the record alone."""
    with open_record(job, create=False) as record:
        recorded = record.decisions.get(number)
        space = StateSpace(Timeframe.parse(recorded.intraday))
        now = {
            **program_versions(),
            "state_space": space.space_id,
            "settings": job.settings.digest(),
        }
        return await replay_decision(record, recorded, now)


def list_decisions(job: Job, chosen: DecisionFilter, limit: int) -> list[DecisionSummary]:
    with open_record(job, create=False) as record:
        return record.decisions.summaries(chosen, limit)


def read_decision(job: Job, number: int) -> DecisionReport:
    with open_record(job, create=False) as record:
        recorded = record.decisions.get(number)
        return DecisionReport(recorded, _calls_of(record, recorded))


def export_lines(job: Job, chosen: DecisionFilter) -> Iterator[bytes]:
    """A line of JSON for each decision with its calls, oldest first."""
    with open_record(job, create=False) as record:
        for one in record.decisions.export(chosen):
            yield msgspec.json.encode(one) + b"\n"


def write_export(job: Job, chosen: DecisionFilter, path: Path) -> int:
    """Write these lines to a file, which appears whole or not at all; returns their number."""
    count = 0

    def write(part: Path) -> None:
        nonlocal count
        with part.open("wb") as file:
            for text in export_lines(job, chosen):
                file.write(text)
                count += 1

    with write_errors(path.parent):
        write_all_atomically(path.parent, {path.name: write})
    return count


def prune_decisions(job: Job, keep_days: int) -> Pruned:
    before_ms = job.now_ms - keep_days * DAY_MS
    with open_record(job, create=False) as record:
        return Pruned(*record.prune(before_ms), before_ms)


def summarise_decisions(job: Job, chosen: DecisionFilter, horizon: str) -> DecisionStatistics:
    """What decisions cost, and what followed those whose outcome the store knows."""
    with open_record(job, create=False) as record:
        decisions = record.decisions.summaries(chosen)
    outcomes_pct = known_outcomes_pct(job.settings, decisions, horizon)
    return decision_statistics(decisions, outcomes_pct, horizon)


def known_outcomes_pct(
    settings: Settings, decisions: Sequence[DecisionSummary], horizon: str
) -> dict[int, float]:
    """The price change after each decision by its id, where the store knows it."""
    sided = [one for one in decisions if one.decision.action != "HOLD"]
    outcomes: dict[int, float] = {}
    if not sided or not settings.market.store.exists():
        return outcomes
    with MarketStore.open(settings.market.store) as store:
        stored = store.symbols()
        # The state's own candles: their close at its time is the price that it was decided on.
        for symbol, intraday in sorted({(one.symbol, one.intraday) for one in sided}):
            if symbol in stored:
                members = [one for one in sided if (one.symbol, one.intraday) == (symbol, intraday)]
                times_ms = np.array([one.as_of_ms for one in members], dtype=np.int64)
                changes = _changes_pct(store, symbol, Timeframe.parse(intraday), times_ms, horizon)
                outcomes |= {
                    one.id: change
                    for one, change in zip(members, changes, strict=True)
                    if not np.isnan(change)
                }
    return outcomes


def _changes_pct(
    store: MarketStore,
    symbol: str,
    intraday: Timeframe,
    times_ms: np.ndarray[tuple[int], np.dtype[np.int64]],
    horizon: str,
) -> list[float]:
    start_ms = int(times_ms.min()) - intraday.ms
    end_ms = int(times_ms.max()) + HORIZONS[horizon] + 1
    candles = store.stored_history(symbol, intraday, start_ms, end_ms).decode().intraday
    labels = label_outcomes(candles, times_ms)[LABEL_ROW[f"outcome_{horizon}"]]
    changes: list[float] = labels.tolist()
    return changes


def with_provider(job: Job, choice: DeciderChoice) -> tuple[DeciderChoice, list[str]]:
    """Who decides where nobody says it: a model if there is a key, else the aggregator."""
    notes = []
    if choice.provider is None:
        config = job.settings.llm
        try:
            api_key(config, job.environ)
            choice = choice._replace(provider=config.provider)
        except ConfigurationError as error:
            # Who chose a model means it, and should not get a decision by something else.
            if config != LlmConfig() or choice.model is not None:
                raise
            choice = choice._replace(provider="aggregator")
            notes.append(
                f"The aggregator decides by fixed rules, without a model: {error.message}."
            )
    if choice.provider == "aggregator" and choice.arm == "baseline":
        raise InvalidInputError(
            "the aggregator follows similar states, so it has no arm baseline; choose a model "
            "with --provider"
        )
    return choice, notes


async def _local_case(
    job: Job, market: LocalMarket, symbol: str, as_of_ms: Millis | None
) -> LocalCase:
    """Without a time, that of the newest data."""
    if as_of_ms is None:
        as_of_ms = market.newest_ms(symbol) or job.now_ms
    return await market.case(symbol, as_of_ms)


async def _aggregate(recorder: Recorder, local: LocalCase) -> RecordedDecision:
    aggregator = Aggregator()
    if local.stale is not None:
        decision = Decision.hold("guard", local.stale)
    elif local.retrieval_error is not None:
        decision = Decision.hold("error", f"there is no evidence: {local.retrieval_error}")
    else:
        decision = await aggregator.decide(local.case)
    made = Circumstances(
        decider=aggregator.name,
        arm="rag",
        has_evidence=local.case.answer is not None,
        provider=aggregator.name,
        retrieval_error=local.retrieval_error,
    )
    return recorder.add(local.case, decision, made)


def _with_expiry(
    market: LocalMarket, record: DecisionRecord, recorded: RecordedDecision, now_ms: Millis
) -> RecordedDecision:
    expiry = check_expiry(
        recorded.as_of_ms,
        recorded.snapshot.price,
        now_ms,
        market.newest_price(recorded.symbol, now_ms),
        market.settings.decisions.expiry,
    )
    return record.decisions.set_expiry(recorded.id, expiry)


def _calls_of(record: DecisionRecord, recorded: RecordedDecision) -> list[RecordedCall]:
    return [record.calls.get(call_id) for call_id in recorded.calls]
