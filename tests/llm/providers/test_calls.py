"""Calls through the unmodified SDKs to a stub that speaks the providers' interfaces."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from typing import Any

import httpx2
import pytest

from llm_trader.errors import ConfigurationError
from llm_trader.llm.config import LlmConfig, ProviderName
from llm_trader.llm.model_settings import resolve_model
from llm_trader.llm.providers.connecting import connect_provider
from llm_trader.llm.providers.protocol import Message, TokenUsage
from llm_trader.llm.reply.schema import DECISION_SCHEMA
from tests.llm.providers.connections import (
    DEADLINE_S,
    PROVIDERS,
    SYSTEM,
    TODAY,
    config_of,
    connected,
    request_of,
)
from tests.llm.stub.apis import tokens_of
from tests.llm.stub.replies import StubReply
from tests.llm.stub.server import StubServer

KEYS = ("ANTHROPIC_API_KEY", "OPENAI_API_KEY")

each_provider = pytest.mark.parametrize("provider", PROVIDERS)
streamed_or_not = pytest.mark.parametrize("stream", [True, False])


@each_provider
@streamed_or_not
async def test_a_reply_comes_with_its_tokens_model_and_sdk(
    stub: StubServer, provider: ProviderName, stream: bool, monkeypatch: pytest.MonkeyPatch
):
    said = StubReply('{"action": "LONG", "é": "ü"}', output_tokens=700, reasoning_tokens=650)
    monkeypatch.setattr(stub, "decide", lambda _: said)
    async with connected(stub, provider, stream=stream) as (connection, model):
        reply = await connection.complete(request_of(model), deadline_s=DEADLINE_S)
    assert reply.text == said.text
    assert reply.finish == "complete"
    tokens = tokens_of(SYSTEM + "What now?")
    written = 0 if provider == "openai-compatible" else tokens_of(SYSTEM)
    assert reply.usage == TokenUsage(
        input_tokens=tokens,
        output_tokens=700,
        cache_write_tokens=written,
        reasoning_tokens=650,
    )
    assert reply.model == model.model
    assert reply.response_id
    assert reply.sdk.split()[0] == ("anthropic" if provider == "anthropic" else "openai")
    assert (reply.attempts, reply.unanswered) == (1, 0)
    assert 0 < reply.latency_ms < DEADLINE_S * 1000
    assert stub.requests[0].body.get("stream", False) == stream


@each_provider
async def test_a_structured_reply_satisfies_the_schema(stub: StubServer, provider: ProviderName):
    async with connected(stub, provider) as (connection, model):
        reply = await connection.complete(request_of(model), deadline_s=DEADLINE_S)
    assert stub.requests[0].schema == DECISION_SCHEMA
    assert json.loads(reply.text).keys() == DECISION_SCHEMA["properties"].keys()


@pytest.mark.parametrize("provider", ["anthropic", "openai"])
async def test_a_stable_beginning_is_cached_and_its_tokens_are_counted(
    stub: StubServer, provider: ProviderName
):
    async with connected(stub, provider) as (connection, model):
        usages = [
            (await connection.complete(request_of(model, text), deadline_s=DEADLINE_S)).usage
            for text in ("first", "other")
        ]
    prefix = tokens_of(SYSTEM)
    assert [(usage.cache_write_tokens, usage.cached_input_tokens) for usage in usages if usage] == [
        (prefix, 0),
        (0, prefix),
    ]
    assert all(usage and usage.input_tokens > prefix for usage in usages)


@pytest.mark.parametrize("provider", ["anthropic", "openai"])
async def test_without_prompt_caching_nothing_is_written_to_the_cache(
    stub: StubServer, provider: ProviderName
):
    async with connected(stub, provider, prompt_caching=False) as (connection, model):
        reply = await connection.complete(request_of(model), deadline_s=DEADLINE_S)
    assert reply.usage is not None
    assert (reply.usage.cache_write_tokens, reply.usage.cached_input_tokens) == (0, 0)


@each_provider
@streamed_or_not
@pytest.mark.parametrize("finish", ["truncated", "refused"])
async def test_a_reply_that_was_cut_off_or_refused_says_so(
    stub: StubServer,
    provider: ProviderName,
    stream: bool,
    finish: Any,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(stub, "decide", lambda _: StubReply("I can", finish))
    async with connected(stub, provider, stream=stream) as (connection, model):
        reply = await connection.complete(request_of(model), deadline_s=DEADLINE_S)
    assert reply.finish == finish
    # A refusal in a stream of Responses comes whole at the end, like the rest.
    assert reply.text == "I can"
    assert reply.usage is not None


@each_provider
async def test_a_reply_may_be_empty_after_thinking(
    stub: StubServer, provider: ProviderName, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(stub, "decide", lambda _: StubReply("", "truncated", 64, 64))
    async with connected(stub, provider) as (connection, model):
        reply = await connection.complete(request_of(model), deadline_s=DEADLINE_S)
    assert (reply.text, reply.finish) == ("", "truncated")
    assert reply.usage is not None
    assert reply.usage.reasoning_tokens == 64


async def test_each_provider_is_sent_what_its_models_take(stub: StubServer):
    bodies = {}
    for provider in PROVIDERS:
        async with connected(stub, provider) as (connection, model):
            await connection.complete(request_of(model), deadline_s=DEADLINE_S)
        bodies[provider] = stub.requests[-1].body
    # Thinking models have no temperature; a model of one's own gets the default.
    assert {name: body.get("temperature") for name, body in bodies.items()} == {
        "anthropic": None,
        "openai": None,
        "openai-compatible": 0.1,
    }
    assert bodies["anthropic"]["max_tokens"] == bodies["openai"]["max_output_tokens"] == 16_000
    assert bodies["openai-compatible"]["max_tokens"] == 2_000
    assert bodies["openai"]["store"] is False
    assert bodies["openai"]["service_tier"] == "default"  # of which the prices are


async def test_effort_none_turns_thinking_off_and_brings_the_temperature_back(stub: StubServer):
    for provider in PROVIDERS:
        async with connected(stub, provider, effort="none") as (connection, model):
            await connection.complete(request_of(model), deadline_s=DEADLINE_S)
    claude, gpt, own = (request.body for request in stub.requests)
    assert claude["thinking"] == {"type": "disabled"}
    assert "effort" not in claude["output_config"]
    assert (gpt["reasoning"], gpt["temperature"]) == ({"effort": "none"}, 0.1)
    assert (own["reasoning_effort"], own["temperature"]) == ("none", 0.1)


async def test_an_effort_is_sent_in_each_providers_words(stub: StubServer):
    for provider in PROVIDERS:
        async with connected(stub, provider, effort="low") as (connection, model):
            await connection.complete(request_of(model), deadline_s=DEADLINE_S)
    claude, gpt, own = (request.body for request in stub.requests)
    assert claude["output_config"]["effort"] == "low"
    assert "thinking" not in claude
    assert gpt["reasoning"] == {"effort": "low"}
    assert own["reasoning_effort"] == "low"


@each_provider
async def test_a_conversation_is_sent_as_it_was(stub: StubServer, provider: ProviderName):
    turns = (Message("user", "Decide."), Message("assistant", "Long!"), Message("user", "As JSON."))
    async with connected(stub, provider) as (connection, model):
        await connection.complete(model.request("Be brief.", turns, None), deadline_s=DEADLINE_S)
    request = stub.requests[0]
    assert request.system == "Be brief."
    assert request.messages == [(turn.role, turn.text) for turn in turns]
    assert request.schema is None


async def test_a_compatible_model_is_sent_no_key_unless_one_is_named(stub: StubServer):
    async with connected(stub, "openai-compatible") as (connection, model):
        await connection.complete(request_of(model), deadline_s=DEADLINE_S)
    assert stub.headers[0]["authorization"] == "Bearer none"
    async with connected(stub, "openai-compatible", api_key_env="OPENAI_API_KEY") as (
        connection,
        model,
    ):
        await connection.complete(request_of(model), deadline_s=DEADLINE_S)
    assert stub.headers[1]["authorization"].startswith("Bearer sk-test")


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        ({}, "set the environment variable ANTHROPIC_API_KEY"),
        ({"ANTHROPIC_API_KEY": "  "}, "set the environment variable ANTHROPIC_API_KEY"),
        ({"ANTHROPIC_API_KEY": "sk-…"}, "it is not ASCII"),
    ],
)
def test_a_provider_without_a_usable_key_is_refused_before_any_call(
    environ: dict[str, str], problem: str
):
    config = LlmConfig(provider="anthropic")
    with pytest.raises(ConfigurationError, match=problem):
        connect_provider(config, resolve_model(config, TODAY), environ)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_without_the_extra_it_says_how_to_install_it(
    stub: StubServer, provider: ProviderName, monkeypatch: pytest.MonkeyPatch
):
    sdk = "anthropic" if provider == "anthropic" else "openai"
    monkeypatch.setitem(sys.modules, sdk, None)
    monkeypatch.delitem(sys.modules, f"llm_trader.llm.providers.{sdk}_sdk", raising=False)
    config = config_of(stub, provider)
    with pytest.raises(ConfigurationError, match=r"pip install 'llm-trader-rag\[llm\]'"):
        connect_provider(config, resolve_model(config, TODAY), dict.fromkeys(KEYS, "k"))


def test_no_sdk_is_imported_before_a_provider_is_connected():
    code = "import sys, llm_trader.settings.tree, llm_trader.llm.cost\n"
    code += "import llm_trader.llm.providers.connecting\n"
    code += "heavy = {'anthropic', 'openai', 'httpx2', 'genai_prices', 'aiolimiter'}\n"
    code += "print(sorted(heavy & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


async def test_more_requests_than_the_rate_allows_wait_for_their_turn(stub: StubServer):
    async with connected(stub, "openai", requests_per_minute=600) as (connection, model):
        loop = asyncio.get_running_loop()
        calls = [connection.complete(request_of(model), deadline_s=DEADLINE_S) for _ in range(3)]
        # The limiter is full of a minute's turns, of which ten come free each second.
        limiter = connection.connection._limiter  # type: ignore[attr-defined]
        await limiter.acquire(600)
        start_s = loop.time()
        replies = await asyncio.gather(*calls)
    assert loop.time() - start_s >= 0.25
    # The wait is before the call: neither its deadline nor its latency includes it.
    assert all(reply.latency_ms < 5_000 for reply in replies)


def test_no_test_can_leave_this_machine():
    with socket.socket() as connection, pytest.raises(PermissionError, match="a test tried"):
        connection.connect(("192.0.2.1", 443))


async def test_no_sdk_can_leave_this_machine():
    async with httpx2.AsyncClient() as client:
        with pytest.raises(httpx2.ConnectError):
            await client.get("http://192.0.2.1/v1/messages")
