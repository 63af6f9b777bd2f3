"""Redis, which everything here can do without: a server that is away, slow or broken answers None.

The client is an extra, and is imported with the first connection.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog

from llm_trader.errors import ConfigurationError, raised_inside

# An outage lasts minutes and affects every request; one line a minute is enough to notice it.
_WARNING_INTERVAL_S: Final = 60.0

_log = structlog.get_logger(__name__)

Clock = Callable[[], float]


class RateLimitedWarnings:
    """Logs at most one warning per minute, so that an outage does not flood the log."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._next_s = -float("inf")

    def warn(self, event: str, **details: Any) -> None:
        now_s = self._clock()
        if now_s >= self._next_s:
            self._next_s = now_s + _WARNING_INTERVAL_S
            _log.warning(event, **details)


class RedisConnection:
    """`client` is redis-py's. `purpose` and `setting` are for messages: what it serves, and the key
    of the setting that has the `url`.

    `timeout_s` limits a whole request, including the connection. After a failure no request is
    sent for `rest_s` seconds. The password is never logged.
    """

    def __init__(
        self,
        url: str,
        *,
        purpose: str,
        setting: str,
        timeout_s: float,
        password: str | None = None,
        rest_s: float = 5.0,
        clock: Clock = time.monotonic,
    ) -> None:
        self.client = _client(url, password, timeout_s, purpose, setting)
        self._purpose = purpose
        self._timeout_s = timeout_s
        self._rest_s = rest_s
        self._clock = clock
        self._resting_until_s = -float("inf")
        self._is_away = False
        self._warnings = RateLimitedWarnings(clock)

    async def request(self, command: Callable[[], Awaitable[Any]]) -> Any:
        """The command's reply; None if Redis is not there, or was not a moment ago."""
        if self._clock() < self._resting_until_s:
            return None
        try:
            # The client's own timeouts limit single steps; this one limits their sum.
            async with asyncio.timeout(self._timeout_s):
                reply = await command()
        except Exception as error:
            if not _is_redis_failure(error):
                raise
            self._is_away = True
            self._resting_until_s = self._clock() + self._rest_s
            reason = type(error).__name__
            self._warnings.warn("redis_unavailable", error=reason, purpose=self._purpose)
            return None
        if self._is_away:
            self._is_away = False
            _log.info("redis_available_again", purpose=self._purpose)
        return reply

    async def aclose(self) -> None:
        await self.client.aclose()


def _is_redis_failure(error: Exception) -> bool:
    """Whether Redis is unavailable, slow or broken, as opposed to a bug of this package."""
    from redis import DataError, RedisError

    if isinstance(error, RedisError | OSError):  # a TimeoutError is an OSError
        return not isinstance(error, DataError)  # the client refuses our arguments
    # The client's parser raises these on replies that do not come from a Redis.
    plain = isinstance(error, ValueError | TypeError | AttributeError)
    return plain and raised_inside(error, ("redis",))


def _client(url: str, password: str | None, timeout_s: float, purpose: str, setting: str) -> Any:
    try:
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
    except ImportError:
        raise ConfigurationError(
            f"{purpose} need the Redis client: pip install 'llm-trader-rag[redis]', or "
            f"remove {setting}"
        ) from None
    options: dict[str, Any] = {} if password is None else {"password": password}
    options |= {"socket_connect_timeout": timeout_s, "socket_timeout": timeout_s}
    try:
        return Redis.from_url(url, **options, retry=Retry(NoBackoff(), 0))
    except ValueError:
        # The library's message may contain the URL, and the URL a password.
        problem = f"{setting} is not a Redis URL; write it like redis://host:6379/0"
        raise ConfigurationError(problem) from None
