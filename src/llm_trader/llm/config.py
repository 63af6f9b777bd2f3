"""Settings of language models: which one, how it is asked, and what it may cost."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from llm_trader.config_types import EnvName, Url
from llm_trader.errors import ConfigurationError

ProviderName = Literal["anthropic", "openai", "openai-compatible"]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
UsdPerMtok = Annotated[float, Meta(ge=0, le=100_000)]


class LlmConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The language model that decides, and its limits."""

    provider: Annotated[
        ProviderName,
        Meta(
            description="Whose interface is spoken. `openai-compatible` is chat completions at "
            "`llm.base_url`, as vLLM and Ollama have it."
        ),
    ] = "anthropic"
    model: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(
            description="Model, by the name that its provider gives it. By default "
            "claude-haiku-5-5 of Anthropic or gpt-6-luna of OpenAI.",
            examples=["claude-haiku-5-5"],
        ),
    ] = None
    base_url: Annotated[
        Url | None,
        Meta(
            description="Address of the interface, if it is not the provider's own.",
            examples=["http://127.0.0.1:11434/v1"],
        ),
    ] = None
    api_key_env: Annotated[
        EnvName | None,
        Meta(
            description="Environment variable that holds the key. By default ANTHROPIC_API_KEY or "
            "OPENAI_API_KEY; `openai-compatible` sends a key only if this names one.",
            examples=["OPENAI_API_KEY"],
        ),
    ] = None
    temperature: Annotated[
        Annotated[float, Meta(ge=0, le=2)] | None,
        Meta(
            description="Randomness of a reply. By default 0.1 where the model has this parameter.",
            examples=[0.1],
        ),
    ] = None
    effort: Annotated[
        Effort | None,
        Meta(
            description="How much the model thinks before it replies; `none` turns thinking off. "
            "By default what the provider chooses for the model.",
            examples=["low"],
        ),
    ] = None
    max_output_tokens: Annotated[
        Annotated[int, Meta(ge=64, le=128_000)] | None,
        Meta(
            description="Most tokens of one reply, hidden thinking included. By default 16000 for "
            "a model that thinks, and 2000 for any other.",
            examples=[16_000],
        ),
    ] = None
    stream: Annotated[
        bool,
        Meta(
            description="Whether replies are received piece by piece, so that a silent connection "
            "is noticed before the reply is complete."
        ),
    ] = True
    prompt_caching: Annotated[
        bool,
        Meta(
            description="Whether the provider is asked to cache the stable beginning of a prompt. "
            "It pays if decisions follow each other within minutes."
        ),
    ] = True
    requests_per_minute: Annotated[
        int,
        Meta(
            ge=1,
            le=100_000,
            description="Requests a minute, retries included. After a pause as many may leave at "
            "once, and then they follow at this rate.",
        ),
    ] = 10
    timeout_s: Annotated[
        Annotated[float, Meta(ge=0.05, le=3600)] | None,
        Meta(
            description="Seconds without a byte after which an attempt is given up. By default 30, "
            "and 120 for a model that thinks.",
            examples=[30.0],
        ),
    ] = None
    deadline_s: Annotated[
        Annotated[float, Meta(ge=0.05, le=3600)] | None,
        Meta(
            description="Seconds after which a call is given up, all attempts and pauses included. "
            "By default three times `llm.timeout_s`.",
            examples=[90.0],
        ),
    ] = None
    max_retries: Annotated[
        int,
        Meta(
            ge=0,
            le=3,
            description="Further attempts after an error that may pass, with growing pauses or "
            "those that the provider asks for.",
        ),
    ] = 3
    daily_budget_usd: Annotated[
        float,
        Meta(
            ge=0,
            le=1_000_000,
            description="US dollars that calls may cost on one UTC day. A call whose worst case "
            "does not fit is not made.",
        ),
    ] = 5.0
    input_usd_per_mtok: Annotated[
        UsdPerMtok | None,
        Meta(
            description="Price of a million input tokens, for a model that the bundled price table "
            "lacks. 0 for a model of your own.",
            examples=[0.0],
        ),
    ] = None
    output_usd_per_mtok: Annotated[
        UsdPerMtok | None,
        Meta(description="Price of a million output tokens, likewise.", examples=[0.0]),
    ] = None
    cached_input_usd_per_mtok: Annotated[
        UsdPerMtok | None,
        Meta(
            description="Price of a million input tokens that come from the provider's cache. By "
            "default that of all input tokens.",
            examples=[0.0],
        ),
    ] = None


def without_extra(error: ImportError) -> ConfigurationError:
    """What to do where the libraries of the extra `llm` are not installed."""
    return ConfigurationError(
        f"language models need the extra llm ({error}): pip install 'llm-trader-rag[llm]', or "
        "decide without one"
    )
