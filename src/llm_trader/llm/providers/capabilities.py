"""What each model takes, and what its provider says of it. No I/O here.

From the providers' pages of models and deprecations as of `AS_OF`. A model that is not listed
is sent what the settings name, and its provider is the judge.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import date
from typing import Final, Literal

from llm_trader.llm.config import Effort, ProviderName

AS_OF: Final = date(2026, 11, 29)

_GRADED: Final[tuple[Effort, ...]] = ("low", "medium", "high", "xhigh", "max")
_ANY: Final[tuple[Effort, ...]] = ("none", "minimal", *_GRADED)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCapabilities:
    """`efforts` is empty for a model without such a parameter. `temperature` says when a model has
    one: `if_set` for models of which it is not known.

    `thinks` holds for the provider's own effort. `thinking_off` is how Anthropic's models name the
    effort `none`. `cache` says whether a model caches the prefix that is marked, as Anthropic's do,
    or any by itself, as OpenAI's did. From the day `retires` on the provider refuses the model.
    """

    efforts: tuple[Effort, ...] = ()
    temperature: Literal["always", "without_thinking", "if_set", "never"] = "never"
    structured: bool = True
    thinks: bool = False
    thinking_off: Literal["disabled", "between_tools"] | None = None
    cache: Literal["marked", "automatic", "none"] = "marked"
    max_output_tokens: int = 128_000
    knowledge_cutoff: date | None = None
    retires: date | None = None
    listed: bool = True

    def thinks_at(self, effort: str | None) -> bool:
        return self.thinks if effort is None else effort != "none"


_CLAUDE: Final = ModelCapabilities(efforts=_GRADED, thinks=True)
_GPT: Final = ModelCapabilities(
    efforts=("none", *_GRADED), temperature="without_thinking", thinks=True
)
_GPT_4: Final = ModelCapabilities(
    temperature="always", cache="automatic", max_output_tokens=16_384, retires=date(2027, 1, 14)
)

MODELS: Final[dict[ProviderName, dict[str, ModelCapabilities]]] = {
    "anthropic": {
        "claude-haiku-5-5": replace(
            _CLAUDE,
            efforts=("none", *_GRADED),
            thinking_off="disabled",
            knowledge_cutoff=date(2026, 6, 30),
        ),
        "claude-sonnet-5-5": replace(
            _CLAUDE,
            efforts=("none", *_GRADED),
            thinking_off="between_tools",
            knowledge_cutoff=date(2026, 6, 30),
        ),
        "claude-opus-5-5": replace(_CLAUDE, knowledge_cutoff=date(2026, 6, 30)),
        "claude-fable-5-1": replace(_CLAUDE, knowledge_cutoff=date(2026, 6, 30)),
        "claude-opus-5": replace(
            _CLAUDE,
            efforts=("none", *_GRADED),
            thinking_off="disabled",
            knowledge_cutoff=date(2026, 5, 31),
        ),
        "claude-sonnet-5": replace(
            _CLAUDE,
            efforts=("none", *_GRADED),
            thinking_off="disabled",
            knowledge_cutoff=date(2026, 1, 31),
        ),
        "claude-haiku-4-5": ModelCapabilities(
            max_output_tokens=64_000, knowledge_cutoff=date(2025, 2, 28)
        ),
    },
    "openai": {
        "gpt-6-luna": replace(_GPT, knowledge_cutoff=date(2026, 5, 18)),
        "gpt-6.1-terra": replace(_GPT, knowledge_cutoff=date(2026, 6, 1)),
        "gpt-6.1-sol": replace(_GPT, efforts=_GRADED, temperature="never"),
        "gpt-6-sol": replace(_GPT, knowledge_cutoff=date(2026, 4, 20)),
        "gpt-6-astra": replace(_GPT, efforts=_GRADED, temperature="never"),
        "gpt-5.6-luna": replace(_GPT, knowledge_cutoff=date(2026, 2, 16)),
        "gpt-5.6-terra": _GPT,
        "gpt-5.6-sol": _GPT,
        "gpt-4.1": replace(_GPT_4, max_output_tokens=32_768, knowledge_cutoff=date(2024, 6, 1)),
        "gpt-4.1-mini": replace(
            _GPT_4, max_output_tokens=32_768, knowledge_cutoff=date(2024, 6, 1)
        ),
        "gpt-4o": replace(_GPT_4, knowledge_cutoff=date(2023, 10, 1)),
        "gpt-4o-mini": replace(_GPT_4, knowledge_cutoff=date(2023, 10, 1)),
    },
    "openai-compatible": {},
}

# Models that are asked for although they are gone, or soon will be.
_RETIRE: Final[dict[str, date]] = {
    "claude-3-sonnet": date(2025, 7, 21),
    "claude-3-5-sonnet": date(2025, 10, 28),
    "claude-3-opus": date(2026, 1, 5),
    "claude-3-7-sonnet": date(2026, 2, 19),
    "claude-3-5-haiku": date(2026, 2, 19),
    "claude-3-haiku": date(2026, 4, 20),
    "claude-opus-4": date(2026, 6, 15),
    "claude-sonnet-4": date(2026, 6, 15),
    "claude-opus-4-1": date(2026, 8, 5),
    "claude-sonnet-4-5": date(2026, 11, 30),
    "claude-opus-4-5": date(2027, 1, 22),
    "gpt-4-turbo": date(2026, 10, 23),
    "gpt-4": date(2026, 10, 23),
    "gpt-3.5-turbo": date(2026, 10, 23),
    "gpt-4.1-nano": date(2026, 10, 23),
    "o1": date(2026, 10, 23),
    "o3-mini": date(2026, 10, 23),
    "o4-mini": date(2026, 10, 23),
    "o3": date(2026, 12, 11),
    "gpt-5": date(2026, 12, 11),
    "gpt-5-mini": date(2026, 12, 11),
    "gpt-5-nano": date(2026, 12, 11),
    "gpt-5.1": date(2027, 4, 1),
    "gpt-5.4-nano": date(2027, 4, 1),
}

_UNLISTED: Final[dict[ProviderName, ModelCapabilities]] = {
    "anthropic": replace(_CLAUDE, listed=False),
    "openai": replace(_GPT, efforts=_ANY, temperature="if_set", cache="automatic", listed=False),
    "openai-compatible": ModelCapabilities(
        efforts=_ANY, temperature="always", cache="none", listed=False
    ),
}

DEFAULT_MODELS: Final[dict[ProviderName, str]] = {
    "anthropic": "claude-haiku-5-5",
    "openai": "gpt-6-luna",
}

# A dated edition of a model, such as claude-haiku-4-5-20251001 or gpt-4.1-mini-2025-04-14.
_EDITION = re.compile(r"-(\d{8}|\d{4}|\d{4}-\d{2}-\d{2}|latest|preview|0)$")


def capabilities_of(provider: ProviderName, model: str) -> ModelCapabilities:
    """Of a model or a dated edition of it; of an unlisted one what its provider's models take."""
    family = _EDITION.sub("", model)
    listed = MODELS[provider]
    capabilities = listed.get(model) or listed.get(family) or _UNLISTED[provider]
    if provider == "openai-compatible":
        return capabilities
    retires = _RETIRE.get(model) or _RETIRE.get(family) or capabilities.retires
    return replace(capabilities, retires=retires)
