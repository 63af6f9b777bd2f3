"""JSON-RPC documents that are almost right: valid ones, mutated as bytes and as JSON."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from typing import Any

from tests.cli.corridor import AT_MS, QUARTER_MS, SYMBOLS

STATE = {
    "price": 50_000.0,
    "rsi_7": 50.0,
    "rsi_14": 50.0,
    "macd": 1.0,
    "ema_20": 50_000.0,
    "ema_20_4h": 50_000.0,
    "ema_50_4h": 50_000.0,
    "funding_rate": 0.0001,
    "open_interest_latest": 1e6,
    "open_interest_avg_24h": 1e6,
}
QUERY = {"symbol": SYMBOLS[0], "timestamp": AT_MS, "current_state": STATE}
# Their members come from all over the code: calls that are cheap, and a few that are not.
CALLS: list[tuple[str, Any]] = [
    ("rpc.ping", {}),
    ("rpc.ping", []),
    ("rpc.authenticate", {"token": "a key"}),
    ("rag.stats", {}),
    ("rag.get_snapshot", {"symbol": SYMBOLS[1], "timestamp": AT_MS - QUARTER_MS}),
    ("rag.query_patterns", {**QUERY, "query_config": {"top_k": 5, "lookback_days": 7}}),
    ("rag.query_patterns", {"symbol": "NOSUCH", "timestamp": AT_MS}),
    ("rag.query_batch", {"queries": [{"symbol": SYMBOLS[0], "timestamp": AT_MS}]}),
    ("rag.unsubscribe", {"subscription": "x"}),
    ("rag.subscribe", {"symbol": SYMBOLS[0]}),
]
# Placed where a value was; as text, because no Python value is written like most of them.
RAW_VALUES = [
    "NaN",
    "Infinity",
    "-Infinity",
    "1e999",
    "-1e999",
    "1e-999",
    "-0",
    "-0.0",
    "01",
    "1.",
    ".5",
    "0x10",
    "1_000",
    "9" * 19,
    "9" * 30,
    "-" + "9" * 30,
    "9" * 5000,
    "0." + "1" * 5000,
    "18446744073709551616",
    "-9223372036854775809",
    "1e308",
    "5e-324",
    "true",
    "null",
    "undefined",
    "",
    "{}",
    "[]",
    "[" * 31 + "]" * 31,
    "[" * 200 + "]" * 200,
    '{"a":' * 40 + "1" + "}" * 40,
    '"\\ud800"',
    '"\\udc00\\ud800"',
    '"\\u0000"',
    '"\\x"',
    '"' + "x" * 3000 + '"',
    '"' + "\\u202e" * 200 + '"',
    '"unended',
    '{"a":1,"a":2}',
    '["a",]',
    "/* comment */ 1",
]
BYTES = [
    *(value.encode() for value in RAW_VALUES if value),
    b"\x00",
    b"\xff\xfe",
    b"\xed\xa0\x80",  # a surrogate in UTF-8
    b"\xef\xbb\xbf",
    b"\xf4\x90\x80\x80",  # beyond the last code point
    b"\r",
    b"\t",
    b"\x1b[2J",
    b'"',
    b"\\",
    b"{",
    b"]",
    b"%s%n",
]
_MOST_BYTES = 200_000
_PLACE = re.compile(r'"@raw(\d+)@"')


def call(rng: random.Random) -> dict[str, Any]:
    method, params = rng.choice(CALLS)
    document = {"jsonrpc": "2.0", "method": method, "id": rng.randrange(1 << 40)}
    return document if params == {} and rng.random() < 0.5 else {**document, "params": params}


def mutated(rng: random.Random) -> bytes:
    """A document on one line, wrong in one to three places; sometimes in none. What is larger than
    the server takes, which ends a connection, is cut off.
    """
    value: Any = call(rng)
    if rng.random() < 0.1:
        value = [value, *(call(rng) for _ in range(rng.randrange(4)))]
    changes = rng.choice((0, 1, 1, 2, 3))
    if rng.random() < 0.6:
        for _ in range(changes):
            value = _changed(rng, value)
        return _written(rng, value)[:_MOST_BYTES]
    data = _written(rng, value)
    for _ in range(changes):
        data = rng.choice(_BYTE_CHANGES)(rng, data)
    return data.replace(b"\n", b" ")[:_MOST_BYTES]


# --- As JSON


def _changed(rng: random.Random, value: Any) -> Any:
    """A copy in which one node is another."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        return _changed_object(rng, dict(value))
    if isinstance(value, list) and value and rng.random() < 0.85:
        items = list(value)
        place = rng.randrange(len(items))
        items[place] = _changed(rng, items[place])
        return items * rng.choice((1, 1, 1, 1, 40)) if len(items) < 5 else items
    return _hostile(rng, value)


def _changed_object(rng: random.Random, fields: dict[str, Any]) -> dict[str, Any]:
    name = rng.choice(list(fields))
    kind = rng.randrange(10)
    if kind == 0:
        del fields[name]
    elif kind == 1:
        fields[_hostile_name(rng, name)] = fields.pop(name)
    elif kind == 2:
        fields[_hostile_name(rng, name)] = fields[name]
    elif kind == 3:
        fields["_meta"] = rng.choice(({}, {"token": "x"}, {"token": 1}, [], "@raw0@", None))
    elif kind == 4:
        fields[rng.choice(("timeout_ms", "query_config", "id", "jsonrpc"))] = _hostile(rng, 1)
    else:
        fields[name] = _changed(rng, fields[name])
    return fields


def _hostile_name(rng: random.Random, name: str) -> str:
    names = (
        "",
        name + "x",
        name.upper(),
        name * 400,
        name + "\ud800",
        "\u202e" + name,
        "__class__",
    )
    return rng.choice(names)


def _hostile(rng: random.Random, value: Any) -> Any:
    if rng.random() < 0.5:
        return f"@raw{rng.randrange(len(RAW_VALUES))}@"
    if isinstance(value, int | float) and rng.random() < 0.5:
        return rng.choice((-value, value * 1e300, value + 0.5, value + 1, 0, 1 << 62, -1, 1e-320))
    return rng.choice(
        (None, True, 0, -1.5, "", "x", "\n\x00\x7f", "é" * 50, [], {}, [[]], {"": {}})
    )


def _written(rng: random.Random, value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=rng.random() < 0.7)
    text = _PLACE.sub(lambda found: RAW_VALUES[int(found[1])], text)
    if rng.random() < 0.05:  # a name that stands twice
        text = text.replace('"method":', '"method": "rpc.ping", "method":', 1)
    return text.encode("utf-8", "surrogatepass")


# --- As bytes


def _flip(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8)) if data else 0):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _insert(rng: random.Random, data: bytes) -> bytes:
    place = rng.randrange(len(data) + 1)
    return data[:place] + rng.choice(BYTES) + data[place:]


def _cut_out(rng: random.Random, data: bytes) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + data[start + rng.randrange(1, 20) :]


def _end_early(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _repeat(rng: random.Random, data: bytes) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + data[start : start + 30] * rng.choice((2, 3, 50)) + data[start:]


def _random(rng: random.Random, data: bytes) -> bytes:
    return rng.randbytes(rng.randrange(1, 60))


_BYTE_CHANGES: list[Callable[[random.Random, bytes], bytes]] = [
    _flip,
    _flip,
    _insert,
    _insert,
    _cut_out,
    _end_early,
    _repeat,
    _random,
]
