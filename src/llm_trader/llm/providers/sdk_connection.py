"""The connection below an SDK, and one call over it.

Trying again is left to the SDK. What it lacks is here: attempts are counted as they leave, each
takes its turn under the rate limit, all of them together keep to a deadline, however slowly bytes
drip, and whatever goes wrong becomes a `ProviderError`.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import ssl
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final

import httpx2
from aiolimiter import AsyncLimiter

from llm_trader.llm.providers.protocol import (
    FailureKind,
    Finish,
    LlmReply,
    LlmRequest,
    ProviderError,
    TokenUsage,
)
from llm_trader.llm.providers.sdk_failures import (
    REMEDIES,
    BrokenReplyError,
    failure_of,
    kind_of_status,
)

_CONNECT_S: Final = 10.0
_MS: Final = 1000.0
# 128,000 tokens, each an event of a stream of its own, are some 40 MB.
MOST_BYTES: Final = 2**26


@dataclass(frozen=True, slots=True)
class SdkReply:
    """A reply as one of the SDKs gave it, which checks no types."""

    text: str
    finish: Finish
    usage: TokenUsage | None
    model: str
    response_id: str | None

    def __post_init__(self) -> None:
        texts = [self.text, self.model]
        if self.response_id is not None:
            texts.append(self.response_id)
        if not all(isinstance(text, str) for text in texts):
            raise BrokenReplyError("something else stands where text belongs", usage=self.usage)


@dataclass(slots=True)
class _Attempts:
    """The attempts of one call: how many left, how many of them came to an unknown end, and the
    status that the last one was answered with. A status of success leaves it `open` until its
    reply has been read.
    """

    count: int = 0
    unanswered: int = 0
    open: bool = False
    status: int | None = None


_ATTEMPTS: ContextVar[_Attempts] = ContextVar("attempts of the call")


class _BoundedStream(httpx2.AsyncByteStream):
    """A body that does not fill the memory, whoever sends it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        received = 0
        async for part in self._stream:
            received += len(part)
            if received > MOST_BYTES:
                raise BrokenReplyError(f"the reply is longer than {MOST_BYTES} bytes")
            yield part

    async def aclose(self) -> None:
        await self._stream.aclose()


class SdkConnection:
    """`http` goes into the SDK's client. `key` is kept out of error messages."""

    def __init__(
        self,
        provider: str,
        sdk: str,
        *,
        key: str | None,
        timeout_s: float,
        requests_per_minute: int,
    ) -> None:
        self.provider = provider
        self.sdk = sdk
        self._key = key
        self._limiter = AsyncLimiter(requests_per_minute, 60)
        # It says each request at the level of info; the SDK says those that are tried again.
        if not logging.getLogger().isEnabledFor(logging.DEBUG):
            logging.getLogger("httpx2").setLevel(logging.WARNING)
        self.http = httpx2.AsyncClient(
            verify=_trusted_authorities(),
            limits=httpx2.Limits(max_connections=1000, max_keepalive_connections=100),
            timeout=httpx2.Timeout(timeout_s, connect=min(timeout_s, _CONNECT_S)),
            event_hooks={"request": [self._leaves], "response": [self._answered]},
        )

    async def call(self, ask: Callable[[], Awaitable[SdkReply]], deadline_s: float) -> LlmReply:
        """What `ask` gets from the SDK, with the attempts that it took."""
        await self._limiter.acquire()
        attempts = _Attempts()
        token = _ATTEMPTS.set(attempts)
        start_s = time.monotonic()
        try:
            async with asyncio.timeout(deadline_s):
                reply = await ask()
        except TimeoutError:
            kind, message = _after_deadline(attempts, deadline_s)
            raise self._error(kind, message, attempts, start_s) from None
        except Exception as error:
            if (failure := failure_of(error)) is None:
                raise
            usage = error.usage if isinstance(error, BrokenReplyError) else None
            raise self._error(*failure, attempts, start_s, usage) from error
        finally:
            _ATTEMPTS.reset(token)
        return LlmReply(
            text=reply.text,
            finish=reply.finish,
            usage=reply.usage,
            model=reply.model,
            response_id=reply.response_id,
            sdk=self.sdk,
            attempts=attempts.count,
            latency_ms=(time.monotonic() - start_s) * _MS,
            unanswered=attempts.unanswered,
        )

    async def close(self) -> None:
        await self.http.aclose()

    async def _leaves(self, request: httpx2.Request) -> None:
        attempts = _ATTEMPTS.get()
        attempts.unanswered += attempts.open
        attempts.open = False
        if attempts.count:
            await self._limiter.acquire()
        attempts.count += 1
        attempts.status = None

        # What never left this machine, as nobody took the connection, cannot be charged.
        async def trace(event: str, info: dict[str, Any]) -> None:
            if event.endswith("send_request_headers.started"):
                attempts.open = True

        request.extensions["trace"] = trace

    async def _answered(self, response: httpx2.Response) -> None:
        attempts = _ATTEMPTS.get()
        attempts.status = response.status_code
        attempts.open = response.is_success
        response.stream = _BoundedStream(response.stream)

    def _error(
        self,
        kind: FailureKind,
        message: str,
        attempts: _Attempts,
        start_s: float,
        usage: TokenUsage | None = None,
    ) -> ProviderError:
        if self._key:
            message = message.replace(self._key, "…")
        plural = "attempt" if attempts.count == 1 else "attempts"
        remedy = f"; {REMEDIES[kind]}" if kind in REMEDIES else ""
        return ProviderError(
            f"{self.provider}: {message} ({attempts.count} {plural}){remedy}",
            kind=kind,
            attempts=attempts.count,
            latency_ms=(time.monotonic() - start_s) * _MS,
            unanswered=attempts.unanswered + (attempts.open and usage is None),
            usage=usage,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SdkProvider(ABC):
    """A `Provider` by an SDK; each interface has its own arguments and replies."""

    connection: SdkConnection
    stream: bool

    @property
    def name(self) -> str:
        return self.connection.provider

    async def complete(self, request: LlmRequest, *, deadline_s: float) -> LlmReply:
        arguments = self._arguments(request)
        ask = self._streamed if self.stream else self._at_once
        return await self.connection.call(lambda: ask(arguments), deadline_s)

    async def close(self) -> None:
        await self.connection.close()

    @abstractmethod
    def _arguments(self, request: LlmRequest) -> dict[str, Any]:
        """What the SDK is called with."""

    @abstractmethod
    async def _at_once(self, arguments: dict[str, Any]) -> SdkReply: ...

    @abstractmethod
    async def _streamed(self, arguments: dict[str, Any]) -> SdkReply: ...


@functools.cache
def _trusted_authorities() -> ssl.SSLContext:
    """Reading them takes 20 ms, and they are the same for all connections."""
    return httpx2.create_ssl_context()


def _after_deadline(attempts: _Attempts, deadline_s: float) -> tuple[FailureKind, str]:
    if attempts.open or attempts.status is None:
        return "timeout", f"no complete reply within {deadline_s:g} s"
    kind = kind_of_status(attempts.status)
    return kind, f"{attempts.status}, and no time for another attempt within {deadline_s:g} s"
