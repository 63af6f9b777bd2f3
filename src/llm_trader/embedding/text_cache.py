"""Text vectors of queries: cached in this process, shared between servers in Redis, or encoded.

Encoding takes tens of milliseconds, so it runs in separate threads, and once per sentence even if
many callers wait for it. Redis is optional: if it fails, vectors are encoded instead.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol

import numpy as np
import structlog

from llm_trader.arrays import Vectors
from llm_trader.embedding.config import TextConfig, VectorCacheConfig
from llm_trader.embedding.text import TextSpace, are_unit
from llm_trader.errors import ConfigurationError, raised_inside
from llm_trader.snapshot.table import SnapshotTable

_DEFAULTS: Final = TextConfig()
_PREFIX: Final = "llm-trader:text:"
_WIRE_TYPE: Final = np.dtype("<f4")
# An outage lasts minutes and affects every query; one line a minute is enough to notice it.
_WARNING_INTERVAL_S: Final = 60.0

_log = structlog.get_logger(__name__)

Clock = Callable[[], float]


class SharedVectors(Protocol):
    """Bytes by key, shared between processes. Keys may vanish; an outage looks like that too."""

    async def get(self, key: str) -> bytes | None: ...
    async def put(self, key: str, value: bytes) -> None: ...
    async def aclose(self) -> None: ...


class QueryTexts:
    """The text vectors of queries, for one event loop.

    `local_hits`, `shared_hits` and `encoded` count the sources of the vectors.
    """

    def __init__(
        self, space: TextSpace, config: TextConfig = _DEFAULTS, shared: SharedVectors | None = None
    ) -> None:
        self.space_id = space.space_id
        self.dimension = space.dimension
        self.model = space.model
        self.local_hits = self.shared_hits = self.encoded = 0
        self._space = space
        self._size = config.cache_size
        self._shared = shared
        self._recent: OrderedDict[str, Vectors] = OrderedDict()
        self._running: dict[str, asyncio.Task[Vectors]] = {}
        self._writing: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(config.threads, thread_name_prefix="query-text")
        self._warnings = _RateLimitedWarnings(time.monotonic)

    async def vector(self, table: SnapshotTable) -> Vectors:
        """The vector of a table of one row: shape (dimension,), norm 1, read-only.

        Raises EmbeddingError when the state has no field that a sentence could mention.
        """
        sentence = self._space.sentence(table)
        recent = self._recent.get(sentence)
        if recent is not None:
            self._recent.move_to_end(sentence)
            self.local_hits += 1
            return recent
        task = self._running.get(sentence)
        if task is None:
            task = asyncio.create_task(self._load(sentence))
            self._running[sentence] = task
            task.add_done_callback(lambda finished: self._forget_task(sentence, finished))
        # A caller that gives up must not cancel the vector that others wait for.
        return await asyncio.shield(task)

    async def aclose(self) -> None:
        """Cancel the running encodings and writes, and close the shared store."""
        tasks: list[asyncio.Future[Any]] = [*self._running.values(), *self._writing]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._shared is not None:
            await self._shared.aclose()

    async def _load(self, sentence: str) -> Vectors:
        key = f"{self.space_id}:{hashlib.sha256(sentence.encode()).hexdigest()}"
        vector = await self._from_shared(key)
        if vector is None:
            loop = asyncio.get_running_loop()
            (vector,) = await loop.run_in_executor(self._threads, self._space.encode, [sentence])
            self.encoded += 1
            if self._shared is not None:
                task = loop.create_task(self._write(self._shared, key, vector))
                self._writing.add(task)
                task.add_done_callback(self._writing.discard)
        vector.setflags(write=False)
        self._recent[sentence] = vector
        if len(self._recent) > self._size:
            self._recent.popitem(last=False)
        return vector

    async def _from_shared(self, key: str) -> Vectors | None:
        value = None if self._shared is None else await self._shared.get(key)
        if value is None:
            return None
        if len(value) == self.dimension * _WIRE_TYPE.itemsize:
            vector = np.frombuffer(value, _WIRE_TYPE).astype(np.float32)
            if are_unit(vector):
                self.shared_hits += 1
                return vector
        self._warnings.warn("shared_vector_is_none", key=key, size=len(value))
        return None

    async def _write(self, shared: SharedVectors, key: str, vector: Vectors) -> None:
        try:
            await shared.put(key, vector.astype(_WIRE_TYPE).tobytes())
        except Exception:  # noqa: BLE001  no caller waits, so only the log can show a bug
            _log.exception("shared_vector_not_written")

    def _forget_task(self, sentence: str, task: asyncio.Task[Vectors]) -> None:
        del self._running[sentence]
        if not task.cancelled():
            # asyncio would log an exception that no caller waited for.
            task.exception()


class RedisVectors:
    """`SharedVectors` in Redis; an unavailable, slow or broken server counts as an empty cache.

    `redis_timeout_ms` limits a whole request, including the connection. After a failure no
    request is sent for `rest_s` seconds. The password is never logged.
    """

    def __init__(
        self,
        config: VectorCacheConfig,
        *,
        password: str | None = None,
        rest_s: float = 5.0,
        clock: Clock = time.monotonic,
    ) -> None:
        self._timeout_s = config.redis_timeout_ms / 1000
        self._client = _client(config.redis_url or "", password, self._timeout_s)
        self._ttl_s = config.ttl_hours * 3600
        self._rest_s = rest_s
        self._clock = clock
        self._resting_until_s = -float("inf")
        self._warnings = _RateLimitedWarnings(clock)

    async def get(self, key: str) -> bytes | None:
        value = await self._request(lambda: self._client.get(_PREFIX + key))
        return value if isinstance(value, bytes) else None

    async def put(self, key: str, value: bytes) -> None:
        await self._request(lambda: self._client.set(_PREFIX + key, value, ex=self._ttl_s))

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _request(self, command: Callable[[], Any]) -> Any:
        if self._clock() < self._resting_until_s:
            return None
        try:
            # The client's own timeouts limit single steps; this one limits their sum.
            async with asyncio.timeout(self._timeout_s):
                return await command()
        except Exception as error:
            if not _is_redis_failure(error):
                raise
            self._resting_until_s = self._clock() + self._rest_s
            self._warnings.warn("redis_unavailable", error=type(error).__name__)
            return None


def _is_redis_failure(error: Exception) -> bool:
    """Whether Redis is unavailable, slow or broken, as opposed to a bug of this package."""
    from redis import DataError, RedisError

    if isinstance(error, RedisError | OSError):  # a TimeoutError is an OSError
        return not isinstance(error, DataError)  # the client refuses our arguments
    # The client's parser raises these on replies that do not come from a Redis.
    plain = isinstance(error, ValueError | TypeError | AttributeError)
    return plain and raised_inside(error, ("redis",))


def _client(url: str, password: str | None, timeout_s: float) -> Any:
    try:
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
    except ImportError:
        raise ConfigurationError(
            "shared text vectors need the Redis client: pip install 'llm-trader-rag[redis]', or "
            "remove cache.redis_url"
        ) from None
    options: dict[str, Any] = {} if password is None else {"password": password}
    options |= {"socket_connect_timeout": timeout_s, "socket_timeout": timeout_s}
    try:
        return Redis.from_url(url, **options, retry=Retry(NoBackoff(), 0))
    except ValueError:
        # The library's message may contain the URL, and the URL a password.
        problem = "cache.redis_url is not a Redis URL; write it like redis://host:6379/0"
        raise ConfigurationError(problem) from None


class _RateLimitedWarnings:
    """Logs at most one warning per minute, so that an outage does not flood the log."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._next_s = -float("inf")

    def warn(self, event: str, **details: Any) -> None:
        now_s = self._clock()
        if now_s >= self._next_s:
            self._next_s = now_s + _WARNING_INTERVAL_S
            _log.warning(event, **details)
