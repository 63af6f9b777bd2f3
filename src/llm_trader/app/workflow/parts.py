"""What the nodes of a workflow need, as the settings say."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass

from llm_trader.app.indexes import secret
from llm_trader.app.job import Job
from llm_trader.app.llm_deciders import (
    DeciderChoice,
    llm_decider,
    new_recorder,
    open_record,
    prompt_options,
)
from llm_trader.client import AsyncClient
from llm_trader.clock import WallClock
from llm_trader.errors import ConfigurationError
from llm_trader.llm.record.record import DecisionRecord
from llm_trader.timeframe import M3, Millis, Timeframe
from llm_trader.workflow.broker import Broker
from llm_trader.workflow.nodes.deciding import AggregatorDecides, ModelDecides
from llm_trader.workflow.nodes.retrieving import RpcRetrieve
from llm_trader.workflow.nodes.running import Decide, Services
from llm_trader.workflow.nodes.scripts import SCRIPTS
from llm_trader.workflow.nodes.trading import BrokerExecutes, BrokerGuard
from llm_trader.workflow.opening import open_broker

_ORIGIN = "workflow"


@dataclass(frozen=True, slots=True)
class Parts:
    """`decider` says who decides."""

    services: Services
    broker: Broker
    decider: str


@asynccontextmanager
async def open_parts(
    job: Job, choice: DeciderChoice, clock: Callable[[], Millis], *, live: bool = False
) -> AsyncIterator[Parts]:
    """`choice` names a provider, or the aggregator.

    Raises `ConfigurationError` for what is missing, before anything is begun.
    """
    settings = job.settings
    wall = WallClock(clock)
    async with AsyncExitStack() as opened:
        broker = await open_broker(settings.workflow, job.environ, wall, live_flag=live)
        opened.push_async_callback(broker.close)
        token = secret(
            job.environ, settings.workflow.runs.rag_token_env, "workflow.runs.rag_token_env"
        )

        def connect(url: str, timeout_s: float) -> AsyncClient:
            return AsyncClient(url, token=token, timeout_s=timeout_s)

        retrieve = await opened.enter_async_context(
            aclosing(RpcRetrieve(connect, settings.workflow.runs.rag_url))
        )
        record = opened.enter_context(open_record(job))
        decide, name = await _open_decider(job, choice, clock, record, opened)
        yield Parts(
            Services(
                clock=wall,
                retrieve=retrieve,
                scripts=SCRIPTS,
                decide=decide,
                guard=BrokerGuard(broker, settings.workflow, wall, record.decisions),
                execute=BrokerExecutes(broker, settings.workflow, wall),
                prompt=prompt_options(settings.decisions, choice),
            ),
            broker,
            name,
        )


def require_workflow_extra() -> None:
    """Raises `ConfigurationError` where the durable engine is not installed."""
    if importlib.util.find_spec("dbos") is None:
        raise ConfigurationError("durable runs need DBOS: pip install 'llm-trader-rag[workflow]'")


async def _open_decider(
    job: Job,
    choice: DeciderChoice,
    clock: Callable[[], Millis],
    record: DecisionRecord,
    opened: AsyncExitStack,
) -> tuple[Decide, str]:
    wall = WallClock(clock)
    recorder = new_recorder(job, record, _ORIGIN, clock)
    intraday = _intraday(job)
    if choice.provider == "aggregator":
        return AggregatorDecides(recorder, intraday, wall), "aggregator"
    decider = await opened.enter_async_context(llm_decider(job, choice, record, recorder))
    return ModelDecides(decider, intraday, wall), decider.name


def _intraday(job: Job) -> Timeframe:
    """The candles that snapshots are made of, as the record notes them."""
    named = job.settings.snapshot.intraday
    return M3 if named == "auto" else Timeframe.parse(named)
