from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import structlog

from llm_trader.embedding.config import TextConfig, VectorCacheConfig
from llm_trader.embedding.text import TextSpace
from llm_trader.embedding.text_cache import QueryTexts, RedisVectors, SharedVectors
from llm_trader.errors import ConfigurationError, EmbeddingError
from llm_trader.snapshot.table import SnapshotTable
from llm_trader.timeframe import M5
from tests.embedding.encoders import HashedWords
from tests.embedding.states import simulated_states
from tests.redis_server import RedisServer

# Far beyond what an answer takes here, also on a busy machine.
PATIENT_MS = 20_000


def state(row: int) -> SnapshotTable:
    return simulated_states().take(np.array([row]))


def space_of(encoder: HashedWords) -> TextSpace:
    return TextSpace(encoder, "compact")


def cache(url: str, timeout_ms: int = 200) -> VectorCacheConfig:
    return VectorCacheConfig(redis_url=url, redis_timeout_ms=timeout_ms)


def patient(url: str, ttl_hours: int = 168) -> RedisVectors:
    return RedisVectors(
        VectorCacheConfig(redis_url=url, redis_timeout_ms=PATIENT_MS, ttl_hours=ttl_hours)
    )


@asynccontextmanager
async def query_texts(
    encoder: HashedWords, size: int = 100, shared: SharedVectors | None = None
) -> AsyncIterator[QueryTexts]:
    texts = QueryTexts(space_of(encoder), TextConfig(cache_size=size), shared)
    try:
        yield texts
    finally:
        if encoder.gate is not None:
            encoder.gate.set()
        await texts.aclose()


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


async def settled(condition: Callable[[], bool]) -> None:
    for _ in range(6000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise TimeoutError


# In this process


async def test_a_query_gets_the_vector_of_its_state() -> None:
    async with query_texts(HashedWords()) as texts:
        vector = await texts.vector(state(7))
        assert texts.dimension == 32
        assert texts.model.startswith("hashed-words 1, compact words-")
        assert texts.space_id == space_of(HashedWords()).space_id
    np.testing.assert_array_equal(vector, space_of(HashedWords()).embed(state(7))[0])
    assert vector.shape == (32,)
    with pytest.raises(ValueError, match="read-only"):
        vector[0] = 1


async def test_a_sentence_asked_again_is_not_encoded_again() -> None:
    encoder = HashedWords()
    async with query_texts(encoder) as texts:
        first = await texts.vector(state(7))
        np.testing.assert_array_equal(await texts.vector(state(7)), first)
        assert (len(encoder.encoded), texts.encoded, texts.local_hits) == (1, 1, 1)


@pytest.mark.parametrize(("size", "encoded"), [(0, 6), (1, 6), (2, 4), (3, 3)])
async def test_what_was_used_longest_ago_is_forgotten_first(size: int, encoded: int) -> None:
    async with query_texts(HashedWords(), size) as texts:
        for row in (0, 100, 0, 200, 0, 100):
            await texts.vector(state(row))
        assert texts.encoded == encoded


async def test_those_who_ask_at_once_wait_for_one_encoding_and_the_loop_stays_free() -> None:
    encoder = HashedWords()
    encoder.gate = threading.Event()
    async with query_texts(encoder) as texts:
        asking = [asyncio.create_task(texts.vector(state(7))) for _ in range(20)]
        other = asyncio.create_task(texts.vector(state(300)))
        for _ in range(5):
            await asyncio.sleep(0.01)  # would never return if encoding held the loop
        encoder.gate.set()
        vectors = await asyncio.gather(*asking)
        await other
        assert len(encoder.encoded) == 2
    assert all(np.array_equal(vector, vectors[0]) for vector in vectors)


async def test_who_gives_up_does_not_take_the_vector_from_the_others() -> None:
    encoder = HashedWords()
    encoder.gate = threading.Event()
    async with query_texts(encoder) as texts:
        first, second = (asyncio.create_task(texts.vector(state(7))) for _ in range(2))
        await asyncio.sleep(0.05)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        encoder.gate.set()
        assert (await second).shape == (32,)
        assert len(encoder.encoded) == 1


async def test_a_vector_nobody_waits_for_any_more_is_kept() -> None:
    encoder = HashedWords()
    encoder.gate = threading.Event()
    async with query_texts(encoder) as texts:
        only = asyncio.create_task(texts.vector(state(7)))
        await asyncio.sleep(0.05)
        only.cancel()
        encoder.gate.set()
        await settled(lambda: texts.encoded == 1)
        await texts.vector(state(7))
        assert texts.local_hits == 1


class Failing(HashedWords):
    fails = True

    def encode(self, sentences: Any, done: Any = lambda _: None) -> Any:
        if self.fails:
            raise EmbeddingError("the model failed")
        return super().encode(sentences, done)


async def test_a_failure_reaches_all_who_wait_and_is_not_kept() -> None:
    encoder = Failing()
    async with query_texts(encoder) as texts:
        asked = [texts.vector(state(7)) for _ in range(3)]
        failures = await asyncio.gather(*asked, return_exceptions=True)
        assert [str(failure) for failure in failures] == ["the model failed"] * 3
        encoder.fails = False
        assert (await texts.vector(state(7))).shape == (32,)


async def test_a_state_that_says_nothing_is_refused() -> None:
    async with query_texts(HashedWords()) as texts:
        with pytest.raises(EmbeddingError, match="no field that a sentence mentions"):
            await texts.vector(SnapshotTable.unknown("BTCUSDT", M5, np.array([0])))


async def test_closing_ends_what_is_still_being_encoded() -> None:
    encoder = HashedWords()
    encoder.gate = threading.Event()
    texts = QueryTexts(space_of(encoder))
    asking = asyncio.create_task(texts.vector(state(7)))
    await asyncio.sleep(0.05)
    await texts.aclose()
    with pytest.raises(asyncio.CancelledError):
        await asking
    encoder.gate.set()


# Shared


class Shelf:
    """Shared vectors in a dict."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}

    async def get(self, key: str) -> bytes | None:
        return self.held.get(key)

    async def put(self, key: str, value: bytes) -> None:
        self.held[key] = value

    async def aclose(self) -> None:
        pass


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"garbage",
        bytes(32 * 4),
        bytes(31 * 4),
        np.full(32, np.nan, "<f4").tobytes(),
        np.ones(32, "<f4").tobytes(),
        np.ones(32, "<f8").tobytes(),
    ],
)
async def test_a_shared_value_that_is_no_unit_vector_is_replaced(value: bytes) -> None:
    shelf, encoder = Shelf(), HashedWords()
    async with query_texts(encoder, shared=shelf) as texts:
        right = await texts.vector(state(7))
        await settled(lambda: len(shelf.held) == 1)
    (key,) = shelf.held
    shelf.held[key] = value
    async with query_texts(encoder, shared=shelf) as texts:
        with structlog.testing.capture_logs() as logs:
            np.testing.assert_array_equal(await texts.vector(state(7)), right)
        await settled(lambda: shelf.held[key] != value)
    assert [log["event"] for log in logs] == ["shared_vector_is_none"]


@pytest.mark.redis
async def test_two_servers_share_vectors_in_redis(redis_url: str) -> None:
    one, other = HashedWords(), HashedWords()
    async with query_texts(one, shared=patient(redis_url)) as texts:
        first = await texts.vector(state(7))
        await settled(lambda: not texts._writing)
    async with query_texts(other, shared=patient(redis_url)) as texts:
        np.testing.assert_array_equal(await texts.vector(state(7)), first)
        assert (other.encoded, texts.shared_hits) == ([], 1)


@pytest.mark.redis
async def test_models_do_not_share_vectors_in_redis(redis_url: str) -> None:
    other = HashedWords(version="2")
    async with query_texts(HashedWords(), shared=patient(redis_url)) as texts:
        await texts.vector(state(7))
        await settled(lambda: not texts._writing)
    async with query_texts(other, shared=patient(redis_url)) as texts:
        await texts.vector(state(7))
        assert len(other.encoded) == 1


@pytest.mark.redis
async def test_what_is_written_names_its_space_and_ends_some_day(redis_url: str) -> None:
    import redis.asyncio

    async with query_texts(HashedWords(), shared=patient(redis_url, ttl_hours=1)) as texts:
        vector = await texts.vector(state(7))
        await settled(lambda: not texts._writing)
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        (key,) = await client.keys("*")
        assert key.decode().startswith(f"llm-trader:text:{texts.space_id}:")
        assert 0 < await client.ttl(key) <= 3600
        np.testing.assert_array_equal(np.frombuffer(await client.get(key), "<f4"), vector)


@pytest.mark.redis
async def test_a_redis_that_dies_and_comes_back_is_noticed_and_never_missed(
    redis: RedisServer,
) -> None:
    clock, encoder = Clock(), HashedWords()
    shared = RedisVectors(
        VectorCacheConfig(redis_url=redis.url, redis_timeout_ms=PATIENT_MS), rest_s=5, clock=clock
    )
    async with query_texts(encoder, size=0, shared=shared) as texts:
        await texts.vector(state(0))
        await settled(lambda: not texts._writing)
        await texts.vector(state(0))
        assert (texts.encoded, texts.shared_hits) == (1, 1)
        redis.stop()
        with structlog.testing.capture_logs() as logs:
            for row in (0, 100, 0):
                assert (await texts.vector(state(row))).shape == (32,)
                clock.now_s += 6
            assert texts.encoded == 4
            redis.start()
            clock.now_s += 6
            await texts.vector(state(0))
            await settled(lambda: not texts._writing)
            await texts.vector(state(0))
        assert texts.shared_hits == 2
    assert [log["event"] for log in logs] == ["redis_unavailable", "redis_available_again"]


# A server that is no Redis

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(answer: Answer) -> AsyncIterator[tuple[str, list[int]]]:
    """Where it listens, and one entry per connection."""
    connections: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(len(connections))
        try:
            await answer(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    try:
        yield f"redis://127.0.0.1:{port}", connections
    finally:
        listening.close()


async def silence(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    while await reader.read(1000):
        pass


async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(1000):
        writer.write(b"$x\r\nHTTP/1.1 400 Bad Request\r\n\r\n" * 5)
        await writer.drain()


async def dripping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1000)
    while True:
        writer.write(b"+")
        await writer.drain()
        await asyncio.sleep(0.02)


async def integers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while asked := await reader.read(1000):
        writer.write(b":7\r\n" * asked.count(b"*"))
        await writer.drain()


@pytest.mark.parametrize("answer", [silence, nonsense, dripping, integers])
async def test_a_server_that_does_not_answer_as_redis_does_holds_nothing(answer: Answer) -> None:
    async with server(answer) as (url, _):
        shared = RedisVectors(cache(url))
        async with query_texts(HashedWords(), shared=shared) as texts, asyncio.timeout(60):
            assert (await texts.vector(state(7))).shape == (32,)


@pytest.mark.parametrize("bug", [AttributeError, ValueError, TypeError, AssertionError, KeyError])
async def test_a_bug_of_our_own_surfaces_and_is_no_cache_miss(
    bug: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = RedisVectors(cache("redis://127.0.0.1:1"))

    def broken(*_: object, **__: object) -> None:
        raise bug("ours")

    monkeypatch.setattr(shared._redis, "client", SimpleNamespace(get=broken, set=broken))
    with pytest.raises(bug, match="ours"):
        await shared.get("a")
    with pytest.raises(bug, match="ours"):
        await shared.put("a", b"b")


async def test_an_argument_that_the_redis_client_refuses_is_a_bug_of_our_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from redis import DataError

    async with server(integers) as (url, _):
        shared = RedisVectors(cache(url, PATIENT_MS))
        monkeypatch.setattr(shared, "_ttl_s", object())
        with pytest.raises(DataError):
            await shared.put("a", b"b")
        await shared.aclose()


async def test_a_bug_while_a_vector_is_written_is_logged_with_its_traceback() -> None:
    class Broken(Shelf):
        async def put(self, key: str, value: bytes) -> None:
            raise AssertionError("ours")

    async with query_texts(HashedWords(), shared=Broken()) as texts:
        with structlog.testing.capture_logs() as logs:
            assert (await texts.vector(state(7))).shape == (32,)
            await settled(lambda: not texts._writing)
    assert [(log["event"], log["log_level"]) for log in logs] == [
        ("shared_vector_not_written", "error")
    ]


async def test_after_a_failure_redis_is_left_alone_for_a_while() -> None:
    clock = Clock()
    async with server(silence) as (url, connections):
        shared = RedisVectors(cache(url), rest_s=5, clock=clock)
        for _ in range(20):
            assert await shared.get("a") is None
            await shared.put("a", b"b")
        assert len(connections) == 1
        clock.now_s += 5
        await shared.get("a")
        assert len(connections) == 2
        await shared.aclose()


async def test_a_redis_that_is_away_is_told_of_once_a_minute() -> None:
    clock = Clock()
    async with server(silence) as (url, _):
        shared = RedisVectors(cache(url, 50), rest_s=0, clock=clock)
        with structlog.testing.capture_logs() as logs:
            for _ in range(4):
                await shared.get("a")
            assert len(logs) == 1
            clock.now_s += 60
            await shared.get("a")
            assert len(logs) == 2
        await shared.aclose()


async def test_a_late_answer_is_not_taken_for_that_to_the_next_question() -> None:
    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while asked := await reader.read(1000):
            if b"first" in asked:
                await asyncio.sleep(0.5)
                writer.write(b"$5\r\nwrong\r\n")
            elif b"second" in asked:
                writer.write(b"$5\r\nright\r\n")
            else:
                writer.write(b"+OK\r\n" * asked.count(b"*"))
            await writer.drain()

    async with server(late) as (url, _):
        shared = RedisVectors(cache(url + "?protocol=2"), rest_s=0)
        assert await shared.get("first") is None
        assert await shared.get("second") in (b"right", None)
        await asyncio.sleep(0.6)
        assert await shared.get("second") == b"right"
        await shared.aclose()


async def test_a_password_is_never_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with structlog.testing.capture_logs() as logs:
        async with server(nonsense) as (url, _):
            secret = url.replace("redis://", "redis://someone:hunter2@")
            for shared in (
                RedisVectors(cache(secret)),
                RedisVectors(cache(url), password="hunter2"),
            ):
                await shared.get("a")
                await shared.aclose()
    assert logs
    assert "hunter2" not in f"{logs}{caplog.text}"


def test_an_address_that_is_none_is_refused_without_showing_it() -> None:
    with pytest.raises(ConfigurationError, match="redis://host:6379/0") as refused:
        RedisVectors(cache("hunter2:secret@nowhere"))
    assert "hunter2" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_without_the_extra_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'llm-trader-rag\[redis\]'"):
        RedisVectors(cache("redis://localhost"))
