"""Sets up a language model as a decider: its provider or the record, its prices and its budget."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from functools import cache, partial
from math import ceil
from pathlib import Path
from typing import Final, Literal, NamedTuple

import msgspec

import llm_trader.llm
from llm_trader import __version__
from llm_trader.app.job import Job
from llm_trader.errors import ConfigurationError
from llm_trader.llm.budget import check_budget
from llm_trader.llm.config import LlmConfig
from llm_trader.llm.cost import Prices, model_prices, settled_usd, worst_case_usd
from llm_trader.llm.llm_decider import LlmDecider
from llm_trader.llm.model_settings import ModelSettings, resolve_model
from llm_trader.llm.prompt.render import TEMPLATE_VERSION, Arm, PromptOptions
from llm_trader.llm.providers.connecting import API_KEYS, connect_provider
from llm_trader.llm.providers.protocol import LlmReply, LlmRequest, ProviderError
from llm_trader.llm.record.config import DecisionsConfig
from llm_trader.llm.record.record import DecisionRecord
from llm_trader.llm.recorded_calls import RecordedCalls
from llm_trader.llm.recorder import Recorder
from llm_trader.llm.replay import request_like
from llm_trader.llm.replayed_calls import ReplayedCalls
from llm_trader.timeframe import Millis, utc_date

ProviderChoice = Literal["anthropic", "openai", "openai-compatible", "replay", "aggregator"]

_PRICES: Final = ("input_usd_per_mtok", "output_usd_per_mtok", "cached_input_usd_per_mtok")
_OF_ONE_MODEL: Final = (
    *("model", "base_url", "api_key_env", "temperature", "effort"),
    *("max_output_tokens", "timeout_s", "deadline_s", *_PRICES),
)
# Calls under way before the next ones are started, where the rate allows only a few a minute.
_LEAST_AT_ONCE: Final = 4


class DeciderChoice(NamedTuple):
    """What a command chooses of a decider; None leaves it to the settings."""

    provider: ProviderChoice | None = None
    model: str | None = None
    arm: Arm | None = None
    masked: bool = False
    # Whether a reply on record is used again, instead of asking anew.
    reuse: bool = True


@dataclass(frozen=True, slots=True)
class CallPricing:
    """What calls of one model cost; all attempts are reserved."""

    prices: Prices
    attempts: int

    def worst_case_usd(self, request: LlmRequest) -> Decimal:
        return self.attempts * worst_case_usd(request, self.prices)

    def settled_usd(self, request: LlmRequest, end: LlmReply | ProviderError) -> Decimal:
        return settled_usd(request, self.prices, end)


@asynccontextmanager
async def open_llm_decider(
    job: Job,
    choice: DeciderChoice,
    *,
    origin: str,
    clock: Callable[[], Millis],
    versions: Mapping[str, str] | None = None,
) -> AsyncIterator[LlmDecider]:
    """A decider with the record of the settings; `versions` are those of what its cases are made
    with.

    Raises `ConfigurationError` without a key, a price, or for what the model does not take; for a
    replay, if nothing is on record.
    """
    with open_record(job) as record:
        recorder = new_recorder(job, record, origin, clock, versions)
        async with llm_decider(job, choice, record, recorder) as decider:
            yield decider


@asynccontextmanager
async def llm_decider(
    job: Job, choice: DeciderChoice, record: DecisionRecord, recorder: Recorder
) -> AsyncIterator[LlmDecider]:
    """The same with a record that is open."""
    if choice.provider == "replay":
        yield _replaying(record, recorder, job.settings.decisions, choice)
        return
    decider = _calling(job, llm_config(job, choice), record, recorder, choice)
    try:
        yield decider
    finally:
        await decider.calls.close()


def open_record(job: Job, *, create: bool = True) -> DecisionRecord:
    """Keys that may be in use are removed from whatever errors say."""
    names = {*API_KEYS.values(), job.settings.llm.api_key_env}
    secrets = [job.environ.get(name, "").strip() for name in names if name is not None]
    return DecisionRecord.open(job.settings.decisions.record, create=create, secrets=secrets)


def new_recorder(
    job: Job,
    record: DecisionRecord,
    origin: str,
    clock: Callable[[], Millis],
    versions: Mapping[str, str] | None = None,
) -> Recorder:
    return Recorder(
        log=record.decisions,
        origin=origin,
        settings_digest=job.settings.digest(),
        now_ms=clock,
        versions={**program_versions(), **(versions or {})},
    )


def llm_config(job: Job, choice: DeciderChoice) -> LlmConfig:
    """The settings with the choices of a command."""
    config = job.settings.llm
    changes: dict[str, str | None] = {}
    if choice.provider not in (None, "replay", "aggregator", config.provider):
        # What the settings say of another provider's model does not hold for this one.
        changes = {**dict.fromkeys(_OF_ONE_MODEL), "provider": choice.provider}
    if choice.model not in (None, config.model):
        # Models of one's own machine cost the same, which is mostly nothing.
        if config.provider != "openai-compatible":
            changes |= dict.fromkeys(_PRICES)
        changes["model"] = choice.model
    return msgspec.structs.replace(config, **changes)


def priced_model(job: Job, config: LlmConfig) -> tuple[ModelSettings, Prices]:
    """Raises `ConfigurationError` for what the model does not take, or without a price."""
    today = utc_date(job.now_ms)
    model = resolve_model(config, today)
    return model, model_prices(config, model, today)


@cache
def program_versions() -> dict[str, str]:
    """`code` changes with any file of the room `llm`, which versions of the program do not."""
    digest = hashlib.sha256()
    folder = Path(llm_trader.llm.__file__).parent
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(path.read_bytes())
    return {
        "program": __version__,
        "code": digest.hexdigest()[:12],
        "template": TEMPLATE_VERSION,
    }


def _calling(
    job: Job, config: LlmConfig, record: DecisionRecord, recorder: Recorder, choice: DeciderChoice
) -> LlmDecider:
    model, prices = priced_model(job, config)
    limit_usd = Decimal(str(config.daily_budget_usd))
    calls = RecordedCalls(
        model=connect_provider(config, model, job.environ),
        log=record.calls,
        pricing=CallPricing(prices, config.max_retries + 1),
        check_budget=partial(check_budget, limit_usd=limit_usd),
        deadline_s=model.deadline_s,
        # As many as can be under way at the rate that is allowed.
        most_at_once=max(_LEAST_AT_ONCE, ceil(config.requests_per_minute * model.timeout_s / 60)),
        now_ms=recorder.now_ms,
        reuse=choice.reuse,
    )
    decisions = job.settings.decisions
    return LlmDecider(
        calls=calls,
        recorder=recorder,
        make_request=model.request,
        model=model.model,
        arm=choice.arm or decisions.arm,
        options=prompt_options(decisions, choice),
        baseline_if_retrieval_fails=decisions.baseline_if_retrieval_fails,
    )


def _replaying(
    record: DecisionRecord, recorder: Recorder, decisions: DecisionsConfig, choice: DeciderChoice
) -> LlmDecider:
    """Asks as the newest recorded call did, so that the requests are those on record."""
    newest = record.calls.newest(choice.model)
    if newest is None:
        whose = "" if choice.model is None else f" of {choice.model}"
        raise ConfigurationError(
            f"nothing can be replayed: {record.path} has no reply{whose}; ask a model first, such "
            "as with --provider anthropic, or name the folder of another record with --record"
        )
    return LlmDecider(
        calls=ReplayedCalls(record.calls, recorder.now_ms),
        recorder=recorder,
        make_request=partial(request_like, newest.request),
        model=newest.request.model,
        arm=choice.arm or decisions.arm,
        options=prompt_options(decisions, choice),
        baseline_if_retrieval_fails=decisions.baseline_if_retrieval_fails,
    )


def prompt_options(decisions: DecisionsConfig, choice: DeciderChoice) -> PromptOptions:
    return PromptOptions(
        masked=choice.masked,
        longest_hold_hours=decisions.longest_hold_hours,
        round_trip_cost_pct=decisions.round_trip_cost_pct,
    )
