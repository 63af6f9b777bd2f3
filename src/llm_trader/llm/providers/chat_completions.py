"""Models at any address that speaks OpenAI's chat completions, such as vLLM and Ollama."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from llm_trader.llm.providers.protocol import Finish, LlmRequest, TokenUsage
from llm_trader.llm.providers.sdk_connection import SdkProvider, SdkReply
from llm_trader.llm.providers.sdk_failures import BrokenReplyError
from llm_trader.llm.providers.token_counts import optional_token_count, token_count
from llm_trader.llm.reply.schema import DECISION_SCHEMA_NAME

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_FINISHES: Final[dict[str, Finish]] = {
    "stop": "complete",
    "length": "truncated",
    "content_filter": "refused",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatCompletions(SdkProvider):
    client: AsyncOpenAI

    def _arguments(self, request: LlmRequest) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "model": request.model,
            "messages": [
                {"role": "system", "content": request.system},
                *({"role": message.role, "content": message.text} for message in request.messages),
            ],
            "max_tokens": request.max_output_tokens,
        }
        if request.temperature is not None:
            arguments["temperature"] = request.temperature
        if request.effort is not None:
            arguments["reasoning_effort"] = request.effort
        if request.schema is not None:
            arguments["response_format"] = {
                "type": "json_schema",
                "json_schema": {
                    "name": DECISION_SCHEMA_NAME,
                    "schema": request.schema,
                    "strict": True,
                },
            }
        return arguments

    async def _at_once(self, arguments: dict[str, Any]) -> SdkReply:
        completion = await self.client.chat.completions.create(**arguments)
        choice = completion.choices[0]
        return _reply(
            choice.message.content or "",
            choice.message.refusal or "",
            choice.finish_reason,
            completion,
            completion.usage,
        )

    async def _streamed(self, arguments: dict[str, Any]) -> SdkReply:
        texts, refusals = [], []
        chunk = finish = usage = None
        arguments |= {"stream": True, "stream_options": {"include_usage": True}}
        stream: Any = await self.client.chat.completions.create(**arguments)
        async with stream as chunks:
            async for chunk in chunks:
                usage = chunk.usage or usage
                for choice in chunk.choices[:1]:
                    texts.append(choice.delta.content or "")
                    refusals.append(choice.delta.refusal or "")
                    finish = choice.finish_reason or finish
        if finish is None:
            raise BrokenReplyError("the stream ended before the reply was complete", "connection")
        return _reply("".join(texts), "".join(refusals), finish, chunk, usage)


def _reply(text: str, refusal: str, finish: str, answer: Any, usage: Any) -> SdkReply:
    counts = None
    if usage is not None:
        counts = TokenUsage(
            input_tokens=token_count(usage.prompt_tokens),
            output_tokens=token_count(usage.completion_tokens),
            cached_input_tokens=optional_token_count(usage.prompt_tokens_details, "cached_tokens")
            or 0,
            reasoning_tokens=optional_token_count(
                usage.completion_tokens_details, "reasoning_tokens"
            ),
        )
    if finish not in _FINISHES:
        raise BrokenReplyError(f"the reply ended for an unknown reason: {finish!r}", usage=counts)
    ending = "refused" if refusal else _FINISHES[finish]
    return SdkReply(text or refusal, ending, counts, answer.model, answer.id)
