"""Text vectors of queries: cached in this process, shared between servers in Redis, or encoded.

Encoding takes tens of milliseconds, so it runs in separate threads, and once per sentence even if
many callers wait for it. Redis is optional: if it fails, vectors are encoded instead.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol

import numpy as np
import structlog

from llm_trader.arrays import Vectors
from llm_trader.embedding.config import TextConfig, VectorCacheConfig
from llm_trader.embedding.text import TextSpace, are_unit
from llm_trader.snapshot.table import SnapshotTable
from llm_trader.storage.redis_connection import Clock, RateLimitedWarnings, RedisConnection

_DEFAULTS: Final = TextConfig()
_PREFIX: Final = "llm-trader:text:"
_WIRE_TYPE: Final = np.dtype("<f4")

_log = structlog.get_logger(__name__)


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
        self._warnings = RateLimitedWarnings(time.monotonic)

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
    """`SharedVectors` in Redis; an unavailable, slow or broken server counts as an empty cache."""

    def __init__(
        self,
        config: VectorCacheConfig,
        *,
        password: str | None = None,
        rest_s: float = 5.0,
        clock: Clock = time.monotonic,
    ) -> None:
        self._redis = RedisConnection(
            config.redis_url or "",
            purpose="shared text vectors",
            setting="cache.redis_url",
            timeout_s=config.redis_timeout_ms / 1000,
            password=password,
            rest_s=rest_s,
            clock=clock,
        )
        self._ttl_s = config.ttl_hours * 3600

    async def get(self, key: str) -> bytes | None:
        client = self._redis.client
        value = await self._redis.request(lambda: client.get(_PREFIX + key))
        return value if isinstance(value, bytes) else None

    async def put(self, key: str, value: bytes) -> None:
        client = self._redis.client
        await self._redis.request(lambda: client.set(_PREFIX + key, value, ex=self._ttl_s))

    async def aclose(self) -> None:
        await self._redis.aclose()
