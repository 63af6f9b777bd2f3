"""Every error this package raises on purpose.

Each class says what the caller should do, and carries a stable `code` for logs and for the wire.

    LlmTraderError
    ├── ConfigurationError        fix the set-up: a setting, a path, a flag
    │   └── StoreLockedError      wait for, or stop, the process that is writing
    ├── InvalidInputError         fix the request or the argument
    │   └── SymbolNotFoundError   ask for an available symbol
    ├── InvalidDataError          drop or repair the records; nothing was written
    ├── StoreError                repair or create the store: it is damaged, missing, or too new
    ├── ExchangeError             run again later: the exchange does not answer, or refuses
    ├── ArchiveError              try again later: an archive of files does not answer
    ├── BudgetError               raise the budget, or wait for the next day
    ├── StaleDataError            collect newer data, or ask about an earlier time
    ├── InsufficientMatchesError  widen the query; too few past states look like this one
    ├── EmbeddingError            send more fields; this state cannot become a vector
    └── VectorIndexError          repair, rebuild, or reconnect the index
        ├── OutdatedIndexError    rebuild the index: another version of this program wrote it
        └── DamagedIndexError     rebuild the index: its file is not what was written
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from traceback import walk_tb
from typing import Any, ClassVar

# Longer than any name or path that a person chose; the longest message lists some 50 settings.
_LONGEST_WORD, _LONGEST_TEXT = 1000, 16_000
_SHOWN_OF_WORD = 100


def printable(text: str) -> str:
    """Text for a terminal or a log: no control characters but line ends, no endless words."""
    if len(text) > _LONGEST_WORD:
        if len(text) > _LONGEST_TEXT:
            text = f"{text[:_LONGEST_TEXT]}… ({len(text)} characters)"
        text = re.sub(rf"\S{{{_LONGEST_WORD},}}", _shortened, text)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def _shortened(word: re.Match[str]) -> str:
    return f"{word[0][:_SHOWN_OF_WORD]}… ({len(word[0])} characters)"


class LlmTraderError(Exception):
    """Base of all errors raised on purpose. `details` is plain data, safe to log and to send."""

    code: ClassVar[str] = "error"

    def __init__(self, message: str, **details: Any) -> None:
        message = printable(message)
        super().__init__(message)
        self.message = message
        self.details: dict[str, Any] = details


class ConfigurationError(LlmTraderError):
    code = "configuration"


class StoreLockedError(ConfigurationError):
    code = "store_locked"


class InvalidInputError(LlmTraderError):
    code = "invalid_input"


class SymbolNotFoundError(InvalidInputError):
    code = "symbol_not_found"

    def __init__(self, symbol: str, available: list[str]) -> None:
        listed = ", ".join(available) if available else "none"
        super().__init__(f"no data for symbol {symbol!r}; available: {listed}", available=available)


class InvalidDataError(LlmTraderError):
    """Records were refused. `reasons` counts the refused records by reason, each record once.

    `places` says where each reason first applies, and `first_rows` says it as a row number, from 0.
    """

    code = "invalid_data"

    def __init__(
        self,
        records: str,
        reasons: Mapping[str, int],
        *,
        places: Mapping[str, str] | None = None,
        first_rows: Mapping[str, int] | None = None,
        remedy: str = "",
    ) -> None:
        where = {reason: f" ({place})" for reason, place in (places or {}).items()}
        listed = ", ".join(
            f"{n} × {reason}{where.get(reason, '')}" for reason, n in reasons.items()
        )
        details: dict[str, Any] = {"reasons": dict(reasons)}
        if places:
            details["places"] = dict(places)
        ending = f"; {remedy}" if remedy else ""
        super().__init__(f"{records}: refused, {listed}{ending}", **details)
        self.reasons = dict(reasons)
        self.first_rows = dict(first_rows or {})


class StoreError(LlmTraderError):
    code = "store"


class ExchangeError(LlmTraderError):
    code = "exchange"


class ArchiveError(LlmTraderError):
    code = "archive"


class BudgetError(LlmTraderError):
    code = "budget"


class StaleDataError(LlmTraderError):
    code = "stale_data"


class InsufficientMatchesError(LlmTraderError):
    code = "insufficient_matches"

    def __init__(self, matches: int, required: int, suggestion: str) -> None:
        details = {"matches_found": matches, "min_required": required, "suggestion": suggestion}
        super().__init__(f"{matches} similar past states found, {required} required", **details)


class EmbeddingError(LlmTraderError):
    code = "embedding"


class VectorIndexError(LlmTraderError):
    code = "vector_index"


class OutdatedIndexError(VectorIndexError):
    """Another version of this program wrote the index, with points that this one cannot read."""

    code = "outdated_index"


class DamagedIndexError(VectorIndexError):
    """The index differs from what was written, so it is not answered from."""

    code = "damaged_index"


def raised_inside(error: Exception, packages: tuple[str, ...]) -> bool:
    """Whether one of the packages raised a foreign error, or called what raised it.

    FastEmbed, ONNX Runtime, tokenizers and the clients of Redis and Qdrant share no class of
    errors, and raise plain ValueError, AttributeError or Exception on damaged files and replies. A
    class cannot tell their failures from bugs of this package, but the traceback can: these
    libraries never call back into this package.
    """
    modules = [frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__)]
    modules.append(type(error).__module__)
    return any(module.partition(".")[0] in packages for module in modules)
