"""docs/models.md: language models, what they take and cost, and what happens when a call fails."""

from __future__ import annotations

from typing import Final

from llm_trader.llm.cost import Prices
from llm_trader.llm.providers.capabilities import AS_OF, DEFAULT_MODELS, MODELS, ModelCapabilities
from llm_trader.llm.providers.protocol import TokenUsage

_INTRODUCTION: Final = """# Language models

```
pip install "llm-trader-rag[llm]"
```

`llm.provider` in the [settings](settings.md#llm) says whose interface is spoken:

- `anthropic`: the Messages API, with the key in `ANTHROPIC_API_KEY`
- `openai`: the Responses API, with the key in `OPENAI_API_KEY`. Replies are not stored there.
- `openai-compatible`: chat completions at `llm.base_url`, as vLLM, Ollama and many services have
  it. A key is sent only if `llm.api_key_env` names its variable.

```toml
[llm]
provider = "openai-compatible"
base_url = "http://127.0.0.1:11434/v1"
model = "qwen3:8b"
input_usd_per_mtok = 0
output_usd_per_mtok = 0
```

The settings never hold a key, only the name of its variable, and a key is not sent over plain
http to another machine. A setting that the model does not take, a model that is retired and a
model without a price are errors when a command starts, not at the first decision.

## Models

*Thinks* is what the model does if `llm.effort` is not set; `none` turns it off. Temperature is
0.1 by default where the model has one. Cutoffs are what providers state: earlier data may be in a
model's memory. Prices are US dollars a million tokens, of the table of genai-prices.
"""

_END: Final = """
Other models of these providers work too: they are sent what is set, and the provider judges. A
price that the table lacks is set in `llm.input_usd_per_mtok` and `llm.output_usd_per_mtok`.

## Calls

- **Attempts.** An error that may pass (429, 5xx, a lost connection, silence for `llm.timeout_s`)
  is followed by up to `llm.max_retries` attempts, after growing pauses or the one that the
  provider asks for. This is the SDK's doing, and nothing else tries again.
- **Deadline.** `llm.deadline_s` ends a call whatever happens, also if bytes keep dripping in. The
  wait for a turn under `llm.requests_per_minute` comes before.
- **Failures** have a kind: `timeout`, `rate_limited`, `overloaded`, `connection`, `bad_reply`,
  `bad_request`, `unknown_model` or `credentials`.
- **Caching.** The beginning of each prompt is the same, and is marked for the provider's cache;
  cached tokens are counted at their own price. Anthropic keeps it for 5 minutes, OpenAI for 30,
  and writing costs a quarter more than plain tokens; short beginnings are not cached. With one
  symbol every 15 minutes, `llm.prompt_caching = false` is a little cheaper at Anthropic.

## Cost and budget

A call costs its tokens, hidden thinking and cached ones included. Before each, its worst case is
reserved: every byte of the prompt a token, a reply that fills `llm.max_output_tokens`, and every
attempt charged. If what is spent and reserved on the UTC day would exceed `llm.daily_budget_usd`,
the call is not made. An attempt whose end nobody knows, such as a connection lost before the
reply, counts as its worst case; one that was answered with an error costs nothing.
"""


def models_page(note: str) -> str:
    lines = [
        "| provider | model | thinks | efforts | temperature | knowledge until | retires | "
        "input | cached | output |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for provider, models in MODELS.items():
        for model, capabilities in models.items():
            default = " (default)" if DEFAULT_MODELS.get(provider) == model else ""
            prices = " | ".join(_prices(Prices(provider, model, AS_OF)))
            cells = [provider, f"`{model}`{default}", *_cells(capabilities), prices]
            lines.append(f"| {' | '.join(cells)} |")
    return note + "\n" + _INTRODUCTION + "\n" + "\n".join(lines) + "\n" + _END


def _cells(capabilities: ModelCapabilities) -> list[str]:
    temperature = {
        "always": "yes",
        "without_thinking": "with effort `none`",
        "if_set": "?",
        "never": "no",
    }
    return [
        "yes" if capabilities.thinks else "no",
        ", ".join(capabilities.efforts),
        temperature[capabilities.temperature],
        str(capabilities.knowledge_cutoff or "unknown"),
        str(capabilities.retires or ""),
    ]


def _prices(prices: Prices) -> list[str]:
    """Of a short prompt; some models charge more beyond 100,000 tokens."""
    usages = (
        TokenUsage(input_tokens=1000, output_tokens=0),
        TokenUsage(input_tokens=1000, output_tokens=0, cached_input_tokens=1000),
        TokenUsage(input_tokens=0, output_tokens=1000),
    )
    return [f"{float(prices.cost_usd(usage) * 1000):g}" for usage in usages]
