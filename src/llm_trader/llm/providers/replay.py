"""A provider that answers from the record, at no cost, and calls nobody."""

from __future__ import annotations

from collections.abc import Sequence

from llm_trader.llm.providers.protocol import LlmReply, LlmRequest, ProviderError
from llm_trader.llm.record.call_rows import RecordedCall
from llm_trader.llm.record.calls import CallLog
from llm_trader.llm.record.requests import request_hash


class ReplayProvider:
    """Of a request that was made more than once, the newest reply counts; where none was replied
    to, the newest failure is repeated. With `call_ids` only these calls are looked at.
    """

    name = "replay"

    def __init__(self, calls: CallLog, call_ids: Sequence[int] | None = None) -> None:
        self._calls = calls
        self._call_ids = call_ids

    def recorded(self, request: LlmRequest) -> RecordedCall:
        """Raises `ProviderError` of the kind `not_recorded`."""
        digest = request_hash(request)
        if self._call_ids is None:
            found = self._calls.find_ended(digest)
        else:
            calls = (self._calls.get(call_id) for call_id in self._call_ids)
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

    async def complete(self, request: LlmRequest, *, deadline_s: float) -> LlmReply:
        call = self.recorded(request)
        if call.reply is not None:
            return call.reply
        failure = call.failure
        raise ProviderError(
            "its end is not on record" if failure is None else failure.message,
            kind="not_recorded",
            attempts=call.attempts,
            latency_ms=call.latency_ms,
        )

    async def close(self) -> None: ...
