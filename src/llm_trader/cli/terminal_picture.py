"""A small fan of an answer, and the paths after its matches, as wide as the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from llm_trader.cli.fan import STEPS, Fan, fan_of
from llm_trader.cli.output import minute, number, price_text

if TYPE_CHECKING:
    from llm_trader.app.answer_series import AnswerSeries
    from llm_trader.app.queries import Reply
    from llm_trader.retrieval.answer import Match

_ROWS: Final = 11
_WIDEST: Final = 120
_NARROWEST: Final = 40
# Columns of the prices at the right edge.
_LABEL: Final = 12
_HEIGHTS: Final = "▁▂▃▄▅▆▇█"
# Price, middle, 5 of 10, 8 of 10: for terminals of Unicode, and for others.
_MARKS: Final = ("●", "─", "▒", "░")
_PLAIN_MARKS: Final = ("*", "-", "=", ".")
_PLAIN_HEIGHTS: Final = "_.-=^"
_STYLES: Final = ("bold", "bold blue", "blue", "bright_blue")


@dataclass(frozen=True)
class TerminalPicture:
    price: float
    fan: Fan
    series: AnswerSeries
    matches: Sequence[Match]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(options.max_width, _WIDEST)
        if width < _NARROWEST:
            return
        is_unicode = options.encoding.lower().startswith("utf")
        yield from self._chart(width, _MARKS if is_unicode else _PLAIN_MARKS)
        yield from self._paths(width, _HEIGHTS if is_unicode else _PLAIN_HEIGHTS)

    def _chart(self, width: int, marks: tuple[str, ...]) -> RenderResult:
        past = width // 2 - _LABEL // 2
        closes = [candle.close for candle in self.series.candles[-STEPS:]]
        before = _sampled(closes, past) if closes else []
        bands = [
            tuple(self._prices(curve, width - past - _LABEL) for curve in band)
            for band in ((self.fan.middle, self.fan.middle), self.fan.inner, self.fan.outer)
        ]
        # Of all values, so that the labels are the same at every width.
        ends = [self._priced(change) for curve in self.fan.outer for change in curve] + closes
        scale = _Scale(min(ends), max(ends))
        title = f"The last and the next 24 hours: {marks[2]} 5 of 10, {marks[3]} 8 of 10"
        yield Text(title, "bold")
        labels = {scale.row(price): price for price in (self.price, *scale)}
        for row in range(_ROWS):
            line = Text(" " * (past - len(before)))
            for close in before:
                line.append(marks[0] if scale.row(close) == row else " ", _STYLES[0])
            for column in range(width - past - _LABEL):
                kind = _kind(row, scale, [(low[column], high[column]) for low, high in bands])
                line.append(marks[kind] if kind else " ", _STYLES[kind] if kind else "")
            if row in labels:
                line.append(f" {price_text(labels[row]):>{_LABEL - 1}}")
            line.rstrip()
            yield line

    def _prices(self, curve: Sequence[float], width: int) -> list[float]:
        return [self._priced(change) for change in _sampled(curve, width)]

    def _priced(self, change_pct: float) -> float:
        return self.price * (1 + change_pct / 100)

    def _paths(self, width: int, heights: str) -> RenderResult:
        room = min(width - 28, 96)
        if not self.series.paths or room < 8:
            return
        yield Text("After the matches, 24 hours each", "bold")
        for match, path in zip(self.matches, self.series.paths, strict=False):
            change = number(match.outcomes.outcome_24h, "+.2f")
            yield Text(f"{minute(match.date):16}  {sparkline(path, room, heights)}  {change} %")


class _Scale(NamedTuple):
    """Prices to rows, from the top."""

    low: float
    high: float

    def row(self, price: float) -> int:
        share = (self.high - price) / (self.high - self.low) if self.high > self.low else 0.5
        return min(max(round(share * (_ROWS - 1)), 0), _ROWS - 1)


def _kind(row: int, scale: _Scale, bands: Sequence[tuple[float, float]]) -> int:
    """The innermost band that a row is in, counted from 1; 0 for none."""
    inside = (scale.row(high) <= row <= scale.row(low) for low, high in bands)
    return next((kind for kind, is_in in enumerate(inside, 1) if is_in), 0)


def terminal_picture(reply: Reply) -> TerminalPicture | None:
    """None without a forecast or a price."""
    fan, price = fan_of(reply.answer.evidence), reply.state.get("price")
    if fan is None or price is None or reply.series is None:
        return None
    return TerminalPicture(float(price), fan, reply.series, reply.answer.matches)


def sparkline(values: Sequence[float], width: int, heights: str = _HEIGHTS) -> str:
    """The values from their lowest to their highest; a blank where one is unknown."""
    points = _sampled(values, min(width, len(values)))
    known = [value for value in points if math.isfinite(value)]
    if not known:
        return " " * len(points)
    low, span = min(known), max(known) - min(known)
    last = len(heights) - 1
    return "".join(
        (
            heights[round((value - low) / span * last) if span else 0]
            if math.isfinite(value)
            else " "
        )
        for value in points
    )


def _sampled(values: Sequence[float], width: int) -> list[float]:
    """`width` of the values at equal distances, the first and the last among them."""
    last = len(values) - 1
    return [values[round(position * last / max(width - 1, 1))] for position in range(width)]
