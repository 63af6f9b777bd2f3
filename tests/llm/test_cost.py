from __future__ import annotations

import sys
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.errors import ConfigurationError
from llm_trader.llm.config import LlmConfig
from llm_trader.llm.cost import (
    Prices,
    estimate_study,
    estimated_tokens,
    model_prices,
    settled_usd,
    worst_case_usd,
)
from llm_trader.llm.model_settings import resolve_model
from llm_trader.llm.providers.capabilities import MODELS
from llm_trader.llm.providers.protocol import (
    LlmReply,
    LlmRequest,
    Message,
    ProviderError,
    TokenUsage,
)
from llm_trader.llm.reply.schema import DECISION_SCHEMA
from tests.llm.providers.connections import TODAY

HAIKU = Prices("anthropic", "claude-haiku-5-5", TODAY)
LUNA = Prices("openai", "gpt-6-luna", TODAY)
OWN = Prices("openai-compatible", "llama", TODAY, (Decimal(2), Decimal(1), Decimal(8)))
LISTED = [Prices(provider, model, TODAY) for provider in MODELS for model in MODELS[provider]]
USAGE = TokenUsage(
    input_tokens=1500, output_tokens=500, cached_input_tokens=1000, cache_write_tokens=200
)


def request_of(text: str = "x" * 1000, max_output_tokens: int = 2000) -> LlmRequest:
    return LlmRequest(
        provider="anthropic",
        model="claude-haiku-5-5",
        system="",
        messages=(Message("user", text),),
        max_output_tokens=max_output_tokens,
    )


def prices_of(**settings: Any) -> Prices:
    config = LlmConfig(**settings)
    return model_prices(config, resolve_model(config, TODAY), TODAY)


@pytest.mark.parametrize("prices", [HAIKU, LUNA])
def test_cached_and_written_tokens_have_prices_of_their_own(prices: Prices):
    # 300 at $0.10, 1000 read at $0.01, 200 written at $0.125 and 500 out at $0.50 a million.
    assert prices.cost_usd(USAGE) == Decimal("0.000315")


def test_a_dated_edition_costs_what_its_model_costs():
    edition = Prices("anthropic", "claude-haiku-4-5-20251001", TODAY)
    assert edition.cost_usd(USAGE) == Decimal("0.00315")


def test_own_prices_go_before_the_table():
    prices = prices_of(
        provider="openai", input_usd_per_mtok=2, output_usd_per_mtok=8, cached_input_usd_per_mtok=1
    )
    # 500 at $2, 1000 at $1 and 500 out at $8 a million.
    assert prices.cost_usd(USAGE) == OWN.cost_usd(USAGE) == Decimal("0.006")


def test_cached_tokens_cost_the_full_price_unless_another_is_set():
    prices = prices_of(provider="openai", input_usd_per_mtok=2, output_usd_per_mtok=0)
    assert prices.cost_usd(USAGE) == Decimal("0.003")


def test_a_model_of_ones_own_costs_nothing():
    prices = prices_of(
        provider="openai-compatible",
        base_url="http://127.0.0.1:1/v1",
        model="llama",
        input_usd_per_mtok=0,
        output_usd_per_mtok=0,
    )
    assert prices.cost_usd(USAGE) == worst_case_usd(request_of(), prices) == 0


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"provider": "anthropic", "model": "claude-99"}, "no price is known of claude-99"),
        (
            # Also by the name of a model that has a price elsewhere.
            {
                "provider": "openai-compatible",
                "model": "gpt-4o",
                "base_url": "http://127.0.0.1:1/v1",
            },
            "no price is known of gpt-4o",
        ),
        ({"provider": "openai", "input_usd_per_mtok": 1}, "belong together"),
        ({"provider": "openai", "cached_input_usd_per_mtok": 1}, "belong together"),
    ],
)
def test_a_model_without_a_price_needs_one_in_the_settings(settings: Any, problem: str):
    with pytest.raises(ConfigurationError, match=problem):
        prices_of(**settings)


@given(
    st.sampled_from([HAIKU, LUNA, OWN, *LISTED]),
    # The bytes of the prompt, and some of the provider's own around it.
    st.integers(0, 1_000 + 2_000),
    st.integers(0, 2_000),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_no_reply_costs_more_than_the_worst_case(
    prices: Prices, tokens: int, output: int, cached: float, written: float
):
    from_cache = int(tokens * cached)
    usage = TokenUsage(
        input_tokens=tokens,
        output_tokens=output,
        cached_input_tokens=from_cache,
        cache_write_tokens=int((tokens - from_cache) * written),
    )
    request = request_of("é" * 500, max_output_tokens=2_000)
    assert prices.cost_usd(usage) <= worst_case_usd(request, prices)


def reply_of(usage: TokenUsage | None, unanswered: int = 0) -> LlmReply:
    return LlmReply(
        text="",
        finish="complete",
        usage=usage,
        model="",
        response_id=None,
        sdk="",
        attempts=3,
        latency_ms=1,
        unanswered=unanswered,
    )


def error_of(unanswered: int, usage: TokenUsage | None = None) -> ProviderError:
    return ProviderError(
        "", kind="timeout", attempts=3, latency_ms=1, unanswered=unanswered, usage=usage
    )


def test_what_nobody_knows_counts_as_its_worst_case():
    request = request_of()
    worst, cost = worst_case_usd(request, HAIKU), HAIKU.cost_usd(USAGE)
    assert settled_usd(request, HAIKU, reply_of(USAGE)) == cost
    assert settled_usd(request, HAIKU, reply_of(USAGE, unanswered=2)) == cost + 2 * worst
    assert settled_usd(request, HAIKU, reply_of(None)) == worst
    assert settled_usd(request, HAIKU, error_of(0)) == 0
    assert settled_usd(request, HAIKU, error_of(3)) == 3 * worst
    assert settled_usd(request, HAIKU, error_of(1, USAGE)) == cost + worst


def test_a_study_is_estimated_before_it_begins():
    requests = [request_of(max_output_tokens=16_000)] * 100
    estimate = estimate_study(requests, HAIKU, thinks=True)
    assert estimate.calls == 100
    # 400 tokens in and 3000 out, at $0.10 and $0.50 a million.
    assert estimate.expected_usd == Decimal("0.154")
    assert estimate.at_most_usd == 100 * worst_case_usd(requests[0], HAIKU)
    plain = estimate_study(requests, HAIKU, thinks=False)
    assert plain.expected_usd < estimate.expected_usd < estimate.at_most_usd


def test_the_schema_counts_as_part_of_the_prompt():
    with_schema = LlmRequest(
        provider="openai",
        model="gpt-6-luna",
        system="",
        messages=(),
        max_output_tokens=1,
        schema=DECISION_SCHEMA,
    )
    assert estimated_tokens(with_schema) > 50


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    config = LlmConfig()
    model = resolve_model(config, TODAY)
    with pytest.raises(ConfigurationError, match=r"pip install 'llm-trader-rag\[llm\]'"):
        model_prices(config, model, TODAY)
