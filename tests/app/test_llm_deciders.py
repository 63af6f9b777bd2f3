from __future__ import annotations

from typing import Any

import msgspec
import pytest

from llm_trader.app.job import Job
from llm_trader.app.llm_deciders import DeciderChoice, llm_config, program_versions
from llm_trader.llm.config import LlmConfig
from llm_trader.settings.loading import load_settings

LOCAL = {
    "provider": "openai-compatible",
    "model": "qwen3:8b",
    "base_url": "http://127.0.0.1:11434/v1",
    "input_usd_per_mtok": 0.0,
    "output_usd_per_mtok": 0.0,
    "temperature": 0.3,
}
LIMITS = {"daily_budget_usd": 2.0, "requests_per_minute": 30}


def chosen(settings: dict[str, Any], choice: DeciderChoice) -> LlmConfig:
    overrides = {f"llm.{name}": value for name, value in settings.items()}
    return llm_config(Job(load_settings(environ={}, overrides=overrides), {}, 0), choice)


@pytest.mark.parametrize("choice", [DeciderChoice(), DeciderChoice("replay")])
def test_without_a_choice_the_settings_hold(choice: DeciderChoice) -> None:
    assert chosen(LOCAL | LIMITS, choice) == LlmConfig(**LOCAL, **LIMITS)  # type: ignore[arg-type]


def test_another_provider_gets_nothing_that_is_meant_for_the_model_of_the_settings() -> None:
    found = chosen(LOCAL | LIMITS, DeciderChoice("anthropic"))
    assert found == LlmConfig(provider="anthropic", **LIMITS)  # type: ignore[arg-type]


def test_another_model_is_not_charged_at_the_price_of_that_of_the_settings() -> None:
    own = {"provider": "openai", "model": "gpt-mine", "input_usd_per_mtok": 1.0}
    found = chosen(own | {"output_usd_per_mtok": 2.0}, DeciderChoice(model="gpt-6-luna"))
    assert found == LlmConfig(provider="openai", model="gpt-6-luna")
    local = chosen(LOCAL, DeciderChoice(model="gemma3:4b"))
    assert local == msgspec.structs.replace(LlmConfig(**LOCAL), model="gemma3:4b")  # type: ignore[arg-type]


def test_the_version_of_the_code_is_that_of_the_files_that_decide() -> None:
    versions = program_versions()
    assert {*versions} == {"program", "code", "template"}
    assert len(versions["code"]) == 12
