"""The JSON-RPC 2.0 specification's own examples, and its rules, over a real socket."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.rpc.admission import Admission, KeyRing
from llm_trader.rpc.config import RpcConfig
from llm_trader.rpc.dispatcher import Dispatcher, RequestContext
from tests.rpc.stub import Line, stub_methods

PING = b'{"jsonrpc":"2.0","method":"rpc.ping","id":"fence"}\n'

SPECIFICATION_EXAMPLES: list[tuple[str, str, Any]] = [
    (
        "positional parameters",
        '{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}',
        {"result": 19, "id": 1},
    ),
    (
        "positional parameters, the other way round",
        '{"jsonrpc": "2.0", "method": "subtract", "params": [23, 42], "id": 2}',
        {"result": -19, "id": 2},
    ),
    (
        "named parameters",
        '{"jsonrpc": "2.0", "method": "subtract", '
        '"params": {"subtrahend": 23, "minuend": 42}, "id": 3}',
        {"result": 19, "id": 3},
    ),
    (
        "named parameters in another order",
        '{"jsonrpc": "2.0", "method": "subtract", '
        '"params": {"minuend": 42, "subtrahend": 23}, "id": 4}',
        {"result": 19, "id": 4},
    ),
    (
        "a notification",
        '{"jsonrpc": "2.0", "method": "update", "params": [1,2,3,4,5]}',
        None,
    ),
    ("a notification of an unknown method", '{"jsonrpc": "2.0", "method": "foobar"}', None),
    (
        "an unknown method",
        '{"jsonrpc": "2.0", "method": "foobar", "id": "1"}',
        {"error": -32601, "id": "1"},
    ),
    (
        "invalid JSON",
        '{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]',
        {"error": -32700, "id": None},
    ),
    (
        "an invalid request object",
        '{"jsonrpc": "2.0", "method": 1, "params": "bar"}',
        {"error": -32600, "id": None},
    ),
    (
        "a batch of invalid JSON",
        '[{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},'
        '{"jsonrpc": "2.0", "method"]',
        {"error": -32700, "id": None},
    ),
    ("an empty batch", "[]", {"error": -32600, "id": None}),
    ("an invalid batch of one", "[1]", [{"error": -32600, "id": None}]),
    ("an invalid batch of three", "[1,2,3]", [{"error": -32600, "id": None}] * 3),
    (
        "a mixed batch",
        """[
        {"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},
        {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]},
        {"jsonrpc": "2.0", "method": "subtract", "params": [42,23], "id": "2"},
        {"foo": "boo"},
        {"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},
        {"jsonrpc": "2.0", "method": "get_data", "id": "9"}
        ]""",
        [
            {"result": 7, "id": "1"},
            {"result": 19, "id": "2"},
            {"error": -32600, "id": None},
            {"error": -32601, "id": "5"},
            {"result": ["hello", 5], "id": "9"},
        ],
    ),
    (
        "a batch of notifications",
        '[{"jsonrpc": "2.0", "method": "notify_sum", "params": [1,2,4]},'
        '{"jsonrpc": "2.0", "method": "notify_hello", "params": [7]}]',
        None,
    ),
]

RULES: list[tuple[str, str, Any]] = [
    (
        "a null id is a request",
        '{"jsonrpc":"2.0","method":"subtract","params":[3,1],"id":null}',
        {"result": 2, "id": None},
    ),
    (
        "another protocol version is refused",
        '{"jsonrpc":"1.0","method":"subtract","params":[3,1],"id":7}',
        {"error": -32600, "id": 7},
    ),
    (
        "a missing protocol version is refused",
        '{"method":"subtract","params":[3,1],"id":7}',
        {"error": -32600, "id": 7},
    ),
    (
        "a missing method is refused",
        '{"jsonrpc":"2.0","params":[3,1],"id":"m"}',
        {"error": -32600, "id": "m"},
    ),
    (
        "an id of another type is refused",
        '{"jsonrpc":"2.0","method":"subtract","params":[3,1],"id":{"a":1}}',
        {"error": -32600, "id": None},
    ),
    (
        "a boolean id is refused",
        '{"jsonrpc":"2.0","method":"subtract","params":[3,1],"id":true}',
        {"error": -32600, "id": None},
    ),
    (
        "scalar params are refused",
        '{"jsonrpc":"2.0","method":"subtract","params":"bar","id":1}',
        {"error": -32600, "id": 1},
    ),
    (
        "missing required params are invalid params",
        '{"jsonrpc":"2.0","method":"subtract","id":1}',
        {"error": -32602, "id": 1},
    ),
    (
        "too many positional params are invalid params",
        '{"jsonrpc":"2.0","method":"subtract","params":[1,2,3],"id":1}',
        {"error": -32602, "id": 1},
    ),
    (
        "positional params for a method without any are invalid params",
        '{"jsonrpc":"2.0","method":"get_data","params":[1],"id":1}',
        {"error": -32602, "id": 1},
    ),
    (
        "empty params suit a method without any",
        '{"jsonrpc":"2.0","method":"get_data","params":{},"id":1}',
        {"result": ["hello", 5], "id": 1},
    ),
    (
        "a notification with invalid params gets no reply",
        '{"jsonrpc":"2.0","method":"subtract","params":{"minuend":"x"}}',
        None,
    ),
    ("a scalar document is refused", "17", {"error": -32600, "id": None}),
    ("a document nested past reason is invalid", "[" * 9999 + "]" * 9999, {"error": -32600}),
    (
        "a batch past the limit is refused as one",
        json.dumps([{"jsonrpc": "2.0", "method": "get_data", "id": 1}] * 101),
        {"error": -32600, "id": None},
    ),
]


def essence(reply: Any) -> Any:
    """The reply with its error reduced to the code, after checking its shape."""
    if reply is None:
        return None
    if isinstance(reply, list):
        return [essence(member) for member in reply]
    assert reply["jsonrpc"] == "2.0"
    assert ("result" in reply) != ("error" in reply)
    if "error" not in reply:
        return {"result": reply["result"], "id": reply["id"]}
    assert isinstance(reply["error"]["message"], str)
    return {"error": reply["error"]["code"], "id": reply["id"]}


async def answer(line: Line, document: str) -> Any:
    """The reply to `document`, or None; checks that the connection stays usable after it."""
    line.send(document.encode() + b"\n" + PING)
    line.writer.write_eof()
    replies = [json.loads(sent) async for sent in line.reader]
    fences = [r for r in replies if isinstance(r, dict) and r["id"] == "fence"]
    assert len(fences) == 1
    replies.remove(fences[0])
    assert len(replies) <= 1
    return replies[0] if replies else None


@pytest.mark.parametrize(
    ("document", "expected"),
    [pytest.param(sent, reply, id=name) for name, sent, reply in SPECIFICATION_EXAMPLES + RULES],
)
async def test_the_reply_is_what_the_specification_says(
    line: Line, document: str, expected: Any
) -> None:
    reply = essence(await answer(line, document))
    if isinstance(expected, dict) and "id" not in expected:
        expected = {**expected, "id": None}
    assert reply == expected


@pytest.mark.parametrize(
    "sent", ["1", "-7", "1.0", "1.50", "1e3", '"a"', '"\\u00e9\\n"', '""', "null", "9" * 30]
)
async def test_an_id_comes_back_as_it_was_written(line: Line, sent: str) -> None:
    document = f'{{"jsonrpc":"2.0","method":"subtract","params":[3,1],"id":{sent}}}\n'
    line.send(document.encode())
    assert (await line.reader.readline()).endswith(f'"id":{sent}}}\n'.encode())


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ("{invalid json}", "Parse error"),
        ("1", "Invalid Request"),
        ('{"jsonrpc":"2.0","method":"nope","id":1}', "Method not found"),
        ('{"jsonrpc":"2.0","method":"subtract","id":1}', "Invalid params"),
    ],
)
async def test_messages_open_with_the_standard_texts(line: Line, document: str, text: str) -> None:
    line.send(document.encode() + b"\n")
    assert (await line.receive())["error"]["message"].startswith(text)


async def test_the_members_of_a_batch_run_side_by_side(line: Line) -> None:
    batch = [{"jsonrpc": "2.0", "method": "sleep", "params": [0.2], "id": n} for n in range(50)]
    replies = await line.ask(batch)  # one after the other they would take 10 s, past the timeout
    assert [reply["id"] for reply in replies] == list(range(50))


async def test_an_unknown_method_gets_a_suggestion(line: Line) -> None:
    reply = await line.call("substract", [1, 2])
    assert reply["error"]["code"] == -32601
    assert "subtract" in reply["error"]["data"]["suggestion"]


SCALAR = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
ANYTHING = st.recursive(
    SCALAR,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
NEARLY_REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.just("2.0") | SCALAR,
        "method": st.sampled_from(["subtract", "query", "get_data", "nope"]) | SCALAR,
        "params": ANYTHING,
        "id": ANYTHING,
    },
)


@given(
    st.binary(max_size=40)
    | (NEARLY_REQUESTS | st.lists(NEARLY_REQUESTS | ANYTHING, max_size=3)).map(
        lambda document: json.dumps(document).encode()
    )
)
def test_any_bytes_get_a_proper_reply_or_none_and_never_an_exception(document: bytes) -> None:
    gate = Admission(RpcConfig(), KeyRing())
    reply = asyncio.run(Dispatcher(stub_methods()).handle(document, RequestContext(), gate))
    essence(reply and json.loads(reply))
    assert b"-32603" not in (reply or b"")
