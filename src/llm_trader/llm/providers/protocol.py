"""What is asked of a language model, what it replies, and what can go wrong between them."""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec

from llm_trader.errors import LlmTraderError

Role = Literal["user", "assistant"]
# `truncated`: the output limit was reached; `refused`: the model declined, by its own sign.
Finish = Literal["complete", "truncated", "refused"]
FailureKind = Literal[
    "timeout", "rate_limited", "overloaded", "connection", "bad_reply", "bad_request", "credentials"
]


class Message(msgspec.Struct, frozen=True):
    role: Role
    text: str


class LlmRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that decides what a model replies; its canonical JSON is what is hashed.

    `system` is the stable prefix that providers may cache. `temperature` and `effort` are `None`
    where the model has no such parameter. `structured` asks for the JSON Schema of a decision.
    """

    provider: str
    model: str
    system: str
    messages: tuple[Message, ...]
    max_output_tokens: int
    temperature: float | None = None
    effort: str | None = None
    structured: bool = True


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
    """

    text: str
    finish: Finish
    usage: TokenUsage | None
    model: str
    response_id: str | None
    sdk: str
    attempts: int
    latency_ms: float


class ProviderError(LlmTraderError):
    """A call that came to nothing. `usage` is what was paid all the same, as far as is known."""

    code = "provider"

    def __init__(
        self,
        message: str,
        *,
        kind: FailureKind,
        attempts: int,
        latency_ms: float,
        usage: TokenUsage | None = None,
    ) -> None:
        super().__init__(message, kind=kind, attempts=attempts)
        self.kind: FailureKind = kind
        self.attempts = attempts
        self.latency_ms = latency_ms
        self.usage = usage


class Provider(Protocol):
    """Calls one model. `complete` raises `ProviderError`, and nothing else that is expected."""

    @property
    def name(self) -> str: ...

    async def complete(self, request: LlmRequest, *, deadline_s: float) -> LlmReply: ...

    async def close(self) -> None: ...
