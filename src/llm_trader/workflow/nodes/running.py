"""Runs one node with the services of its type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from llm_trader.clock import Clock
from llm_trader.llm.decision import Decision
from llm_trader.llm.prompt.render import Arm, PromptOptions
from llm_trader.retrieval.answer import Answer
from llm_trader.timeframe import Millis
from llm_trader.workflow.engine.protocol import RunOptions
from llm_trader.workflow.graph.document import (
    ExecuteNode,
    GuardNode,
    InputNode,
    LlmNode,
    RpcConfig,
    ScriptNode,
    ToolNode,
)
from llm_trader.workflow.graph.kinds import ScriptFunction, find_script
from llm_trader.workflow.graph.model import GraphNode
from llm_trader.workflow.nodes.retrieving import retrieval_of
from llm_trader.workflow.values import (
    Checked,
    Decided,
    DecideInputs,
    Executed,
    ExecuteInputs,
    GuardInputs,
    QueryInputs,
)

ARMS: Final[tuple[Arm, ...]] = ("rag", "baseline")


def decision_key(run_id: str, arm: Arm) -> str:
    """Of a run's decision in the record, so that a repetition takes its place."""
    return f"{run_id}/{arm}"


@dataclass(frozen=True, slots=True)
class NodeRun:
    """The run that a node belongs to."""

    run_id: str
    options: RunOptions


@dataclass(frozen=True, slots=True)
class ScriptContext:
    """What a script may know beside its inputs."""

    run_id: str
    now_ms: Millis
    prompt: PromptOptions


class Retrieve(Protocol):
    """Raises `LlmTraderError` where there is no answer."""

    async def __call__(
        self, inputs: QueryInputs, rpc: RpcConfig, query: Mapping[str, Any]
    ) -> Answer: ...


class Decide(Protocol):
    """Whatever fails is a HOLD of the kind `error`; raises where it cannot be recorded."""

    async def __call__(self, inputs: DecideInputs, run: NodeRun) -> Decided: ...


class Guard(Protocol):
    async def __call__(self, inputs: GuardInputs, run: NodeRun) -> Checked: ...


class Execute(Protocol):
    """Places nothing twice, however often it is called for the same run."""

    async def __call__(self, inputs: ExecuteInputs, run: NodeRun) -> Executed: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """A backtest takes others for the clock, the answers and the broker, and nothing else."""

    clock: Clock
    retrieve: Retrieve
    scripts: Mapping[str, ScriptFunction]
    decide: Decide
    guard: Guard
    execute: Execute
    prompt: PromptOptions = field(default_factory=PromptOptions)


async def run_node(node: GraphNode, inputs: Any, run: NodeRun, services: Services) -> Any:
    """The output of a node; raises what its service raises."""
    document = node.document
    if isinstance(document, InputNode):
        return inputs
    if isinstance(document, ToolNode):
        config = document.config
        answer = await services.retrieve(inputs, config.rpc, config.query)
        return retrieval_of(answer, config.min_matches, config.verdicts)
    if isinstance(document, ScriptNode):
        context = ScriptContext(run.run_id, services.clock.now_ms(), services.prompt)
        return find_script(document.function, services.scripts)(inputs, context)
    if isinstance(document, LlmNode):
        return await services.decide(inputs, run)
    if isinstance(document, GuardNode):
        return await services.guard(inputs, run)
    if isinstance(document, ExecuteNode):
        return await _execute(inputs, run, services)
    raise TypeError(f"no service runs a node of the type {type(document).__name__}")


async def _execute(inputs: ExecuteInputs, run: NodeRun, services: Services) -> Executed:
    if run.options.shadow:
        decision: Decision = inputs.decision
        return Executed(state="shadow", message=f"{decision.action} is not executed: shadow mode")
    return await services.execute(inputs, run)
