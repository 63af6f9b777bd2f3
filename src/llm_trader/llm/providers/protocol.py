"""What is asked of a language model, what it replies, and what can go wrong between them."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import msgspec

from llm_trader.errors import LlmTraderError

Role = Literal["user", "assistant"]
# `truncated`: the output limit was reached; `refused`: the model declined, by its own sign.
Finish = Literal["complete", "truncated", "refused"]
# `overloaded`: 5xx, also where the provider is broken; `bad_reply`: what came is not of its API;
# `unknown_model`: retired, misspelt, or not open to this key; `not_recorded`: a replay lacks it.
FailureKind = Literal[
    "timeout",
    "rate_limited",
    "overloaded",
    "connection",
    "bad_reply",
    "bad_request",
    "unknown_model",
    "credentials",
    "not_recorded",
]


class Message(msgspec.Struct, frozen=True):
    role: Role
    text: str


class LlmRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that decides what a model replies; its canonical JSON is what is hashed.

    `system` is the stable prefix that providers may cache. `temperature` and `effort` are `None`
    where they are left to the model. `schema` is the JSON Schema that the reply is to satisfy, in
    what both APIs take: all properties required, none besides, no bounds, `null` for what is
    optional. It is not sent to a model without structured output.

    `sample` is not sent at all: it tells apart requests that ask the same thing again on purpose.
    """

    provider: str
    model: str
    system: str
    messages: tuple[Message, ...]
    max_output_tokens: int
    temperature: float | None = None
    effort: str | None = None
    schema: dict[str, Any] | None = None
    sample: int = 0


class TokenUsage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens as the provider counted them; `input_tokens` includes cached ones, `output_tokens`
    includes hidden reasoning.
    """

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int | None = None


class LlmReply(msgspec.Struct, frozen=True, kw_only=True):
    """`model` and `response_id` are what the provider says; `sdk` is its client, such as
    `anthropic 2.14.0`. `usage` is `None` where the provider says nothing of it.

    `attempts` includes this one. Of those before it, `unanswered` came to an unknown end, such as a
    lost connection: the provider may charge them too.
    """

    text: str
    finish: Finish
    usage: TokenUsage | None
    model: str
    response_id: str | None
    sdk: str
    attempts: int
    latency_ms: float
    unanswered: int = 0


class ProviderError(LlmTraderError):
    """A call that came to nothing.

    `unanswered` of its `attempts` came to an unknown end, so the provider may charge them; those
    that were answered with an error cost nothing. `usage` is what the provider said it charges.
    """

    code = "provider"

    def __init__(
        self,
        message: str,
        *,
        kind: FailureKind,
        attempts: int,
        latency_ms: float,
        unanswered: int = 0,
        usage: TokenUsage | None = None,
    ) -> None:
        super().__init__(message, kind=kind, attempts=attempts, unanswered=unanswered)
        self.kind: FailureKind = kind
        self.attempts = attempts
        self.latency_ms = latency_ms
        self.unanswered = unanswered
        self.usage = usage


class Provider(Protocol):
    """Calls one model. `complete` raises `ProviderError`, and nothing else that is expected.

    `deadline_s` includes all attempts and the pauses between them, but not the wait for a turn
    under the rate limit before the first.
    """

    @property
    def name(self) -> str: ...

    async def complete(self, request: LlmRequest, *, deadline_s: float) -> LlmReply: ...

    async def close(self) -> None: ...
