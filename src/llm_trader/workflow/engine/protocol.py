"""What an engine is asked, and what a run is."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, Protocol

import msgspec
from msgspec import Struct

from llm_trader.errors import LlmTraderError
from llm_trader.timeframe import Millis
from llm_trader.workflow.graph.model import GraphText
from llm_trader.workflow.graph.schedule import Status
from llm_trader.workflow.values import NodeError, Pushed, Received

AbMode = Literal["off", "rag", "baseline"]
RunState = Literal["queued", "running", "done", "failed", "cancelled"]


class RunNotFoundError(LlmTraderError):
    """Ask for a run that `workflow list` shows."""

    code = "run_not_found"


class RunOptions(Struct, frozen=True, kw_only=True):
    """How a run differs from others of its graph; it keeps them, whatever is set later.

    `shadow` decides and executes nothing. `ab` asks with both prompts and executes the decision of
    the one that it names.
    """

    shadow: bool = False
    ab: AbMode = "off"


class RunStart(Struct, frozen=True, kw_only=True):
    """All that a run depends on. `event` is a `Received` or a `Pushed`, by `method`."""

    run_id: str
    workflow: str
    graph: GraphText
    method: Literal["snapshot.post", "ingest.push"]
    event: Any
    options: RunOptions = RunOptions()
    accepted_at_ms: Millis

    @property
    def symbol(self) -> str | None:
        event: Received | Pushed = self.event
        return event.symbol


class NodeRecord(Struct, frozen=True, kw_only=True):
    """What became of a node."""

    node: str
    status: Status
    output: Any = None
    error: NodeError | None = None
    attempts: int = 0
    started_at_ms: Millis | None = None
    ended_at_ms: Millis | None = None


class RunResult(Struct, frozen=True, kw_only=True):
    """A run that has ended. `error` is that of the node that ended it."""

    run_id: str
    state: Literal["done", "failed"]
    records: list[NodeRecord]
    error: str | None = None

    def output(self, node: str) -> Any:
        """None where the node gave nothing."""
        return next((one.output for one in self.records if one.node == node), None)


class RunSummary(Struct, frozen=True, kw_only=True):
    """A line of a list. Decision and execution are None until they are known."""

    run_id: str
    workflow: str
    state: RunState
    symbol: str | None
    as_of_ms: Millis | None
    graph_digest: str
    options: RunOptions
    accepted_at_ms: Millis
    ended_at_ms: Millis | None = None
    action: str | None = None
    hold_reason: str | None = None
    note: str | None = None
    execution: str | None = None
    error: str | None = None
    executor: str | None = None


class RunDetails(Struct, frozen=True, kw_only=True):
    summary: RunSummary
    records: list[NodeRecord]
    graph: GraphText
    event: Any


class Accepted(NamedTuple):
    """`is_new` is False for a run that was accepted before; then nothing was begun."""

    run_id: str
    is_new: bool


class Engine(Protocol):
    """Accepts runs and sees them through."""

    async def start(self, run: RunStart) -> Accepted:
        """A run that is accepted is on disk, and will end whatever becomes of this process."""
        ...

    async def wait(self, run_id: str) -> RunResult: ...

    async def depth(self) -> int:
        """The number of runs that have not ended."""
        ...

    async def runs(self, *, limit: int, state: RunState | None = None) -> Sequence[RunSummary]:
        """Newest first."""
        ...

    async def show(self, run_id: str) -> RunDetails: ...

    async def resume(self, run_id: str) -> None:
        """Goes on with a run that was cancelled or failed, or whose process died."""
        ...

    async def cancel(self, run_id: str) -> None:
        """No further stage of it begins, and so no order."""
        ...


def run_id(workflow: str, event: Received | Pushed) -> str:
    """The same for the same event, so that it is decided once per workflow."""
    if isinstance(event, Received):
        named, identity = f"{event.symbol}-{_minute(event.as_of_ms)}", event.snapshot_id
    else:
        named = f"{event.symbol or event.kind}-push"
        identity = f"{event.kind}/{event.event_id}"
    digest = hashlib.sha256(f"{workflow}\n{identity}".encode()).hexdigest()[:10]
    safe = "".join(c if c.isascii() and c.isalnum() else "-" for c in named[:36])
    return f"{safe}-{digest}"


def _minute(time_ms: Millis) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y%m%dT%H%M")


def event_of(method: str, event: Any) -> Received | Pushed:
    """An event that was stored as JSON."""
    if method == "snapshot.post":
        return msgspec.convert(event, Received)
    return msgspec.convert(event, Pushed)
