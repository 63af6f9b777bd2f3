"""Providers that are connected to the stub."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from llm_trader.llm.config import LlmConfig, ProviderName
from llm_trader.llm.model_settings import ModelSettings, resolve_model
from llm_trader.llm.providers.capabilities import AS_OF
from llm_trader.llm.providers.connecting import connect_provider
from llm_trader.llm.providers.protocol import LlmRequest, Message, Provider
from llm_trader.llm.reply.schema import DECISION_SCHEMA
from tests.llm.stub.server import TEST_KEY, StubServer

TODAY: Final = AS_OF
PROVIDERS: Final[tuple[ProviderName, ...]] = ("anthropic", "openai", "openai-compatible")
# Longer than what any provider starts to cache at, so that the stub counts it.
SYSTEM: Final = "You decide on trades. " * 300
DEADLINE_S: Final = 10.0


def config_of(stub: StubServer, provider: ProviderName, **settings: Any) -> LlmConfig:
    path = "" if provider == "anthropic" else "/v1"
    if provider == "openai-compatible":
        settings = {"model": "llama", "input_usd_per_mtok": 0, "output_usd_per_mtok": 0} | settings
    settings = {"requests_per_minute": 10_000, "timeout_s": 5.0, "deadline_s": 10.0} | settings
    return LlmConfig(provider=provider, base_url=stub.url + path, **settings)


@asynccontextmanager
async def connected(
    stub: StubServer, provider: ProviderName, **settings: Any
) -> AsyncIterator[tuple[Provider, ModelSettings]]:
    config = config_of(stub, provider, **settings)
    model = resolve_model(config, TODAY)
    environ = {"ANTHROPIC_API_KEY": TEST_KEY, "OPENAI_API_KEY": TEST_KEY}
    connection = connect_provider(config, model, environ)
    try:
        yield connection, model
    finally:
        await connection.close()


def request_of(
    model: ModelSettings, text: str = "What now?", schema: dict[str, Any] | None = DECISION_SCHEMA
) -> LlmRequest:
    return model.request(SYSTEM, (Message("user", text),), schema)
