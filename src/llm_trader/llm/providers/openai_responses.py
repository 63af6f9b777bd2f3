"""OpenAI's models through the Responses API."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from llm_trader.llm.providers.protocol import Finish, LlmRequest, TokenUsage
from llm_trader.llm.providers.sdk_connection import SdkProvider, SdkReply
from llm_trader.llm.providers.sdk_failures import BrokenReplyError, kind_of_code
from llm_trader.llm.providers.token_counts import optional_token_count, token_count
from llm_trader.llm.reply.schema import DECISION_SCHEMA_NAME

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_LAST_EVENTS: Final = ("response.completed", "response.incomplete", "response.failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAiResponses(SdkProvider):
    """`marks_prefix`: the model caches what is marked; others cache any prefix by themselves."""

    client: AsyncOpenAI
    caches: bool
    marks_prefix: bool

    def _arguments(self, request: LlmRequest) -> dict[str, Any]:
        system: dict[str, Any] = {"type": "input_text", "text": request.system}
        arguments: dict[str, Any] = {
            "model": request.model,
            "input": [
                {"role": "developer", "content": [system]},
                *({"role": message.role, "content": message.text} for message in request.messages),
            ],
            "max_output_tokens": request.max_output_tokens,
            "store": False,
            # A project may have dearer tiers as its default.
            "service_tier": "default",
        }
        if self.marks_prefix:
            # Otherwise the model would cache whole prompts, which never come again, at a surcharge.
            arguments["prompt_cache_options"] = {"mode": "explicit"}
        if self.caches:
            digest = hashlib.sha256(request.system.encode()).hexdigest()[:16]
            arguments["prompt_cache_key"] = f"llm-trader-{digest}"
            if self.marks_prefix:
                system["prompt_cache_breakpoint"] = {"mode": "explicit"}
        if request.temperature is not None:
            arguments["temperature"] = request.temperature
        if request.effort is not None:
            arguments["reasoning"] = {"effort": request.effort}
        if request.schema is not None:
            arguments["text"] = {
                "format": {
                    "type": "json_schema",
                    "name": DECISION_SCHEMA_NAME,
                    "schema": request.schema,
                    "strict": True,
                }
            }
        return arguments

    async def _at_once(self, arguments: dict[str, Any]) -> SdkReply:
        return _reply(await self.client.responses.create(**arguments))

    async def _streamed(self, arguments: dict[str, Any]) -> SdkReply:
        last = None
        async with await self.client.responses.create(**arguments, stream=True) as events:
            async for event in events:
                if event.type == "error":
                    kind = kind_of_code(event.code) or "overloaded"
                    raise BrokenReplyError(f"an error in the stream: {event.message}", kind)
                if event.type in _LAST_EVENTS:
                    last = event.response
        if last is None:
            raise BrokenReplyError("the stream ended before the reply was complete", "connection")
        return _reply(last)


def _reply(response: Any) -> SdkReply:
    usage = _usage(response.usage)
    if response.status == "failed":
        kind = kind_of_code(response.error.code) or "overloaded"
        raise BrokenReplyError(f"the model failed: {response.error.message}", kind, usage)
    parts = [part for item in response.output if item.type == "message" for part in item.content]
    text = "".join(part.text for part in parts if part.type == "output_text")
    refusals = "".join(part.refusal for part in parts if part.type == "refusal")
    finish: Finish
    if response.status == "completed":
        finish = "refused" if refusals else "complete"
    elif response.status == "incomplete":
        filtered = response.incomplete_details.reason == "content_filter"
        finish = "refused" if filtered else "truncated"
    else:
        raise BrokenReplyError(f"the reply has the status {response.status!r}", usage=usage)
    return SdkReply(text or refusals, finish, usage, response.model, response.id)


def _usage(usage: Any) -> TokenUsage | None:
    if usage is None:
        return None
    read, written = usage.input_tokens_details, usage.output_tokens_details
    return TokenUsage(
        input_tokens=token_count(usage.input_tokens),
        output_tokens=token_count(usage.output_tokens),
        cached_input_tokens=optional_token_count(read, "cached_tokens") or 0,
        cache_write_tokens=optional_token_count(read, "cache_write_tokens") or 0,
        reasoning_tokens=optional_token_count(written, "reasoning_tokens"),
    )
