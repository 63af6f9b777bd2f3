"""Calls a model through the record: budget, one call for one request, record before use.

1. `find`      a reply on record is used again
2. `begin`     in one transaction over all processes: the budget, and the start of the call
3. `complete`  the provider; it waits for its turn under the rate limit
4. `replied`   or `failed`: on disk before anybody uses it
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, Protocol
from weakref import WeakValueDictionary

import msgspec
import structlog

from llm_trader.llm.providers.protocol import LlmReply, LlmRequest, Provider, ProviderError
from llm_trader.llm.record.call_rows import CallFailure, RecordedCall
from llm_trader.llm.record.calls import CallLog, CheckBudget, Started, UnderWay
from llm_trader.llm.record.requests import request_hash
from llm_trader.timeframe import Millis

_LOOK_AGAIN_S: Final = 0.1

_log = structlog.get_logger(__name__)


class CallUsed(msgspec.Struct, frozen=True):
    """A call on record, and whether it was made now, or reused."""

    call: RecordedCall
    is_new: bool


class Calls(Protocol):
    """Answers requests with calls on record; a call that came to nothing has a `failure`."""

    @property
    def provider(self) -> str: ...

    async def complete(self, request: LlmRequest, *, symbol: str) -> CallUsed: ...

    async def close(self) -> None: ...


class Pricing(Protocol):
    """What calls cost: at most before one is made, and settled when it has ended."""

    def worst_case_usd(self, request: LlmRequest) -> Decimal: ...

    def settled_usd(self, request: LlmRequest, end: LlmReply | ProviderError) -> Decimal: ...


@dataclass(slots=True, kw_only=True)
class RecordedCalls:
    """Calls of one provider; any number of tasks may use it at once.

    At most `most_at_once` calls are started before they are under way, because what is reserved
    for them counts in the budget while they wait for their turn.
    """

    model: Provider
    log: CallLog
    pricing: Pricing
    check_budget: CheckBudget
    deadline_s: float
    most_at_once: int
    now_ms: Callable[[], Millis]
    reuse: bool = True
    _slots: asyncio.Semaphore = field(init=False)
    _locks: WeakValueDictionary[str, asyncio.Lock] = field(init=False)

    def __post_init__(self) -> None:
        self._slots = asyncio.Semaphore(self.most_at_once)
        self._locks = WeakValueDictionary()

    @property
    def provider(self) -> str:
        return self.model.name

    async def complete(self, request: LlmRequest, *, symbol: str) -> CallUsed:
        """Raises `StoreError` if the record cannot be written; then no call is made."""
        digest = request_hash(request)
        # Tasks that ask the same wait for the first one, and find its reply.
        lock = self._locks.setdefault(digest, asyncio.Lock())
        async with lock:
            if self.reuse and (call := self.log.find(digest)) is not None:
                return CallUsed(call, is_new=False)
            async with self._slots:
                return await self._begin(request, symbol)

    async def close(self) -> None:
        await self.model.close()

    async def _begin(self, request: LlmRequest, symbol: str) -> CallUsed:
        waited_s = 0.0
        while True:
            begun = self.log.begin(
                request,
                symbol=symbol,
                started_at_ms=self.now_ms(),
                reserved_usd=self.pricing.worst_case_usd(request),
                check_budget=self.check_budget,
                reuse=self.reuse,
            )
            if isinstance(begun, Started):
                return CallUsed(await self._make(begun.call_id, request), is_new=True)
            if isinstance(begun, RecordedCall):
                return CallUsed(begun, is_new=begun.state == "refused")
            if waited_s >= self.deadline_s:
                return CallUsed(self._still_under_way(begun, request, symbol), is_new=False)
            await asyncio.sleep(_LOOK_AGAIN_S)
            waited_s += _LOOK_AGAIN_S

    async def _make(self, call_id: int, request: LlmRequest) -> RecordedCall:
        try:
            reply = await self.model.complete(request, deadline_s=self.deadline_s)
        except ProviderError as error:
            cost_usd = self.pricing.settled_usd(request, error)
            return self.log.failed(call_id, error, cost_usd, self.now_ms())
        except asyncio.CancelledError:
            # It may have been sent, so what was reserved for it counts.
            failure = CallFailure(kind="cancelled", message="the call was cancelled")
            self.log.failed(call_id, failure, None, self.now_ms())
            raise
        except Exception as error:  # noqa: BLE001  a mistake of ours must not end a study
            _log.exception("call_failed", call=call_id)
            failure = CallFailure(kind="internal", message=f"{type(error).__name__}: {error}")
            return self.log.failed(call_id, failure, None, self.now_ms())
        return self.log.replied(
            call_id, reply, self.pricing.settled_usd(request, reply), self.now_ms()
        )

    def _still_under_way(self, begun: UnderWay, request: LlmRequest, symbol: str) -> RecordedCall:
        message = f"another process is still making this call (call {begun.call_id})"
        failure = CallFailure(kind="under_way", message=message)
        return unmade_call(request, symbol, self.now_ms(), failure)


def unmade_call(
    request: LlmRequest, symbol: str, now_ms: Millis, failure: CallFailure
) -> RecordedCall:
    """A call that nobody made, so that it has no id."""
    return RecordedCall(
        id=0,
        request_hash=request_hash(request),
        request=request,
        symbol=symbol,
        state="refused",
        started_at_ms=now_ms,
        ended_at_ms=now_ms,
        reserved_usd=0.0,
        cost_usd=0.0,
        reply=None,
        failure=failure,
    )
