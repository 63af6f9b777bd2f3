"""How numbers and foreign words are written in a prompt.

Another language must write them byte for byte alike, so nothing here depends on a locale or on the
rounding of a library; docs/prompts.md has the rules.
"""

from __future__ import annotations

import re
from decimal import ROUND_HALF_UP, Context, Decimal
from math import isfinite
from typing import Final

UNKNOWN: Final = "n/a"

# From here on a number means nothing in a prompt, and could make it endless.
_TOO_LARGE: Final = 1e15
# Exact for every number below that, with up to 12 decimals.
_EXACT: Final = Context(prec=60, rounding=ROUND_HALF_UP)

# The smallest price that is written with so many decimals, by decimals: 5 digits from 1e-8 on.
_PRICE_FLOORS: Final = (1e4, 1e3, 1e2, 1e1, 1e0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
_MOST_PRICE_DECIMALS: Final = len(_PRICE_FLOORS)

# Printable ASCII without what could end a quotation or look like a tag or a fence.
_FOREIGN: Final = re.compile(r"[^ !#$%&'()*+,\-./0-9:;=?@A-Z\[\]^_a-z{|}~]")


def fixed(value: float | None, decimals: int) -> str:
    """Rounded half away from zero, without a sign at zero; `n/a` where unknown."""
    if value is None or not isfinite(value) or abs(value) >= _TOO_LARGE:
        return UNKNOWN
    # The exact binary value is rounded, as JavaScript's toFixed does. Python differs at ties only,
    # which are whole multiples of 2**-(decimals + 1); `Decimal` takes several times as long.
    if value * 2.0 ** (decimals + 1) % 1:
        text = f"{value:.{decimals}f}"
        return text if text[0] != "-" or text.strip("-0.") else text[1:]
    rounded = Decimal(value).quantize(Decimal(1).scaleb(-decimals), context=_EXACT)
    return format(rounded if rounded else abs(rounded), "f")


def signed(value: float | None, decimals: int) -> str:
    """The same with a plus sign above zero."""
    text = fixed(value, decimals)
    return text if text == UNKNOWN or not text.strip("-0.") or text[0] == "-" else f"+{text}"


def percent(number: str) -> str:
    """A written number with a percent sign, if it is known."""
    return number if number == UNKNOWN else f"{number}%"


def price_decimals(price: float | None) -> int:
    """The decimals that show five digits of a price; those of 1 where it is unknown."""
    if price is None or not isfinite(price):
        price = 1.0
    for decimals, floor in enumerate(_PRICE_FLOORS):
        if price >= floor:
            return decimals
    return _MOST_PRICE_DECIMALS


def quoted(text: str, most_characters: int) -> str:
    """Foreign text in double quotes, bounded; what could leave the quotes becomes `?`.

    Characters count as code points.
    """
    cut = text if len(text) <= most_characters else f"{text[:most_characters]}..."
    return f'"{_FOREIGN.sub("?", cut)}"'
