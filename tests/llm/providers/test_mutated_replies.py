"""A reply with anything in any place is a reply or a failure, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.llm.config import ProviderName
from llm_trader.llm.providers.protocol import LlmReply, LlmRequest, Provider, ProviderError
from tests.llm.providers.connections import PROVIDERS, connected, request_of
from tests.llm.stub.faults import Body
from tests.llm.stub.server import StubServer

anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=5),
    st.just([]),
    st.just({}),
    st.just([None]),
)


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each part of some JSON, but not to all of it."""
    if isinstance(value, dict | list):
        for key, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield (*above, key)
            yield from places(one, (*above, key))


def replaced(value: Any, place: tuple[Any, ...], other: Any) -> Any:
    """A copy with something else in a place, or without it."""
    if not place:
        return other
    copy = value.copy()
    key, *rest = place
    if not rest and other is ...:
        del copy[key]
    else:
        copy[key] = replaced(copy[key], tuple(rest), other)
    return copy


def right_events(stub: StubServer, stream: bool) -> list[Any]:
    """What the stub sent: the JSON of a reply, or of the events of a stream."""
    text = b"".join(stub.sent[-1]).decode()
    lines = [line.partition("data: ")[2] for line in text.split("\n")] if stream else [text]
    return [json.loads(line) for line in lines if line.startswith("{")]


def as_body(events: list[Any], stream: bool) -> bytes:
    if not stream:
        return json.dumps(events[0] if events else None).encode()
    names = [one.get("type") if isinstance(one, dict) else None for one in events]
    rows = [
        f"event: {name}\ndata: {json.dumps(one)}\n\n"
        for name, one in zip(names, events, strict=True)
    ]
    return "".join(rows).encode()


async def ask(connection: Provider, request: LlmRequest) -> None:
    """Raises if the call ends in any way that it should not."""
    with contextlib.suppress(ProviderError):
        reply = await connection.complete(request, deadline_s=10)
        # The types of all fields are those that a record can be read back with.
        assert msgspec.convert(msgspec.to_builtins(reply), LlmReply) == reply


@pytest.mark.parametrize(
    ("stream", "provider"),
    [
        pytest.param(stream, provider, marks=() if number % 2 == stream else pytest.mark.soak)
        for number, provider in enumerate(PROVIDERS)
        for stream in (True, False)
    ],
)
def test_anything_in_any_place_is_a_reply_or_a_failure(
    stub: StubServer, provider: ProviderName, stream: bool
):
    with asyncio.Runner() as runner, contextlib.ExitStack() as stack:
        opened = connected(stub, provider, stream=stream)
        connection, model = runner.run(opened.__aenter__())
        stack.callback(lambda: runner.run(opened.__aexit__(None, None, None)))
        request = request_of(model)
        runner.run(ask(connection, request))
        events = right_events(stub, stream)

        @given(st.sampled_from([*places(events)]), anything | st.just(...))
        def check(place: tuple[Any, ...], other: Any) -> None:
            stub.script(Body(as_body(replaced(events, place, other), stream)))
            runner.run(ask(connection, request))

        check()
