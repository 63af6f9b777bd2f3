"""Calls between a parent and a worker."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from llm_trader.app.workers.channel import Channel, ChannelClosedError, Handler
from llm_trader.errors import ConfigurationError


@asynccontextmanager
async def pair(
    left: Mapping[str, Handler], right: Mapping[str, Handler]
) -> AsyncIterator[tuple[Channel, Channel]]:
    ours, theirs = socket.socketpair()
    async with Channel(ours, left) as parent, Channel(theirs, right) as worker:
        yield parent, worker


async def doubled(body: Any) -> Any:
    return body * 2


async def test_both_sides_call_each_other_also_from_inside_a_call() -> None:
    sides: dict[str, Channel] = {}

    async def ask_back(body: Any) -> Any:
        return await sides["worker"].call("doubled", body)

    async with pair({"doubled": doubled}, {"ask_back": ask_back}) as (parent, worker):
        sides["worker"] = worker
        answers = await asyncio.gather(*(parent.call("ask_back", n) for n in range(20)))
    assert answers == [2 * n for n in range(20)]


async def test_what_is_sent_may_be_large_and_may_name_paths() -> None:
    async with pair({}, {"doubled": doubled}) as (parent, _):
        assert await parent.call("doubled", "x" * 3_000_000) == "x" * 6_000_000
        assert await parent.call("doubled", [Path("/a/b")]) == ["/a/b", "/a/b"]


async def test_a_call_that_fails_says_why_with_all_problems() -> None:
    async def refuse(body: Any) -> None:
        raise ConfigurationError("two mistakes", problems=["one", "other"])

    async with pair({}, {"refuse": refuse}) as (parent, _):
        with pytest.raises(ConfigurationError, match="two mistakes") as raised:
            await parent.call("refuse")
    assert raised.value.details["problems"] == ["one", "other"]


async def test_a_call_with_a_bug_fails_at_once_instead_of_never() -> None:
    async def broken(body: Any) -> None:
        raise ZeroDivisionError

    async with pair({}, {"broken": broken}) as (parent, _):
        with pytest.raises(ConfigurationError, match="ZeroDivisionError"):
            await parent.call("broken")


async def test_calls_end_when_the_other_side_has_ended() -> None:
    async def never(body: Any) -> None:
        await asyncio.sleep(60)

    async with pair({}, {"never": never}) as (parent, worker):
        waiting = asyncio.create_task(parent.call("never", patience_s=60))
        await asyncio.sleep(0.01)
        await worker.__aexit__()
        with pytest.raises(ChannelClosedError):
            await asyncio.wait_for(waiting, 5)
        assert parent.closed.is_set()
        with pytest.raises(ChannelClosedError):
            await parent.call("never")


async def test_a_call_has_a_bound() -> None:
    async def never(body: Any) -> None:
        await asyncio.sleep(60)

    async with pair({}, {"never": never}) as (parent, _):
        with pytest.raises(TimeoutError):
            await parent.call("never", patience_s=0.02)
