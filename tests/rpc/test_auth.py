from __future__ import annotations

import asyncio
import hashlib
import json
from typing import Any

import pytest
import structlog

from llm_trader.errors import ConfigurationError
from llm_trader.rpc.admission import check_binding
from llm_trader.rpc.dispatcher import Method, RequestContext
from llm_trader.rpc.keys import Access, ApiKey, KeyRing, Scope
from llm_trader.rpc.observer import log_request
from tests.rpc.stub import connected, serving

SECRET = "s3cret-of-the-desk"
TOKENS = KeyRing(["another", SECRET])


async def test_without_a_token_calls_are_refused_with_the_remedy() -> None:
    async with serving(keys=TOKENS) as server, connected(server) as line:
        error = (await line.call("subtract", [5, 3]))["error"]
        assert error["code"] == -32010
        assert "rpc.authenticate" in error["message"]
        assert (await line.call("rpc.discover"))["error"]["code"] == -32010


async def test_a_ping_needs_no_token() -> None:
    async with serving(keys=TOKENS) as server, connected(server) as line:
        assert (await line.call("rpc.ping"))["result"] == {"pong": True, "version": "1.2.3"}


async def test_a_valid_token_opens_this_connection_and_no_other() -> None:
    async with serving(keys=TOKENS) as server, connected(server) as line:
        reply = await line.call("rpc.authenticate", {"token": SECRET})
        assert reply["result"]["authenticated"] is True
        assert reply["result"]["scopes"] == ["admin", "ingest", "query", "subscribe"]
        assert (await line.call("subtract", [5, 3]))["result"] == 2
        async with connected(server) as other:
            assert (await other.call("subtract", [5, 3]))["error"]["code"] == -32010


async def test_authentication_and_calls_may_come_in_one_packet() -> None:
    async with serving(keys=TOKENS) as server, connected(server) as line:
        line.send_json(
            {"jsonrpc": "2.0", "method": "rpc.authenticate", "params": [SECRET], "id": 1},
            {"jsonrpc": "2.0", "method": "subtract", "params": [5, 3], "id": 2},
        )
        assert [("result" in await line.receive()) for _ in range(2)] == [True, True]


async def test_a_wrong_token_is_refused_and_appears_nowhere() -> None:
    with structlog.testing.capture_logs() as logs:
        observers = [log_request]
        async with (
            serving(keys=TOKENS, observers=observers) as server,
            connected(server) as line,
        ):
            reply = await line.call("rpc.authenticate", {"token": "guess-word"})
            assert reply["error"]["code"] == -32010
            assert "guess-word" not in str(reply)
            assert (await line.call("subtract", [5, 3]))["error"]["code"] == -32010
    assert any(entry["event"] == "rpc_request" for entry in logs)
    assert "guess-word" not in str(logs)


async def test_where_no_token_is_asked_for_any_is_welcome() -> None:
    async with serving() as server, connected(server) as line:
        assert "result" in await line.call("rpc.authenticate", {"token": "whatever"})


def test_the_check_keeps_no_secret() -> None:
    assert SECRET not in str(vars(TOKENS))


def test_an_empty_token_is_refused_at_the_start() -> None:
    with pytest.raises(ConfigurationError, match="empty token"):
        KeyRing(["good", ""])


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.5", "rag.example.org"])
def test_listening_to_others_without_a_token_is_refused_with_remedies(host: str) -> None:
    with pytest.raises(
        ConfigurationError,
        match=r"--keys-file .* --auth-tokens-env .* --allow-unauthenticated-remote",
    ):
        check_binding(host, False, False)
    check_binding(host, True, False)
    check_binding(host, False, True)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_listening_to_this_machine_only_needs_no_token(host: str) -> None:
    check_binding(host, False, False)


async def test_a_connection_that_sends_no_token_is_closed_early_and_others_stay() -> None:
    limits = {"authentication_timeout_s": 0.2}
    async with (
        serving(keys=TOKENS, **limits) as server,
        connected(server) as known,
        connected(server) as silent,
        connected(server) as pinging,
    ):
        await known.call("rpc.authenticate", {"token": SECRET})
        while await pinging.call("rpc.ping"):  # noqa: ASYNC110  pings do not prolong it
            await asyncio.sleep(0.02)
        assert await silent.receive() is None
        assert (await known.call("subtract", [5, 3]))["result"] == 2


async def test_beyond_the_cap_the_oldest_connection_without_a_token_makes_room() -> None:
    limits = {"max_unauthenticated_connections": 2}
    async with (
        serving(keys=TOKENS, **limits) as server,
        connected(server) as known,
    ):
        await known.call("rpc.authenticate", {"token": SECRET})
        async with connected(server) as first, connected(server) as second:
            await asyncio.sleep(0.02)
            async with connected(server) as third:
                refusal = await first.receive()
                assert refusal["error"]["code"] == -32012
                assert "key" in refusal["error"]["message"]
                assert await first.receive() is None
                for line in (second, third):
                    assert "result" in await line.call("rpc.authenticate", [SECRET])
        assert (await known.call("subtract", [5, 3]))["result"] == 2


async def test_wrong_tokens_close_the_connection_and_leave_one_line_for_the_operator() -> None:
    with structlog.testing.capture_logs() as logs:
        async with serving(keys=TOKENS) as server:
            guesses = []
            for _ in range(10):
                async with connected(server) as line:
                    while reply := await line.call("rpc.authenticate", {"token": "guess-word"}):
                        assert reply["error"]["code"] == -32010
                        guesses.append(reply)
            # Five on each of the first four connections, then one.
            assert len(guesses) == 4 * 5 + 6
            async with connected(server) as line:
                assert "result" in await line.call("rpc.authenticate", {"token": SECRET})
                assert (await line.call("subtract", [5, 3]))["result"] == 2
    failed = [entry for entry in logs if entry["event"] == "rpc_authentication_failed"]
    assert [entry["address"] for entry in failed] == ["127.0.0.1"]
    assert "guess-word" not in str(logs)


async def test_guesses_in_one_batch_are_no_more_than_those_of_a_connection() -> None:
    async with serving(keys=TOKENS) as server, connected(server) as line:
        guess = {"jsonrpc": "2.0", "method": "rpc.authenticate", "id": 1}
        replies = await line.ask([{**guess, "params": [n]} for n in ["x"] * 10 + [SECRET]])
        assert {reply["error"]["code"] for reply in replies} == {-32010}
        assert "too many" in replies[-1]["error"]["message"]
        assert await line.receive() is None


def test_serving_strangers_on_purpose_is_logged_as_a_warning() -> None:
    with structlog.testing.capture_logs() as logs:
        check_binding("0.0.0.0", False, True)
        check_binding("127.0.0.1", False, True)
        check_binding("0.0.0.0", True, True, encrypted=True)
        check_binding("0.0.0.0", True, False)
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [
        ("rpc_open_to_strangers", "warning"),
        ("rpc_not_encrypted", "warning"),
    ]


def ring(*keys: ApiKey, at_ms: int = 0) -> KeyRing:
    made = KeyRing(now_ms=lambda: at_ms)
    made.follow_file(keys)
    return made


def key_of(token: str, *scopes: Scope, name: str = "desk", **times: int) -> ApiKey:
    digest = hashlib.sha256(token.encode()).hexdigest()
    return ApiKey(id=name, name=name, sha256=digest, scopes=scopes, created_at_ms=0, **times)


def tagged(name: str, access: Access) -> Method:
    async def answer(params: None, context: RequestContext) -> str | None:
        return context.principal.name if context.principal else None

    return Method(name, None, answer, "Says who calls.", str | None, access=access)


async def test_a_method_outside_the_scopes_of_a_key_is_refused_with_the_missing_scope() -> None:
    keys = ring(key_of("one", "query"), key_of("two", "admin", "query", name="boss"))
    async with (
        serving(tagged("reload", "admin"), keys=keys) as server,
        connected(server) as line,
    ):
        assert (await line.call("rpc.authenticate", ["one"]))["result"]["key"] == "desk"
        assert (await line.call("subtract", [5, 3]))["result"] == 2
        error = (await line.call("reload"))["error"]
        assert (error["code"], error["data"]) == (-32010, {"missing_scope": "admin"})
        assert "the scope admin, and the key 'desk' has: query" in error["message"]
        assert "result" in await line.call("rpc.discover")  # any key may
        await line.call("rpc.authenticate", ["two"])
        assert (await line.call("reload"))["result"] == "boss"


async def test_a_key_in_meta_counts_for_its_call_alone() -> None:
    keys = ring(key_of("one", "query"))
    async with serving(keys=keys) as server, connected(server) as line:
        sent = {"minuend": 5, "subtrahend": 3, "_meta": {"token": "one"}}
        assert (await line.call("subtract", sent))["result"] == 2
        assert (await line.call("get_data", {"_meta": {"token": "one"}}))["result"] == ["hello", 5]
        assert (await line.call("subtract", [5, 3]))["error"]["code"] == -32010


async def test_meta_is_no_parameter_of_the_method_with_or_without_keys() -> None:
    async with serving() as server, connected(server) as line:
        state = {"price": 1.0, "rsi_7": 50.0}
        params = {"symbol": "X", "timestamp": 1, "current_state": state, "_meta": {"trace": "7"}}
        assert (await line.call("query", params))["result"]["unknown_fields"] == []


@pytest.mark.parametrize("meta", [{"token": ["guess-word"]}, "guess-word", {"token": "guess-word"}])
async def test_a_wrong_or_malformed_key_in_meta_is_refused_without_repeating_it(meta: Any) -> None:
    async with serving(keys=TOKENS) as server, connected(server) as line:
        reply = await line.call("subtract", {"minuend": 5, "subtrahend": 3, "_meta": meta})
        assert reply["error"]["code"] in (-32010, -32602)
        assert "guess-word" not in json.dumps(reply)


async def test_wrong_keys_in_meta_close_the_connection_like_those_of_authenticate() -> None:
    async with serving(keys=TOKENS) as server, connected(server) as line:
        guesses = 0
        while reply := await line.call("get_data", {"_meta": {"token": "guess"}}):
            assert reply["error"]["code"] == -32010
            guesses += 1
        assert guesses == 5


async def test_a_connection_with_keys_in_meta_only_is_not_closed_as_a_stranger() -> None:
    async with (
        serving(keys=TOKENS, authentication_timeout_s=0.2) as server,
        connected(server) as line,
    ):
        for _ in range(6):
            assert "result" in await line.call("get_data", {"_meta": {"token": SECRET}})
            await asyncio.sleep(0.06)


async def test_a_revoked_key_is_refused_at_once_on_an_open_connection() -> None:
    keys = ring(key_of("one", "query"))
    async with serving(keys=keys) as server, connected(server) as line:
        await line.call("rpc.authenticate", ["one"])
        assert "result" in await line.call("get_data")
        keys.follow_file([key_of("one", "query", revoked_at_ms=1)])
        assert (await line.call("get_data"))["error"]["code"] == -32010
        assert (await line.call("rpc.authenticate", ["one"]))["error"]["code"] == -32010


async def test_an_open_connection_has_the_scopes_that_its_key_has_now() -> None:
    keys = ring(key_of("one", "query"))
    async with serving(keys=keys) as server, connected(server) as line:
        await line.call("rpc.authenticate", ["one"])
        keys.follow_file([key_of("one", "subscribe")])
        assert (await line.call("get_data"))["error"]["data"] == {"missing_scope": "query"}


def test_a_key_ends_at_its_time_and_without_a_clock_never_begins() -> None:
    key = key_of("one", "query", expires_at_ms=100)
    before, after = ring(key, at_ms=99), ring(key, at_ms=100)
    principal = before.find("one")
    assert principal is not None
    assert before.current(principal) is not None
    assert after.find("one") is None
    assert after.current(principal) is None
    clockless = KeyRing()
    clockless.follow_file([key])
    assert clockless.find("one") is None


async def test_an_empty_key_file_lets_nobody_in() -> None:
    async with serving(keys=ring()) as server, connected(server) as line:
        assert (await line.call("get_data"))["error"]["code"] == -32010


def test_a_principal_shows_no_digest() -> None:
    principal = TOKENS.find(SECRET)
    assert principal is not None
    assert principal.digest.hex()[:8] not in repr(principal)
    assert str(principal.digest) not in repr(principal)
