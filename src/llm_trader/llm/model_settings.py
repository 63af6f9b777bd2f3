"""The settings of one model, resolved: defaults by what the model takes, and what it cannot take
refused before anything is asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any, Final
from urllib.parse import urlsplit

from llm_trader.errors import ConfigurationError
from llm_trader.llm.config import LlmConfig
from llm_trader.llm.providers.capabilities import (
    DEFAULT_MODELS,
    ModelCapabilities,
    capabilities_of,
)
from llm_trader.llm.providers.protocol import LlmRequest, Message

_TEMPERATURE: Final = 0.1
# Thinking of a medium effort is some thousand tokens; a decision alone is about 300.
_THINKING_TOKENS, _PLAIN_TOKENS = 16_000, 2_000
_THINKING_TIMEOUT_S, _PLAIN_TIMEOUT_S = 120.0, 30.0
_TIMEOUTS_OF_A_DEADLINE: Final = 3
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """How one model is asked. `temperature` and `effort` are `None` where they are not sent."""

    provider: str
    model: str
    capabilities: ModelCapabilities
    temperature: float | None
    effort: str | None
    max_output_tokens: int
    timeout_s: float
    deadline_s: float

    @property
    def thinks(self) -> bool:
        return self.capabilities.thinks_at(self.effort)

    @property
    def knowledge_cutoff(self) -> date | None:
        """The last day of which the model knows much, by its provider; `None` if unknown."""
        return self.capabilities.knowledge_cutoff

    def request(
        self,
        system: str,
        messages: tuple[Message, ...],
        schema: dict[str, Any] | None,
        sample: int = 0,
    ) -> LlmRequest:
        return LlmRequest(
            provider=self.provider,
            model=self.model,
            system=system,
            messages=messages,
            max_output_tokens=self.max_output_tokens,
            temperature=self.temperature,
            effort=self.effort,
            schema=schema if self.capabilities.structured else None,
            sample=sample,
        )


def resolve_model(config: LlmConfig, today: date) -> ModelSettings:
    """Raises `ConfigurationError` for what the model does not take, all mistakes at once."""
    model = config.model or DEFAULT_MODELS.get(config.provider)
    if model is None:
        raise ConfigurationError(f"llm.provider is {config.provider}, which needs llm.model")
    capabilities = capabilities_of(config.provider, model)
    if problems := [*_problems(config, model, capabilities, today)]:
        raise ConfigurationError("\n".join(problems))
    thinks = capabilities.thinks_at(config.effort)
    tokens = min(
        config.max_output_tokens or (_THINKING_TOKENS if thinks else _PLAIN_TOKENS),
        capabilities.max_output_tokens,
    )
    timeout_s = config.timeout_s or (_THINKING_TIMEOUT_S if thinks else _PLAIN_TIMEOUT_S)
    return ModelSettings(
        provider=config.provider,
        model=model,
        capabilities=capabilities,
        temperature=_temperature(config, capabilities, thinks),
        effort=config.effort,
        max_output_tokens=tokens,
        timeout_s=timeout_s,
        deadline_s=config.deadline_s or _TIMEOUTS_OF_A_DEADLINE * timeout_s,
    )


def _temperature(config: LlmConfig, capabilities: ModelCapabilities, thinks: bool) -> float | None:
    if config.temperature is not None:
        return config.temperature
    takes = capabilities.temperature
    return (
        _TEMPERATURE if takes == "always" or (takes == "without_thinking" and not thinks) else None
    )


def _problems(
    config: LlmConfig, model: str, capabilities: ModelCapabilities, today: date
) -> list[str]:
    problems = []
    if capabilities.retires is not None and today >= capabilities.retires:
        problems.append(
            f"llm.model: {config.provider} retired {model} on {capabilities.retires}; "
            f"choose another, such as {DEFAULT_MODELS[config.provider]}"
        )
    if config.temperature is not None and (reason := _no_temperature(config, capabilities)):
        problems.append(f"llm.temperature: {model} {reason}")
    if config.effort is not None and config.effort not in capabilities.efforts:
        known = ", ".join(capabilities.efforts)
        remedy = f"it takes {known}" if known else "it has no such parameter; leave it out"
        problems.append(f"llm.effort: {model} does not take {config.effort!r}; {remedy}")
    if (config.max_output_tokens or 0) > capabilities.max_output_tokens:
        problems.append(
            f"llm.max_output_tokens: {model} writes {capabilities.max_output_tokens} at most"
        )
    if config.deadline_s and config.timeout_s and config.deadline_s < config.timeout_s:
        problems.append("llm.deadline_s is shorter than llm.timeout_s; make it at least as long")
    return problems + _address_problems(config)


def _no_temperature(config: LlmConfig, capabilities: ModelCapabilities) -> str | None:
    """Why the model takes no temperature, if it takes none."""
    if capabilities.temperature == "never":
        return "has no temperature; leave it out"
    if capabilities.temperature == "without_thinking" and config.effort != "none":
        return "takes a temperature only if llm.effort is none; leave one of them out"
    return None


def _address_problems(config: LlmConfig) -> list[str]:
    if config.base_url is None:
        if config.provider == "openai-compatible":
            return ["llm.base_url: openai-compatible needs it, such as http://127.0.0.1:11434/v1"]
        return []
    address = urlsplit(config.base_url)
    if address.scheme not in ("http", "https") or not address.hostname:
        return [f"llm.base_url: {config.base_url} is no http or https address"]
    sends_key = config.provider != "openai-compatible" or config.api_key_env is not None
    if address.scheme == "http" and sends_key and address.hostname not in _LOOPBACK:
        return [
            f"llm.base_url: {config.base_url} would send the key unencrypted; use https, or leave "
            "llm.api_key_env out"
        ]
    return []
