"""Text vectors of queries: from this process's memory, from a Redis that servers share, or encoded.

Encoding takes tens of milliseconds, so it happens in threads of its own, once per sentence however
many ask for it. A Redis is a convenience: when it fails, vectors are encoded instead.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol

import numpy as np
import structlog

from llm_trader.arrays import Vectors
from llm_trader.embedding.text import TextSpace, are_unit
from llm_trader.errors import ConfigurationError
from llm_trader.snapshot.table import SnapshotTable

WEEK_S: Final = 7 * 24 * 3600

_PREFIX: Final = "llm-trader:text:"
_WIRE_TYPE: Final = np.dtype("<f4")
_COMPLAINT_EVERY_S: Final = 60.0

_log = structlog.get_logger(__name__)

Clock = Callable[[], float]


class SharedVectors(Protocol):
    """Bytes by key, shared between processes; may forget, and never raises for being away."""

    async def get(self, key: str) -> bytes | None: ...

    async def put(self, key: str, value: bytes) -> None: ...

    async def aclose(self) -> None: ...


class QueryTexts:
    """The text vectors of queries. Belongs to one event loop.

    `local_hits`, `shared_hits` and `encoded` count where vectors came from.
    """

    def __init__(
        self,
        space: TextSpace,
        size: int,
        shared: SharedVectors | None = None,
        *,
        threads: int = 2,
        clock: Clock = time.monotonic,
    ) -> None:
        self.space_id = space.space_id
        self.dimension = space.dimension
        self.model = space.model
        self.local_hits = self.shared_hits = self.encoded = 0
        self._space = space
        self._size = size
        self._shared = shared
        self._recent: OrderedDict[str, Vectors] = OrderedDict()
        self._running: dict[str, asyncio.Task[Vectors]] = {}
        self._writing: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="query-text")
        self._complaints = _Complaints(clock)

    async def vector(self, table: SnapshotTable) -> Vectors:
        """The vector of a table of one row: shape (dimension,), norm 1, read-only.

        Raises EmbeddingError when the state says nothing.
        """
        sentence = self._space.sentence(table)
        known = self._recent.get(sentence)
        if known is not None:
            self._recent.move_to_end(sentence)
            self.local_hits += 1
            return known
        task = self._running.get(sentence)
        if task is None:
            task = asyncio.create_task(self._found(sentence))
            self._running[sentence] = task
            task.add_done_callback(lambda done: self._ended(sentence, done))
        # Others may wait for it too.
        return await asyncio.shield(task)

    async def aclose(self) -> None:
        """Give up what is still being encoded or written, and close the shared store."""
        tasks = [*self._running.values(), *self._writing]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._shared is not None:
            await self._shared.aclose()

    async def _found(self, sentence: str) -> Vectors:
        key = f"{self.space_id}:{hashlib.sha256(sentence.encode()).hexdigest()}"
        vector = await self._from_shared(key)
        if vector is None:
            loop = asyncio.get_running_loop()
            (vector,) = await loop.run_in_executor(self._threads, self._space.encode, [sentence])
            self.encoded += 1
            if self._shared is not None:
                self._in_background(self._shared.put(key, vector.astype(_WIRE_TYPE).tobytes()))
        vector.setflags(write=False)
        self._remember(sentence, vector)
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
        self._complaints.warn("shared_vector_is_none", key=key, size=len(value))
        return None

    def _remember(self, sentence: str, vector: Vectors) -> None:
        self._recent[sentence] = vector
        while len(self._recent) > self._size:
            self._recent.popitem(last=False)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    def _ended(self, sentence: str, task: asyncio.Task[Vectors]) -> None:
        del self._running[sentence]
        if not task.cancelled():
            task.exception()  # seen, even where everybody who waited has left


class RedisVectors:
    """`SharedVectors` in a Redis. One that is away, slow or answers nonsense holds nothing.

    A question gets `timeout_s` in all, connecting included, and after a failure none is asked for
    `rest_s` seconds. Values are kept for `ttl_s` seconds. The password is never logged, whether
    it stands in the URL or is given.
    """

    def __init__(
        self,
        url: str,
        *,
        password: str | None = None,
        timeout_s: float = 0.05,
        ttl_s: int = WEEK_S,
        rest_s: float = 5.0,
        clock: Clock = time.monotonic,
    ) -> None:
        self._client = _client(url, password, timeout_s)
        self._timeout_s = timeout_s
        self._ttl_s = ttl_s
        self._rest_s = rest_s
        self._clock = clock
        self._resting_until = -float("inf")
        self._complaints = _Complaints(clock)

    async def get(self, key: str) -> bytes | None:
        value = await self._asked(lambda: self._client.get(_PREFIX + key))
        return value if isinstance(value, bytes) else None

    async def put(self, key: str, value: bytes) -> None:
        await self._asked(lambda: self._client.set(_PREFIX + key, value, ex=self._ttl_s))

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _asked(self, ask: Callable[[], Any]) -> Any:
        from redis import RedisError

        if self._clock() < self._resting_until:
            return None
        try:
            # The client's own timeouts are per step; this one is for all of them.
            async with asyncio.timeout(self._timeout_s):
                return await ask()
        except (RedisError, OSError, ValueError, TypeError, AttributeError) as error:
            self._resting_until = self._clock() + self._rest_s
            self._complaints.warn("redis_unavailable", error=type(error).__name__)
            return None


def _client(url: str, password: str | None, timeout_s: float) -> Any:
    try:
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
    except ImportError:
        raise ConfigurationError(
            "shared text vectors need the Redis client: pip install 'llm-trader-rag[redis]', or "
            "leave cache.redis_url out"
        ) from None
    secret: dict[str, Any] = {} if password is None else {"password": password}
    try:
        return Redis.from_url(
            url,
            **secret,
            socket_connect_timeout=timeout_s,
            socket_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
        )
    except ValueError:
        # The library's message may hold the URL, and that a password.
        raise ConfigurationError("cache.redis_url is not like redis://host:6379/0") from None


class _Complaints:
    """Warnings, one a minute."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._next_s = -float("inf")

    def warn(self, event: str, **details: Any) -> None:
        now = self._clock()
        if now >= self._next_s:
            self._next_s = now + _COMPLAINT_EVERY_S
            _log.warning(event, **details)
