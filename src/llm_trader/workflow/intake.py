"""Takes snapshots and other events, and begins a run for each that is new.

What is accepted is on disk before it is answered. A snapshot that was taken already is accepted
again, without a second run, because a sender that lost the answer sends it again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

import structlog
from msgspec import Meta, Struct

from llm_trader.clock import Clock
from llm_trader.delivery.jobs import METHOD, SnapshotPost
from llm_trader.errors import InvalidInputError
from llm_trader.market.keys import SYMBOL_PATTERN
from llm_trader.rpc.dispatcher import Method, RequestContext
from llm_trader.rpc.errors import (
    DeadlineExceededError,
    FieldError,
    InvalidParamsError,
    OverloadedError,
)
from llm_trader.rpc.params import Timeout
from llm_trader.snapshot.model import MarketSnapshot
from llm_trader.timeframe import MAX_TIME_MS, MIN_TIME_MS, SECOND_MS, iso8601
from llm_trader.workflow.engine.protocol import Engine, RunOptions, RunStart, run_id
from llm_trader.workflow.graph.document import InputNode
from llm_trader.workflow.graph.model import Graph
from llm_trader.workflow.values import Pushed, Received

PUSH: Final = "ingest.push"
# Clocks of two machines differ; beyond this the time is wrong, or the unit.
_AHEAD_MS: Final = 60 * SECOND_MS

_log = structlog.get_logger(__name__)

Text = Annotated[str, Meta(min_length=1, max_length=200)]


class PushParams(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Any event. Equal ids of a kind mean the same event, which is taken once."""

    event_id: Annotated[Text, Meta(description="Id of the event.")]
    kind: Annotated[Text, Meta(description="What it is, such as news.")]
    symbol: Annotated[
        Annotated[str, Meta(pattern=f"^{SYMBOL_PATTERN}$")] | None,
        Meta(description="The symbol that it is about; null for none."),
    ] = None
    data: Annotated[
        dict[str, Any], Meta(description="Anything; scripts of the graph read it.")
    ] = {}
    timeout_ms: Timeout | None = None


class PostedSnapshot(MarketSnapshot, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The state that was sent."""


class PostParams(SnapshotPost, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """As it is sent. Whoever forbids unknown fields gets a complete request in one step."""

    snapshot: PostedSnapshot
    late: tuple[str, ...] = ()


class Receipt(Struct, frozen=True, kw_only=True):
    """The answer to a snapshot or an event."""

    run_id: Annotated[str, Meta(description="The run that decides on it.")]
    status: Annotated[
        Literal["accepted", "duplicate"],
        Meta(description="`duplicate`: it was taken before, and has this run already."),
    ]
    queue_depth: Annotated[int, Meta(description="Runs that wait or are under way, this included.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeMethods:
    """`seen` is told of each new snapshot, such as for its price."""

    engine: Engine
    graph: Graph
    options: RunOptions
    clock: Clock
    max_queued: int
    seen: Callable[[Received], None] = lambda received: None
    # Runs that are being put on disk, so that a burst does not go beyond the limit together.
    _beginning: set[str] = field(default_factory=set, init=False)

    def methods(self) -> Iterator[Method]:
        yield Method(
            METHOD,
            PostParams,
            self.post,
            "Takes a snapshot and decides on it, once.",
            Receipt,
            (DeadlineExceededError, OverloadedError),
            access="ingest",
        )
        yield Method(
            PUSH,
            PushParams,
            self.push,
            "Takes any other event, once, if the graph has an input for it.",
            Receipt,
            (InvalidInputError, OverloadedError),
            access="ingest",
        )

    async def post(self, params: PostParams, context: RequestContext) -> Receipt:
        if context.unknown_fields:
            # A collector of a later version may send more, and a misspelt field is missed.
            _log.warning(
                "snapshot_fields_unknown",
                symbol=params.snapshot.symbol,
                fields=context.unknown_fields,
            )
        return await self.take_snapshot(params)

    async def take_snapshot(self, post: SnapshotPost) -> Receipt:
        """Raises `LlmTraderError` for what is not taken."""
        self._needs_input(METHOD)
        now_ms = self.clock.now_ms()
        snapshot = post.snapshot
        errors = list(_snapshot_errors(post, now_ms))
        if errors:
            raise InvalidParamsError(errors)
        if now_ms > post.deadline_ms:
            raise DeadlineExceededError(
                f"the deadline of this snapshot, {iso8601(post.deadline_ms)}, has passed; it is "
                "not decided on"
            )
        received = Received(
            symbol=snapshot.symbol,
            as_of_ms=snapshot.timestamp,
            snapshot=snapshot,
            snapshot_id=post.snapshot_id,
            deadline_ms=post.deadline_ms,
            late=list(post.late),
            received_at_ms=now_ms,
        )
        receipt = await self._begin("snapshot.post", received)
        if receipt.status == "accepted":
            self.seen(received)
        return receipt

    async def push(self, params: PushParams, context: RequestContext) -> Receipt:
        self._needs_input(PUSH)
        pushed = Pushed(
            event_id=params.event_id,
            kind=params.kind,
            symbol=params.symbol,
            data=params.data,
            received_at_ms=self.clock.now_ms(),
        )
        return await self._begin("ingest.push", pushed)

    async def _begin(
        self, method: Literal["snapshot.post", "ingest.push"], event: Received | Pushed
    ) -> Receipt:
        depth = await self.engine.depth() + len(self._beginning)
        if depth >= self.max_queued:
            raise OverloadedError(f"overloaded: {depth} runs wait or are under way")
        start = RunStart(
            run_id=run_id(self.graph.name, event),
            workflow=self.graph.name,
            graph=self.graph.text,
            method=method,
            event=event,
            options=self.options,
            accepted_at_ms=event.received_at_ms,
        )
        self._beginning.add(start.run_id)
        try:
            accepted = await self.engine.start(start)
        finally:
            self._beginning.discard(start.run_id)
        _log.info(
            "workflow_run_accepted" if accepted.is_new else "workflow_event_repeated",
            run_id=accepted.run_id,
            symbol=event.symbol,
        )
        return Receipt(
            run_id=accepted.run_id,
            status="accepted" if accepted.is_new else "duplicate",
            queue_depth=depth + accepted.is_new,
        )

    def _needs_input(self, method: str) -> None:
        inputs = [n.document for n in self.graph.nodes if isinstance(n.document, InputNode)]
        if not any(node.config.method == method for node in inputs):
            raise InvalidInputError(
                f"the graph {self.graph.name} has no input for {method}; add a node of the type "
                "input with that method"
            )


def _snapshot_errors(post: SnapshotPost, now_ms: int) -> Iterator[FieldError]:
    """What a type cannot say."""
    snapshot = post.snapshot
    if not re.fullmatch(SYMBOL_PATTERN, snapshot.symbol):
        yield FieldError("snapshot.symbol", "is no symbol, such as BTCUSDT")
    if not MIN_TIME_MS <= snapshot.timestamp <= MAX_TIME_MS:
        yield FieldError("snapshot.timestamp", "is no time in UTC milliseconds")
    elif snapshot.timestamp > now_ms + _AHEAD_MS:
        ahead_s = (snapshot.timestamp - now_ms) / SECOND_MS
        yield FieldError("snapshot.timestamp", f"is {ahead_s:.10g} s ahead of this clock")
    if snapshot.price is None or not snapshot.price > 0:
        yield FieldError("snapshot.price", "should be above 0")
    if not post.snapshot_id:
        yield FieldError("snapshot_id", "should not be empty")
