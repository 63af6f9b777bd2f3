"""What calls cost, in US dollars: of a reply, at most before it, and of a long evaluation.

Prices are those of the bundled table of genai-prices, or of the settings. No I/O here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Final

import msgspec

from llm_trader.errors import ConfigurationError
from llm_trader.llm.config import LlmConfig, without_extra
from llm_trader.llm.model_settings import ModelSettings
from llm_trader.llm.providers.protocol import LlmReply, LlmRequest, ProviderError, TokenUsage

_MTOK: Final = Decimal(1_000_000)
# A token is at least one byte of the text, so bytes bound what is counted; a provider's own words
# around a request, such as those that explain a schema, stay far below 2,000 tokens.
_FRAME_TOKENS: Final = 2_000
# English with many figures has 2.5 to 3.5 bytes a token, by model.
_BYTES_PER_TOKEN: Final = 2.5
# A decision with its reasons has some 300 tokens; thinking of a medium effort ten times that.
_PLAIN_REPLY_TOKENS, _THINKING_REPLY_TOKENS = 300, 3_000


@dataclass(frozen=True, slots=True)
class Prices:
    """Of a model, as of a day. `own` prices come from the settings: of input, cached input and
    output, US dollars a million tokens.
    """

    provider: str
    model: str
    as_of: date
    own: tuple[Decimal, Decimal, Decimal] | None = None

    def cost_usd(self, usage: TokenUsage) -> Decimal:
        if self.own is None:
            return _table_cost_usd(self, usage)
        plain, cached, output = self.own
        uncached = usage.input_tokens - usage.cached_input_tokens
        return (
            uncached * plain + usage.cached_input_tokens * cached + usage.output_tokens * output
        ) / _MTOK


class StudyEstimate(msgspec.Struct, frozen=True):
    """The cost of many calls: as expected for replies of usual length, and at most, if each reply
    fills its limit. Attempts that are repeated can add to either.
    """

    calls: int
    expected_usd: Decimal
    at_most_usd: Decimal


def model_prices(config: LlmConfig, model: ModelSettings, today: date) -> Prices:
    """Raises `ConfigurationError` if neither the settings nor the table have a price."""
    own = _own_prices(config)
    prices = Prices(model.provider, model.model, today, own)
    if own is None and not _in_table(prices):
        raise ConfigurationError(
            f"no price is known of {model.model} ({model.provider}): set llm.input_usd_per_mtok "
            "and llm.output_usd_per_mtok, to 0 if it runs on your own machine"
        )
    return prices


def _own_prices(config: LlmConfig) -> tuple[Decimal, Decimal, Decimal] | None:
    plain, output = config.input_usd_per_mtok, config.output_usd_per_mtok
    cached = config.cached_input_usd_per_mtok
    if plain is None and output is None and cached is None:
        return None
    if plain is None or output is None:
        raise ConfigurationError(
            "llm.input_usd_per_mtok and llm.output_usd_per_mtok belong together: set both"
        )
    cached = plain if cached is None else cached
    return Decimal(str(plain)), Decimal(str(cached)), Decimal(str(output))


def worst_case_usd(request: LlmRequest, prices: Prices) -> Decimal:
    """No attempt at this request costs more."""
    return prices.cost_usd(
        TokenUsage(
            input_tokens=_bytes(request) + _FRAME_TOKENS,
            # Writing all of it to the cache would be dearest.
            cache_write_tokens=_bytes(request) + _FRAME_TOKENS,
            output_tokens=request.max_output_tokens,
        )
    )


def settled_usd(request: LlmRequest, prices: Prices, end: LlmReply | ProviderError) -> Decimal:
    """What an ended call cost. What nobody knows, such as an attempt whose reply was lost, counts
    as its worst case.
    """
    unknown = end.unanswered
    paid = Decimal(0)
    if end.usage is not None:
        paid = prices.cost_usd(end.usage)
    elif isinstance(end, LlmReply):
        unknown += 1
    return paid + unknown * worst_case_usd(request, prices)


def estimate_study(
    requests: Iterable[LlmRequest], prices: Prices, *, thinks: bool
) -> StudyEstimate:
    """Of requests that each are made once."""
    calls, expected, at_most = 0, Decimal(0), Decimal(0)
    reply_tokens = _THINKING_REPLY_TOKENS if thinks else _PLAIN_REPLY_TOKENS
    for request in requests:
        calls += 1
        usage = TokenUsage(
            input_tokens=estimated_tokens(request),
            output_tokens=min(reply_tokens, request.max_output_tokens),
        )
        expected += prices.cost_usd(usage)
        at_most += worst_case_usd(request, prices)
    return StudyEstimate(calls, expected, at_most)


def estimated_tokens(request: LlmRequest) -> int:
    """Estimated tokens of a prompt and its schema, within a third where figures abound."""
    return round(_bytes(request) / _BYTES_PER_TOKEN)


def _bytes(request: LlmRequest) -> int:
    texts = [request.system, *(message.text for message in request.messages)]
    schema = 0 if request.schema is None else len(msgspec.json.encode(request.schema))
    return sum(len(text.encode()) for text in texts) + schema


def _in_table(prices: Prices) -> bool:
    if prices.provider == "openai-compatible":
        return False
    try:
        _table_cost_usd(prices, TokenUsage(input_tokens=1, output_tokens=1))
    except LookupError:
        return False
    except ImportError as error:
        raise without_extra(error) from error
    return True


def _table_cost_usd(prices: Prices, usage: TokenUsage) -> Decimal:
    from genai_prices import Usage, calc_price  # 0.2 s of import

    tokens = Usage(
        input_tokens=usage.input_tokens,
        cache_read_tokens=usage.cached_input_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        output_tokens=usage.output_tokens,
    )
    return calc_price(
        tokens,
        prices.model,
        provider_id=prices.provider,
        genai_request_timestamp=datetime.combine(prices.as_of, time(), UTC),
    ).total_price
