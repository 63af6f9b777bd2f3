"""Describes a market state in a sentence for a text model to embed.

A sentence mentions neither the symbol nor the date nor the price level, and leaves out unknown
facts. Words and numbers both come from the rounded value, so a sentence never contradicts itself,
and a query reads exactly like the same state at ingestion.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from math import isfinite
from typing import Final, Literal

import msgspec
import numpy as np

from llm_trader.arrays import Floats
from llm_trader.snapshot.table import SnapshotTable

Form = Literal["detailed", "compact"]

# Larger numbers carry no more meaning, and the limit keeps a sentence short.
_NUMBER_LIMIT: Final = 999.0

_ALGORITHM: Final = "sentence-1"


class Bands(msgspec.Struct, frozen=True, array_like=True):
    """Words for a number: `words[i]` from `limits[i - 1]` up to, not including, `limits[i]`."""

    limits: tuple[float, ...]
    words: tuple[str, ...]


class Fact(msgspec.Struct, frozen=True, array_like=True):
    """The value factor * field / over, rounded to `digits`, and its wording in both forms.

    In a wording, {0} is the number, {1} the number without its sign, {2} the word for it.
    """

    field: str
    over: str | None
    factor: float
    digits: int
    bands: Bands
    detailed: str
    compact: str


class Clause(msgspec.Struct, frozen=True, array_like=True):
    """Facts that follow a common opening."""

    facts: tuple[Fact, ...]
    detailed: str = ""
    compact: str = ""


_OSCILLATOR: Final = Bands(
    (15, 30, 40, 60, 70, 85),
    (
        *("extremely oversold", "oversold", "weak", "neutral"),
        *("strong", "overbought", "extremely overbought"),
    ),
)
_MACD: Final = Bands(
    (-0.5, -0.1, -0.01, 0.01, 0.1, 0.5),
    (
        *("far below zero", "below zero", "slightly below zero", "at zero"),
        *("slightly above zero", "above zero", "far above zero"),
    ),
)
_MOMENTUM: Final = Bands(
    (-0.2, -0.02, 0.02, 0.2), ("falling fast", "falling", "flat", "rising", "rising fast")
)
_TREND: Final = Bands(
    (0.97, 0.995, 1.005, 1.03), ("strongly down", "down", "sideways", "up", "strongly up")
)
_OPEN_INTEREST: Final = Bands(
    (-5, -1, 1, 5), ("falling sharply", "falling", "stable", "rising", "rising sharply")
)
_FUNDING: Final = Bands(
    (-0.02, -0.002, 0.002, 0.015, 0.04),
    (
        *("shorts pay heavily", "shorts pay", "balanced"),
        *("longs pay", "longs pay much", "longs pay heavily"),
    ),
)
_DIRECTION: Final = Bands((-0.005, 0.005), ("down", "unchanged", "up"))
_VOLATILITY: Final = Bands((1, 1.8, 3.5, 6), ("very low", "low", "moderate", "high", "extreme"))
_CHANGING: Final = Bands((0.25, 0.55), ("calming down", "steady", "picking up"))
_VOLUME: Final = Bands(
    (0.4, 0.8, 1.3, 2.5), ("very thin", "thin", "average", "heavy", "very heavy")
)


def _plain(field: str, digits: int, bands: Bands, detailed: str, compact: str) -> Fact:
    return Fact(field, None, 1, digits, bands, detailed, compact)


def _change(window: str) -> Fact:
    field = f"price_change_{window}"
    return _plain(field, 2, _DIRECTION, "{2} {1}% in " + window, "{2} {1}% " + window)


CLAUSES: Final = (
    Clause(
        (
            _plain("rsi_7", 1, _OSCILLATOR, "RSI(7) is {2} at {0}", "RSI7 {0} {2}"),
            _plain("rsi_14", 1, _OSCILLATOR, "RSI(14) is {2} at {0}", "RSI14 {0} {2}"),
        )
    ),
    Clause(
        (
            Fact("macd", "price", 100, 3, _MACD, "{2} at {0}% of price", "{0}% {2}"),
            _plain("macd_slope", 3, _MOMENTUM, "{2} at {0}% per hour", "{2}"),
        ),
        *("MACD is ", "MACD "),
    ),
    Clause(
        (_plain("ema_ratio", 3, _TREND, "{2} with 4h EMA20/EMA50 at {0}", "{2} {0}"),),
        *("Trend is ", "trend "),
    ),
    Clause(
        (_plain("oi_delta_pct", 1, _OPEN_INTEREST, "{2} at {0}% from its mean", "{2} {0}%"),),
        *("Open interest is ", "OI "),
    ),
    Clause(
        # In % per 8 hours, whatever the interval.
        (
            Fact(
                *("funding_rate", "funding_interval_hours", 800, 4, _FUNDING),
                *("{0}%, {2}", "{0}% {2}"),
            ),
        ),
        *("Funding is ", "funding "),
    ),
    Clause(
        (
            _plain("realized_volatility_24h", 1, _VOLATILITY, "{2} at {0}% over 24h", "{2} {0}%"),
            Fact(
                *("realized_volatility_4h", "realized_volatility_24h", 1, 2, _CHANGING),
                *("{2} in the last 4h", "{2}"),
            ),
        ),
        *("Volatility is ", "volatility "),
    ),
    Clause((_change("1h"), _change("4h"), _change("24h")), *("Price is ", "price ")),
    Clause(
        (_plain("volume_ratio", 1, _VOLUME, "{2} at {0} times its mean", "{2} {0}x"),),
        *("Volume is ", "volume "),
    ),
)

FACTS: Final = tuple(fact for clause in CLAUSES for fact in clause.facts)

# Part of the id of a text space: it changes with every word, limit and digit.
_TEMPLATE: Final = msgspec.json.encode([_ALGORITHM, _NUMBER_LIMIT, CLAUSES])
TEMPLATE_VERSION: Final = f"words-{hashlib.sha256(_TEMPLATE).hexdigest()[:12]}"


def sentences(table: SnapshotTable, form: Form) -> list[str]:
    """One sentence per row; it is empty if no fact is known."""
    between, end = ("; ", "") if form == "compact" else (". ", ".")
    with np.errstate(all="ignore"):
        clauses = [_word_clause(table, clause, form) for clause in CLAUSES]
    texts = (between.join(filter(None, row)) for row in zip(*clauses, strict=True))
    return [text and text + end for text in texts]


def unknown_fields(table: SnapshotTable) -> list[str]:
    """The unknown fields that the sentence of a one-row table leaves out."""
    with np.errstate(all="ignore"):
        return [fact.field for fact in FACTS if not isfinite(_values(table, fact)[0])]


def _word_clause(table: SnapshotTable, clause: Clause, form: Form) -> list[str]:
    """The wording of a clause for every row, empty if none of its facts is known."""
    opening = getattr(clause, form)
    phrases, *others = [_word_fact(table, fact, form) for fact in clause.facts]
    if others:
        phrases = [", ".join(filter(None, row)) for row in zip(phrases, *others, strict=True)]
    return [phrase and opening + phrase for phrase in phrases]


def _word_fact(table: SnapshotTable, fact: Fact, form: Form) -> list[str]:
    """The wording of a fact for every row, empty if it is unknown."""
    wording, bands, decimals = getattr(fact, form), fact.bands, f".{fact.digits}f"
    texts = []
    for value in _values(table, fact).tolist():
        if not isfinite(value):
            texts.append("")
            continue
        number = format(min(max(value, -_NUMBER_LIMIT), _NUMBER_LIMIT), decimals)
        rounded = float(number)
        if rounded == 0:  # "-0.0" would contradict its word
            number = number.removeprefix("-")
        word = bands.words[bisect_right(bands.limits, rounded)]
        texts.append(wording.format(number, number.removeprefix("-"), word))
    return texts


def _values(table: SnapshotTable, fact: Fact) -> Floats:
    """The values of a fact, shape (n,); unknown ones are not finite."""
    values: Floats = table.column(fact.field) * fact.factor
    return values if fact.over is None else values / table.column(fact.over)
