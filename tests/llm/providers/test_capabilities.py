from __future__ import annotations

from datetime import date

import pytest

from llm_trader.llm.config import LlmConfig
from llm_trader.llm.cost import model_prices
from llm_trader.llm.model_settings import resolve_model
from llm_trader.llm.providers.capabilities import DEFAULT_MODELS, MODELS, capabilities_of
from tests.llm.providers.connections import TODAY

LISTED = [(provider, model) for provider, models in MODELS.items() for model in models]


@pytest.mark.parametrize(("provider", "model"), LISTED)
def test_every_listed_model_is_alive_and_has_a_price(provider, model):
    config = LlmConfig(provider=provider, model=model)
    assert model_prices(config, resolve_model(config, TODAY), TODAY).own is None


@pytest.mark.parametrize(("provider", "model"), LISTED)
def test_only_models_that_can_stop_thinking_take_the_effort_none(provider, model):
    capabilities = capabilities_of(provider, model)
    if provider == "anthropic":
        assert ("none" in capabilities.efforts) == (capabilities.thinking_off is not None)
    assert capabilities.thinks == bool(capabilities.efforts)
    if capabilities.temperature == "without_thinking":
        assert "none" in capabilities.efforts


@pytest.mark.parametrize("provider", DEFAULT_MODELS)
def test_the_default_models_are_listed_stay_for_a_year_and_state_their_cutoff(provider):
    capabilities = capabilities_of(provider, DEFAULT_MODELS[provider])
    assert capabilities.listed
    assert capabilities.retires is None or capabilities.retires > date(2027, 11, 29)
    assert capabilities.knowledge_cutoff is not None
