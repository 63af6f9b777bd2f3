"""Documents made to break or burden the server: refused or answered, and quickly."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rpc.http.raw import post
from tests.serving.graphql.clients import asking_stubs, everything

# The dearest of these takes 60 ms, a thousandth of what it takes without the limits.
_MOST_CPU_S = 0.5

_FUNDING = 'get_funding(symbol:"BTCUSDT",start:1735689600000,end:1735689700000)'


def _chain(count: int, body: str) -> str:
    """Fragments each of which uses the next one."""
    return (
        " ".join(
            f"fragment F{i} on Query{{{body.format(next=f'...F{i + 1}', i=i)}}}"
            for i in range(count)
        )
        + f" fragment F{count} on Query{{__typename}}"
    )


_HOSTILE = {
    "one field again and again": "{stats{" + "version " * 900 + "}}",
    "one object again and again": "{" + "stats{version} " * 240 + "}",
    "unknown fields": "{" + " ".join(f"query_pattern_{i}" for i in range(900)) + "}",
    "unknown arguments": "{stats(" + ",".join(f"s{i}:1" for i in range(240)) + "){version}}",
    "aliases": "{" + " ".join(f"a{i}:stats{{version}}" for i in range(160)) + "}",
    "fragments that double": "{...F0} " + _chain(60, "{next} ...{{{next}}} a{i}:__typename"),
    "fragments in a cycle": "{...A} fragment A on Query{...B} fragment B on Query{...A}",
    "operations that share fragments": " ".join(f"query A{i}{{...F0}}" for i in range(70))
    + _chain(70, "{next}"),
    "nested fields": "{" + "stats{" * 480 + "version" + "}" * 481,
    "nested fragments": "{" + "...{" * 300 + "__typename" + "}" * 301,
    "nested lists": "{stats(x:" + "[" * 480 + "]" * 480 + "){version}}",
    "nested objects": "{stats(x:" + "{a:" * 240 + "1" + "}" * 240 + "){version}}",
    "a long name": "{" + "a" * 16_000 + "}",
    "a long string": '{get_snapshot(symbol:"' + "A" * 16_000 + '",timestamp:5){feature_version}}',
    "a block of lines": '{get_snapshot(symbol:"""' + "\n" * 16_000 + '""",timestamp:5){a}}',
    "a long number": '{get_snapshot(symbol:"A",timestamp:' + "9" * 15_000 + "){feature_version}}",
    "comments": "#\n" * 8_000 + "{__typename}",
    "commas": "," * 16_000 + "{__typename}",
    "directives": "{stats{version " + "@include(if:true)" * 120 + "}}",
    "variables": "query(" + " ".join(f"$v{i}:Long" for i in range(240)) + "){__typename}",
    "introspection in introspection": "{__schema{types{fields{type{fields{type{fields{type"
    "{fields{name}}}}}}}}}}",
    "introspection by aliases": "{"
    + " ".join(f"a{i}:__schema{{types{{fields{{args{{name}}}}}}}}" for i in range(29))
    + "}",
    "whole introspection by aliases": "{"
    + " ".join(f"a{i}:__schema{{types{{...F}}}}" for i in range(29))
    + "}fragment F on __Type{name description fields{name description args{name description "
    "defaultValue type{kind name ofType{kind name}}} type{kind name ofType{kind name ofType{name "
    "kind}}} isDeprecated deprecationReason} inputFields{name description type{kind name}}}",
    "definitions": "type A{a:Int} extend type Query{a:Int} {__typename}",
    "a subscription": "subscription{stats{version}}",
    "deferred parts": "{...@defer{stats{version}}} ",
    "nothing": "",
    "a zero": "\x00",
}


@pytest.mark.parametrize("document", _HOSTILE.values(), ids=_HOSTILE)
async def test_a_hostile_document_is_refused_or_answered_quickly(document: str) -> None:
    async with asking_stubs() as client:
        await client.data("{__typename}")
        before_s = time.process_time()
        reply = await client.reply(document)
        assert time.process_time() - before_s < _MOST_CPU_S
        assert reply.status in (200, 400)
        assert ("errors" in reply.json) or ("data" in reply.json)
        assert await client.data("{__typename}") == {"__typename": "Query"}


@pytest.mark.parametrize(
    "variables",
    [
        {"c": {"horizons": ["1h"] * 7_000}},
        {"c": {"horizons": [1] * 30_000}},
        {"c": {f"top_{i}": 1 for i in range(3_000)}},
        {"c": json.loads('{"horizons":' + "[" * 500 + "]" * 500 + "}")},
        {"c": {"vector": "x" * 60_000}},
        {"c": [[]]},
        {"c": {"top_k": 10**300, "min_gap_hours": -(10**308)}},
        {"s": {"price": "1", "mid_prices": [1] * 20_000}},
    ],
)
async def test_hostile_variables_are_refused_quickly(variables: dict[str, Any]) -> None:
    document = (
        "query($c:QueryConfigInput,$s:CurrentStateInput){query_patterns("
        'symbol:"BTCUSDT",timestamp:1735689600000,query_config:$c,current_state:$s){matches{id}}}'
    )
    async with asking_stubs() as client:
        await client.data("{__typename}")
        before_s = time.process_time()
        error = await client.error(document, variables)
        assert time.process_time() - before_s < _MOST_CPU_S
    assert error["extensions"]["code"] in (-32600, -32602, -32700)


_TOKENS = st.sampled_from(
    [
        *("{", "}", "{", "}", "(", ")", "[", "]", ":", "!", "=", "...", "on", "@", "$", "#", ","),
        *("query", "mutation", "fragment", "A", "stats", "version", "__typename", "__schema"),
        *("types", "name", "@skip(if:true)", "@include(if:$v)", "($v:Boolean!)", "...A", "a:"),
        *("on Query", "fragment A on Query{stats{version}}", "...on StatsResult{ready}", "null"),
        *('"', '"""', '"x"', "1", "-1.5e3", "99999999999999999999", "true", "é", "\ud7ff", "\n"),
        _FUNDING + "{time}",
        "stats{version}",
        "{" + "stats" + everything("stats") + "}",
    ]
)
_SOUP = st.lists(_TOKENS, max_size=30).map(" ".join)


@st.composite
def _damaged(draw: st.DrawFn) -> str:
    """A valid document of which something was removed, doubled or replaced."""
    whole = (
        f"query Q($v:Boolean!){{stats@skip(if:$v){everything('stats')} {_FUNDING}{{time}} ...A}}"
    )
    whole += " fragment A on Query{b:stats{version index{symbols{points}}}}"
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(whole)))
        end = min(len(whole), start + draw(st.integers(0, 12)))
        put = draw(st.sampled_from(["", whole[start:end] * 2, "{", "}", "!", '"', "...A", "$v"]))
        whole = whole[:start] + put + whole[end:]
    return whole


_VARIABLES = st.none() | st.dictionaries(
    st.sampled_from(["v", "w", ""]),
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=3),
    max_size=2,
)


@given(st.lists(st.tuples(_SOUP | _damaged() | st.text(max_size=20), _VARIABLES), min_size=5))
@settings(max_examples=settings.default.max_examples // 4)
def test_no_document_is_an_internal_error(requests: list[tuple[str, Any]]) -> None:
    async def ask() -> None:
        async with asking_stubs() as client:
            for document, variables in requests:
                try:
                    body = json.dumps({"query": document, "variables": variables}).encode()
                except UnicodeEncodeError:
                    continue
                reply = await client.connection.ask(post(body, path="/graphql"))
                assert reply.status in (200, 400), (document, reply.body)
                codes = [e["extensions"]["code"] for e in reply.json.get("errors", [])]
                assert set(codes) <= {-32700, -32600, -32602}, (document, reply.body)
                assert ("data" in reply.json) or codes

    asyncio.run(ask())


@given(st.lists(st.binary(max_size=60) | st.text(max_size=30).map(str.encode), min_size=3))
@settings(max_examples=settings.default.max_examples // 4)
def test_no_body_is_an_internal_error(bodies: list[bytes]) -> None:
    async def ask() -> None:
        async with asking_stubs() as client:
            for body in bodies:
                for sent in (body, b'{"query":' + body + b"}", b'{"query":"{' + body + b'}"}'):
                    reply = await client.connection.ask(post(sent, path="/graphql"))
                    assert reply.status == 400 or "data" in reply.json
            assert await client.data("{__typename}") == {"__typename": "Query"}

    asyncio.run(ask())
