"""Writes down the forecasts of a server, each before its reply is sent.

An answer whose numbers stand in the journal already, as busy clients ask the same again, has a line
that names the first. A write that fails loses the line and stops no answer.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, NamedTuple

import msgspec

from llm_trader.forecasts.config import ForecastsConfig
from llm_trader.forecasts.numbers import (
    QUARTER_HOUR_MS,
    HorizonNumbers,
    is_live,
    numbers_of,
    with_references,
)
from llm_trader.forecasts.scoring import ForecastScores
from llm_trader.retrieval.answer import Answer
from llm_trader.storage.chain.lines import ChainKind, ChainLine
from llm_trader.storage.chain.writer import ChainWriter
from llm_trader.timeframe import Millis

# Some 4 KB each. Of more symbols in a quarter-hour, repeated answers have whole lines.
_MOST_REMEMBERED: Final = 1000


class ForecastLine(ChainLine, omit_defaults=True, kw_only=True):
    """A forecast about the state of `symbol` at `as_of_ms`, made at `at_ms`.

    `same_as` is the line of this chain that has its numbers; it has none itself then.
    """

    event: Literal["forecast", "opened", "gap", "closed"]
    symbol: str | None = None
    as_of_ms: Millis | None = None
    request_id: str | None = None
    verdict: str | None = None
    calibration: str | None = None
    horizons: dict[str, HorizonNumbers] = msgspec.field(default_factory=dict)
    same_as: int | None = None

    def add_to(self, scores: ForecastScores) -> None:
        if self.symbol is not None and self.as_of_ms is not None:
            scores.add(self.symbol, self.as_of_ms, self.horizons, self.at_ms)


FORECASTS: Final = ChainKind(
    "forecasts", ForecastLine, words="forecast journal", setting="forecasts.folder"
)


class _Written(NamedTuple):
    """`numbers` are without references, which only the first line has."""

    as_of_ms: Millis
    seq: int
    numbers: dict[str, HorizonNumbers]


class ForecastJournal:
    """Open until `close`. `lost` counts the forecasts that could not be written."""

    def __init__(
        self,
        folder: Path,
        *,
        now_ms: Callable[[], Millis],
        config: ForecastsConfig | None = None,
    ) -> None:
        self._chain = ChainWriter(
            FORECASTS,
            folder,
            config or ForecastsConfig(),
            now_ms=now_ms,
            effect="forecasts are served without a line; the next line has their number",
        )
        self._now_ms = now_ms
        self._written: dict[tuple[str, int], _Written] = {}
        self.close = self._chain.close

    @property
    def lost(self) -> int:
        return self._chain.lost

    def wants_references(self, symbol: str, as_of_ms: Millis) -> bool:
        """Whether a forecast about this state would be the first of its quarter-hour: no other is
        scored.
        """
        key = symbol, as_of_ms // QUARTER_HOUR_MS
        return key not in self._written and is_live(as_of_ms, self._now_ms())

    def record(self, symbol: str, as_of_ms: Millis, answer: Answer, request_id: str) -> None:
        """Writes the forecasts of an answer about the present, whose state is of `as_of_ms`."""
        if not is_live(as_of_ms, self._now_ms()):
            return
        numbers = numbers_of(answer)
        if not numbers:
            return
        key = symbol, as_of_ms // QUARTER_HOUR_MS
        first = self._written.get(key)
        is_repeat = first is not None and first.numbers == numbers
        seq = self._chain.write(
            "forecast",
            symbol=symbol,
            as_of_ms=as_of_ms,
            request_id=request_id,
            verdict=answer.evidence.verdict,
            calibration=answer.calibration.digest if answer.calibration else None,
            horizons={} if is_repeat else with_references(numbers, answer),
            same_as=first.seq if first is not None and is_repeat else None,
        )
        if first is None and seq is not None:
            self._remember(key, _Written(as_of_ms, seq, numbers))

    def _remember(self, key: tuple[str, int], written: _Written) -> None:
        if len(self._written) >= _MOST_REMEMBERED:
            oldest_ms = written.as_of_ms - QUARTER_HOUR_MS
            self._written = {k: w for k, w in self._written.items() if w.as_of_ms > oldest_ms}
        if len(self._written) < _MOST_REMEMBERED:
            self._written[key] = written
