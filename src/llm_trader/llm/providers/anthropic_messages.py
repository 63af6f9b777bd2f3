"""Anthropic's models through the Messages API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from llm_trader.llm.providers.protocol import Finish, LlmRequest, TokenUsage
from llm_trader.llm.providers.sdk_connection import SdkProvider, SdkReply
from llm_trader.llm.providers.sdk_failures import BrokenReplyError
from llm_trader.llm.providers.token_counts import optional_token_count, token_count

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic

_FINISHES: Final[dict[str, Finish]] = {
    "end_turn": "complete",
    "stop_sequence": "complete",
    "max_tokens": "truncated",
    "model_context_window_exceeded": "truncated",
    "refusal": "refused",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AnthropicMessages(SdkProvider):
    client: AsyncAnthropic
    caches: bool
    thinking_off: Literal["disabled", "between_tools"] | None

    def _arguments(self, request: LlmRequest) -> dict[str, Any]:
        system: dict[str, Any] = {"type": "text", "text": request.system}
        if self.caches:
            system["cache_control"] = {"type": "ephemeral"}
        arguments: dict[str, Any] = {
            "model": request.model,
            "max_tokens": request.max_output_tokens,
            "system": [system],
            "messages": [
                {"role": message.role, "content": message.text} for message in request.messages
            ],
        }
        output: dict[str, Any] = {}
        if request.effort == "none":
            arguments["thinking"] = {"type": self.thinking_off or "disabled"}
        elif request.effort is not None:
            output["effort"] = request.effort
        if request.schema is not None:
            output["format"] = {"type": "json_schema", "schema": request.schema}
        if output:
            arguments["output_config"] = output
        return arguments

    async def _at_once(self, arguments: dict[str, Any]) -> SdkReply:
        message = await self.client.messages.create(**arguments)
        # Thinking comes as blocks of its own, and may come first.
        text = "".join(block.text for block in message.content if block.type == "text")
        return _reply(text, message.stop_reason, _usage(message.usage), message)

    async def _streamed(self, arguments: dict[str, Any]) -> SdkReply:
        texts: list[str] = []
        message = stop_reason = usage = None
        complete = False
        async with await self.client.messages.create(**arguments, stream=True) as events:
            async for event in events:
                if event.type == "message_start":
                    message, usage = event.message, event.message.usage
                elif event.type == "content_block_start" and event.content_block.type == "text":
                    texts.append(event.content_block.text)
                elif event.type == "content_block_delta" and event.delta.type == "text_delta":
                    texts.append(event.delta.text)
                elif event.type == "message_delta":
                    stop_reason = event.delta.stop_reason or stop_reason
                    usage = _updated(usage, event.usage)
                elif event.type == "message_stop":
                    complete = True
        if not complete or message is None:
            raise BrokenReplyError("the stream ended before the reply was complete", "connection")
        return _reply("".join(texts), stop_reason, _usage(usage), message)


def _updated(usage: Any, update: Any) -> Any:
    """The counts at the end of a stream are those of all of it, but may leave some out."""
    given = {name: value for name, value in dict(update).items() if value is not None}
    return usage.model_copy(update=given)


def _reply(text: str, stop_reason: Any, usage: TokenUsage, message: Any) -> SdkReply:
    if stop_reason not in _FINISHES:
        reason = f"the reply ended for an unknown reason: {stop_reason!r}"
        raise BrokenReplyError(reason, usage=usage)
    return SdkReply(text, _FINISHES[stop_reason], usage, message.model, message.id)


def _usage(usage: Any) -> TokenUsage:
    read = optional_token_count(usage, "cache_read_input_tokens") or 0
    written = optional_token_count(usage, "cache_creation_input_tokens") or 0
    return TokenUsage(
        # Anthropic counts what was read from and written to the cache apart from the rest.
        input_tokens=token_count(usage.input_tokens) + read + written,
        output_tokens=token_count(usage.output_tokens),
        cached_input_tokens=read,
        cache_write_tokens=written,
        reasoning_tokens=optional_token_count(usage.output_tokens_details, "thinking_tokens"),
    )
