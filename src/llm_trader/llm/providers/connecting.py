"""The provider that the settings name. SDKs are imported here, when one is first connected."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from llm_trader.errors import ConfigurationError
from llm_trader.llm.config import LlmConfig, ProviderName, without_extra
from llm_trader.llm.model_settings import ModelSettings
from llm_trader.llm.providers.protocol import Provider

if TYPE_CHECKING:
    from llm_trader.llm.providers.sdk_connection import SdkConnection

API_KEYS: Final[dict[ProviderName, str]] = {
    "anthropic": "ANTHROPIC_API_KEY",
    "openai": "OPENAI_API_KEY",
}


def connect_provider(
    config: LlmConfig, model: ModelSettings, environ: Mapping[str, str]
) -> Provider:
    """Connects nothing yet; the first call does. Raises `ConfigurationError` without a key or the
    extra `llm`.
    """
    key = api_key(config, environ)
    try:
        if config.provider == "anthropic":
            return _anthropic(config, model, key)
        return _openai(config, model, key)
    except ImportError as error:
        raise without_extra(error) from error


def api_key(config: LlmConfig, environ: Mapping[str, str]) -> str | None:
    """The provider's key; `None` for a compatible one that needs none."""
    name = config.api_key_env or API_KEYS.get(config.provider)
    if name is None:
        return None
    if not (key := environ.get(name, "").strip()):
        raise ConfigurationError(
            f"{config.provider} needs a key: set the environment variable {name} to it, or name "
            "another variable in llm.api_key_env"
        )
    if not (key.isascii() and key.isprintable()):
        raise ConfigurationError(f"the environment variable {name} holds no key: it is not ASCII")
    return key


def _anthropic(config: LlmConfig, model: ModelSettings, key: str | None) -> Provider:
    from llm_trader.llm.providers.anthropic_messages import AnthropicMessages
    from llm_trader.llm.providers.anthropic_sdk import SDK, anthropic_client

    connection = _connection(config, model, key, SDK)
    return AnthropicMessages(
        connection=connection,
        client=anthropic_client(
            connection, base_url=config.base_url, key=key, max_retries=config.max_retries
        ),
        stream=config.stream,
        caches=config.prompt_caching and model.capabilities.cache == "marked",
        thinking_off=model.capabilities.thinking_off,
    )


def _openai(config: LlmConfig, model: ModelSettings, key: str | None) -> Provider:
    from llm_trader.llm.providers.chat_completions import ChatCompletions
    from llm_trader.llm.providers.openai_responses import OpenAiResponses
    from llm_trader.llm.providers.openai_sdk import SDK, openai_client

    connection = _connection(config, model, key, SDK)
    client = openai_client(
        connection, base_url=config.base_url, key=key, max_retries=config.max_retries
    )
    if config.provider == "openai-compatible":
        return ChatCompletions(connection=connection, client=client, stream=config.stream)
    return OpenAiResponses(
        connection=connection,
        client=client,
        stream=config.stream,
        caches=config.prompt_caching and model.capabilities.cache != "none",
        marks_prefix=model.capabilities.cache == "marked",
    )


def _connection(
    config: LlmConfig, model: ModelSettings, key: str | None, sdk: str
) -> SdkConnection:
    from llm_trader.llm.providers.sdk_connection import SdkConnection

    return SdkConnection(
        config.provider,
        sdk,
        key=key,
        timeout_s=model.timeout_s,
        requests_per_minute=config.requests_per_minute,
    )
