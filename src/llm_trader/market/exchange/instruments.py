"""The perpetual contracts of a venue, and finding one however its symbol is written."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from llm_trader.errors import InvalidInputError
from llm_trader.timeframe import Millis, Timeframe


class Instrument(NamedTuple):
    """`symbol` is the venue's name, and that in the store.

    `listed_ms` and `ended_ms` are None where the venue does not say when trading began, or it goes
    on. Funding is settled at `funding_interval` now; it may have been another.
    """

    symbol: str
    base: str
    quote: str
    settle: str
    listed_ms: Millis | None
    ended_ms: Millis | None
    funding_interval: Timeframe

    def spellings(self) -> set[str]:
        pair = f"{self.base}/{self.quote}"
        return {self.symbol, f"{pair}:{self.settle}", pair}


def find_instruments(
    names: Iterable[str], instruments: Sequence[Instrument], venue: str
) -> list[Instrument]:
    """The instruments of some names, each once: `BTCUSDT`, `BTC/USDT:USDT` or `BTC-USDT`.

    Raises `InvalidInputError` with the nearest names where there is none.
    """
    known = {name: item for item in instruments for name in item.spellings()}
    # Where a name is of two contracts, the venue's own symbol has precedence.
    known |= {item.symbol: item for item in instruments}
    found: dict[str, Instrument] = {}
    unknown: list[str] = []
    for name in names:
        instrument = known.get(_plain(name))
        if instrument is None:
            unknown.append(name)
        else:
            found[instrument.symbol] = instrument
    if unknown:
        raise InvalidInputError(_refusal(unknown, instruments, venue))
    return list(found.values())


def _plain(name: str) -> str:
    return re.sub("[-_]", "/", name.strip().upper())


def _refusal(unknown: Sequence[str], instruments: Sequence[Instrument], venue: str) -> str:
    symbols = sorted(item.symbol for item in instruments)
    parts = []
    for name in unknown:
        plain = re.sub("[/]", "", _plain(name).partition(":")[0])
        near = difflib.get_close_matches(plain, symbols, n=3, cutoff=0.6)
        parts.append(f"{name!r}" + (f" (near are {', '.join(near)})" if near else ""))
    return (
        f"{venue} lists no perpetual contract {', '.join(parts)}; "
        "write symbols like BTCUSDT, BTC-USDT or BTC/USDT:USDT"
    )
