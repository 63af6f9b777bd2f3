from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from llm_trader.errors import ConfigurationError
from llm_trader.llm.config import LlmConfig, ProviderName
from llm_trader.llm.model_settings import resolve_model
from llm_trader.llm.reply.schema import DECISION_SCHEMA
from tests.llm.providers.connections import TODAY

LOCAL = {"base_url": "http://127.0.0.1:11434/v1", "model": "llama"}


def problem_of(provider: ProviderName, today: date = TODAY, **settings: Any) -> str:
    with pytest.raises(ConfigurationError) as raised:
        resolve_model(LlmConfig(provider=provider, **settings), today)
    return raised.value.message


def test_a_thinking_model_gets_more_tokens_and_time_than_one_that_does_not():
    thinking = resolve_model(LlmConfig(provider="anthropic"), TODAY)
    plain = resolve_model(LlmConfig(provider="openai", model="gpt-4.1-mini"), TODAY)
    local = resolve_model(LlmConfig(provider="openai-compatible", **LOCAL), TODAY)
    assert (thinking.max_output_tokens, thinking.timeout_s, thinking.deadline_s) == (
        16_000,
        120,
        360,
    )
    assert (plain.max_output_tokens, plain.timeout_s, plain.deadline_s) == (2_000, 30, 90)
    assert (local.max_output_tokens, local.timeout_s) == (2_000, 30)


@pytest.mark.parametrize(
    ("model", "effort", "temperature"),
    [
        ("gpt-4.1-mini", None, 0.1),
        ("gpt-6-luna", None, None),
        ("gpt-6-luna", "none", 0.1),
        ("gpt-6-luna", "low", None),
        ("gpt-99", None, None),
    ],
)
def test_the_temperature_is_a_tenth_where_the_model_has_one(
    model: str, effort: Any, temperature: float | None
):
    config = LlmConfig(provider="openai", model=model, effort=effort)
    assert resolve_model(config, TODAY).temperature == temperature


def test_what_is_set_goes_before_any_default():
    config = LlmConfig(
        provider="openai",
        model="gpt-4.1",
        temperature=0.7,
        max_output_tokens=300,
        timeout_s=5,
        deadline_s=6,
    )
    model = resolve_model(config, TODAY)
    assert (model.temperature, model.max_output_tokens) == (0.7, 300)
    assert (model.timeout_s, model.deadline_s) == (5, 6)


@pytest.mark.parametrize(
    ("provider", "settings", "problem"),
    [
        ("anthropic", {"temperature": 0.1}, "claude-haiku-5-5 has no temperature"),
        ("openai", {"temperature": 0.1}, "takes a temperature only if llm.effort is none"),
        ("openai", {"model": "gpt-6.1-sol", "effort": "none"}, "it takes low, medium, high"),
        ("openai", {"model": "gpt-4.1", "effort": "low"}, "it has no such parameter"),
        ("anthropic", {"model": "claude-haiku-4-5", "effort": "low"}, "it has no such parameter"),
        ("anthropic", {"model": "claude-opus-5-5", "effort": "none"}, "does not take 'none'"),
        ("openai", {"model": "gpt-4o", "max_output_tokens": 20_000}, "writes 16384 at most"),
        ("openai-compatible", {"model": "llama"}, "llm.base_url: openai-compatible needs it"),
        ("openai-compatible", {}, "needs llm.model"),
        ("openai", {"base_url": "ftp://there"}, "no http or https address"),
        ("openai", {"base_url": "http://proxy.lan/v1"}, "would send the key unencrypted"),
        ("openai", {"timeout_s": 9, "deadline_s": 8}, "shorter than llm.timeout_s"),
    ],
)
def test_a_setting_that_the_model_does_not_know_is_refused(
    provider: ProviderName, settings: dict[str, Any], problem: str
):
    assert problem in problem_of(provider, **settings)


def test_all_mistakes_are_said_at_once():
    message = problem_of("anthropic", temperature=0.1, effort="minimal", base_url="nowhere")
    assert [line.split(":")[0] for line in message.splitlines()] == [
        "llm.temperature",
        "llm.effort",
        "llm.base_url",
    ]


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("anthropic", "claude-3-5-sonnet-20241022"),
        ("anthropic", "claude-opus-4-20250514"),
        ("openai", "gpt-4-turbo"),
        ("openai", "gpt-4-0613"),
        ("openai", "gpt-4-turbo-2024-04-09"),
    ],
)
def test_a_retired_model_is_refused_with_the_day_and_another_one(
    provider: ProviderName, model: str
):
    message = problem_of(provider, model=model)
    assert f"retired {model} on 202" in message
    assert "choose another, such as" in message


def test_a_model_is_accepted_until_the_day_it_retires():
    config = LlmConfig(provider="openai", model="gpt-4.1-mini")
    resolve_model(config, date(2027, 1, 13))
    assert "on 2027-01-14" in problem_of("openai", date(2027, 1, 14), model="gpt-4.1-mini")


def test_a_retired_name_is_fine_on_a_server_of_ones_own():
    config = LlmConfig(provider="openai-compatible", **(LOCAL | {"model": "gpt-4"}))
    assert resolve_model(config, TODAY).model == "gpt-4"


def test_a_remote_server_without_a_key_may_be_plain_http():
    config = LlmConfig(
        provider="openai-compatible", base_url="http://gpu.lan:8000/v1", model="llama"
    )
    assert resolve_model(config, TODAY).temperature == 0.1


def test_an_unlisted_model_is_sent_what_is_set_and_its_provider_judges():
    config = LlmConfig(provider="openai", model="gpt-99", temperature=0.3, effort="low")
    model = resolve_model(config, TODAY)
    assert (model.temperature, model.effort) == (0.3, "low")
    assert model.knowledge_cutoff is None


def test_a_dated_edition_takes_what_its_model_takes():
    edition = resolve_model(
        LlmConfig(provider="anthropic", model="claude-haiku-4-5-20251001"), TODAY
    )
    assert edition.knowledge_cutoff == date(2025, 2, 28)


def test_a_request_says_all_that_decides_its_reply():
    model = resolve_model(LlmConfig(provider="openai", effort="low"), TODAY)
    request = model.request("system", (), DECISION_SCHEMA, sample=2)
    assert (request.provider, request.model, request.effort) == ("openai", "gpt-6-luna", "low")
    assert (request.max_output_tokens, request.temperature) == (16_000, None)
    assert (request.schema, request.sample) == (DECISION_SCHEMA, 2)
