"""Calls and replies as bytes, without sockets."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.rpc.conversation import Codec, Conversation, HttpPosts, Lines, Reply


def line(reply: dict[str, object]) -> bytes:
    return json.dumps({"jsonrpc": "2.0", **reply}).encode() + b"\n"


def posted(reply: dict[str, object]) -> bytes:
    body = line(reply)
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


def chunked(reply: dict[str, object]) -> bytes:
    body = line(reply)
    parts = body[:9], body[9:]
    sent = b"".join(b"%x;x=1\r\n%b\r\n" % (len(part), part) for part in parts)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + sent + b"0\r\n\r\n"


def http() -> Codec:
    return HttpPosts("host:1", "/rpc")


@pytest.mark.parametrize(("codec", "wrap"), [(Lines, line), (http, posted), (http, chunked)])
@given(cuts=st.lists(st.integers(0, 400), max_size=8), count=st.integers(1, 4))
def test_replies_do_not_depend_on_how_their_bytes_were_cut(
    codec: Callable[[], Codec],
    wrap: Callable[[dict[str, object]], bytes],
    cuts: list[int],
    count: int,
) -> None:
    conversation = Conversation(codec())
    ids = [conversation.ask("method", None)[0] for _ in range(count)]
    stream = b"".join(wrap({"result": [n], "id": n}) for n in ids)
    places = [0, *sorted(cut % len(stream) for cut in cuts), len(stream)]
    heard = []
    for start, end in itertools.pairwise(places):
        heard += conversation.hear(stream[start:end])
    assert [(n, bytes(reply.result)) for n, reply in heard] == [(n, b"[%d]" % n) for n in ids]
    assert conversation.waiting == 0


def test_over_lines_replies_come_in_any_order_and_late_ones_are_passed_over() -> None:
    conversation = Conversation(Lines())
    first, second, third = (conversation.ask("method", {})[0] for _ in range(3))
    conversation.forget(second)
    replies = [line({"result": n, "id": n}) for n in (third, second, first, 99)]
    assert [n for n, _ in conversation.hear(b"".join(replies))] == [third, first]


def test_an_error_without_an_id_refuses_a_connection_of_lines() -> None:
    conversation = Conversation(Lines())
    conversation.ask("method", {})
    assert conversation.hear(line({"error": {"code": -32012, "message": "full"}, "id": None})) == []
    assert conversation.refusal is not None
    assert conversation.refusal.rpc_code == -32012


def test_over_http_an_error_without_an_id_is_of_the_oldest_call() -> None:
    conversation = Conversation(http())
    first, second = (conversation.ask("method", {})[0] for _ in range(2))
    refused = posted({"error": {"code": -32010, "message": "who?"}, "id": None})
    limited = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 2\r\nContent-Length: 4\r\n\r\nslow"
    heard: dict[int, Reply] = dict(conversation.hear(refused + limited))
    assert heard[first].error.code == -32010
    assert heard[second].error.code == -32011
    assert heard[second].error.data == {"retry_after_ms": 2000}


@pytest.mark.parametrize("data", [b"220 mail ready\r\n\r\n", b"x" * 70_000])
def test_what_is_not_http_is_refused(data: bytes) -> None:
    conversation = Conversation(http())
    conversation.ask("method", {})
    with pytest.raises(ValueError, match="no HTTP server"):
        conversation.hear(data)
