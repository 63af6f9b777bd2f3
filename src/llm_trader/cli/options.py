"""Options that several commands share, and the parsing of their values."""

from __future__ import annotations

import time
from typing import Annotated

from typer import Option

from llm_trader.timeframe import Millis

_SYMBOLS_HELP = "Symbols, separated by commas; all of the {} by default."

StoreSymbols = Annotated[str, Option(help=_SYMBOLS_HELP.format("store"))]
IndexSymbols = Annotated[str, Option(help=_SYMBOLS_HELP.format("index"))]
Start = Annotated[
    str, Option("--start", "-s", help="First time: a number of days ago, or RFC 3339.")
]
End = Annotated[str, Option("--end", "-e", help="Last time: now, or RFC 3339.")]
Samples = Annotated[int, Option(min=1, help="Number of sampled queries.")]
Seed = Annotated[int, Option(help="Equal seeds give equal results.")]


def symbol_list(text: str) -> list[str]:
    return [symbol.strip().upper() for symbol in text.split(",") if symbol.strip()]


def now_ms() -> Millis:
    """The present time; commands read the clock only here."""
    return int(time.time() * 1000)
