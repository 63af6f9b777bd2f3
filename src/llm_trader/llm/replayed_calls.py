"""Answers requests from the record alone, at no cost; nobody is called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llm_trader.llm.providers.protocol import LlmRequest, ProviderError
from llm_trader.llm.record.call_rows import CallFailure, RecordedCall
from llm_trader.llm.record.calls import CallLog
from llm_trader.llm.record.requests import request_hash
from llm_trader.llm.recorded_calls import CallUsed, unmade_call
from llm_trader.timeframe import Millis


@dataclass(frozen=True, slots=True)
class ReplayedCalls:
    """Of a request that was made more than once, the newest reply counts; where none was replied
    to, the newest failure is repeated. With `call_ids` only these calls are looked at.

    A request that is not on record has a failure, and no id.
    """

    log: CallLog
    now_ms: Callable[[], Millis]
    call_ids: Sequence[int] | None = None

    @property
    def provider(self) -> str:
        return "replay"

    async def complete(self, request: LlmRequest, *, symbol: str) -> CallUsed:
        try:
            return CallUsed(self.recorded(request), is_new=False)
        except ProviderError as error:
            failure = CallFailure(kind=error.kind, message=error.message)
            return CallUsed(unmade_call(request, symbol, self.now_ms(), failure), is_new=False)

    async def close(self) -> None: ...

    def recorded(self, request: LlmRequest) -> RecordedCall:
        """Raises `ProviderError` of the kind `not_recorded`."""
        digest = request_hash(request)
        if self.call_ids is None:
            found = self.log.find_ended(digest)
        else:
            calls = (self.log.get(call_id) for call_id in self.call_ids)
            found = next((call for call in calls if call.request_hash == digest), None)
        if found is None:
            raise ProviderError(
                f"the record has no reply of {request.provider}/{request.model} to this request "
                f"({digest[:12]}): the prompt or a setting differs from what was recorded, or it "
                "was never asked; ask the model with --provider "
                f"{request.provider}",
                kind="not_recorded",
                attempts=0,
                latency_ms=0.0,
            )
        return found
