"""An answer as an SVG: candles, the fan of the forecast, and the paths after its matches."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape

from llm_trader.app.answer_series import AnswerSeries
from llm_trader.cli.fan import STEP_MS, STEPS, Fan, fan_of
from llm_trader.cli.output import price_text
from llm_trader.cli.show_answer import verdict_sentence
from llm_trader.errors import InvalidInputError
from llm_trader.timeframe import HOUR_MS, Millis, iso8601

if TYPE_CHECKING:
    from llm_trader.app.queries import Reply

WIDTH: Final = 1100
HEIGHT: Final = 640
_LEFT, _RIGHT, _TOP, _BOTTOM = 20, 1010, 92, 560
_LABEL_EVERY_MS: Final = 6 * HOUR_MS
_TICKS: Final = 6
_WRAPPED: Final = 135
_UP, _DOWN, _BLUE, _GREY, _PATH = "#0b7a5c", "#c02445", "#2563eb", "#6e7887", "#b45309"
_TEXT: Final = "#16202c"


class _Frame:
    """Where times and prices are on the picture."""

    def __init__(self, start_ms: Millis, end_ms: Millis, low: float, high: float) -> None:
        margin = (high - low) * 0.04 or high * 0.01
        self.start_ms, self.end_ms = start_ms, end_ms
        self.low, self.high = low - margin, high + margin

    def x(self, time_ms: float) -> float:
        share = (time_ms - self.start_ms) / (self.end_ms - self.start_ms)
        return _LEFT + share * (_RIGHT - _LEFT)

    def y(self, price: float) -> float:
        return _BOTTOM - (price - self.low) / (self.high - self.low) * (_BOTTOM - _TOP)


def answer_svg(reply: Reply) -> str:
    """Raises `InvalidInputError` for an answer without a forecast or a price."""
    fan, price = fan_of(reply.answer.evidence), reply.state.get("price")
    if fan is None or price is None:
        raise InvalidInputError(
            "there is nothing to draw: the answer has no forecast, because the expected "
            "volatility is unknown; its warnings say why"
        )
    series = reply.series or AnswerSeries([], [])
    now_ms = reply.answer.metadata.state_as_of
    frame = _frame(fan, float(price), series, now_ms)
    parts = [
        *_grid(frame),
        *_fan(frame, fan, float(price), now_ms),
        *_paths(frame, series, float(price), now_ms),
        *_candles(frame, series),
        *_words(reply),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" font-family="DejaVu Sans, Arial, sans-serif" '
        f'font-size="12" role="img"><title>{escape(verdict_sentence(reply))}</title>'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def _frame(fan: Fan, price: float, series: AnswerSeries, now_ms: Millis) -> _Frame:
    start_ms = series.candles[0].open_time_ms if series.candles else now_ms - HOUR_MS
    changes = [*fan.outer[0], *fan.outer[1], *fan.usual[0], *fan.usual[1]]
    changes += [change for path in series.paths for change in path if math.isfinite(change)]
    prices = [price * (1 + change / 100) for change in changes]
    prices += [end for candle in series.candles for end in (candle.low, candle.high)]
    return _Frame(start_ms, now_ms + STEPS * STEP_MS, min(prices), max(prices))


def _grid(frame: _Frame) -> Iterator[str]:
    rough = (frame.high - frame.low) / _TICKS
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
    for tick in range(math.ceil(frame.low / step), math.floor(frame.high / step) + 1):
        y = frame.y(tick * step)
        yield f'<path d="M{_LEFT} {y:.1f}H{_RIGHT}" stroke="#e8ecf1"/>'
        yield _text(_RIGHT + 6, y + 4, price_text(tick * step), _GREY)
    first_ms = -(-frame.start_ms // _LABEL_EVERY_MS) * _LABEL_EVERY_MS
    for time_ms in range(first_ms, frame.end_ms + 1, _LABEL_EVERY_MS):
        x, stamp = frame.x(time_ms), iso8601(time_ms)
        yield f'<path d="M{x:.1f} {_TOP}V{_BOTTOM}" stroke="#e8ecf1"/>'
        label = stamp[5:10] if stamp[11:16] == "00:00" else stamp[11:16]
        yield _text(x, _BOTTOM + 17, label, _GREY, "middle")


def _fan(frame: _Frame, fan: Fan, price: float, now_ms: Millis) -> Iterator[str]:
    def points(curve: Sequence[float]) -> list[tuple[float, float]]:
        return [
            (frame.x(now_ms + step * STEP_MS), frame.y(price * (1 + change / 100)))
            for step, change in enumerate(curve)
        ]

    for (low, high), colour, opacity in (
        (fan.usual, _GREY, 0.14),
        (fan.outer, _BLUE, 0.2),
        (fan.inner, _BLUE, 0.28),
    ):
        outline = [*points(high), *reversed(points(low))]
        yield f'<path d="{_line(outline)}Z" fill="{colour}" fill-opacity="{opacity}"/>'
    for curve in fan.usual:
        yield _stroke(points(curve), _GREY, dash="5 4")
    for sign in (1, -1):
        yield _stroke(points([sign * move for move in fan.move]), _BLUE, dash="1 3")
    yield _stroke(points(fan.middle), _BLUE, width=2)
    x = frame.x(now_ms)
    yield f'<path d="M{x:.1f} {_TOP}V{_BOTTOM}" stroke="{_GREY}" stroke-dasharray="2 3"/>'


def _paths(frame: _Frame, series: AnswerSeries, price: float, now_ms: Millis) -> Iterator[str]:
    for path in series.paths:
        points = [
            (frame.x(now_ms + step * STEP_MS), frame.y(price * (1 + change / 100)))
            for step, change in enumerate(path)
            if math.isfinite(change)
        ]
        if len(points) > 1:
            yield _stroke(points, _PATH, opacity=0.7)


def _candles(frame: _Frame, series: AnswerSeries) -> Iterator[str]:
    width = max(frame.x(frame.start_ms + STEP_MS) - frame.x(frame.start_ms) - 1, 0.8)
    for candle in series.candles:
        x = frame.x(candle.open_time_ms + STEP_MS / 2)
        colour = _UP if candle.close >= candle.open else _DOWN
        ends = frame.y(candle.open), frame.y(candle.close)
        yield (
            f'<path d="M{x:.1f} {frame.y(candle.high):.1f}V{frame.y(candle.low):.1f}" '
            f'stroke="{colour}"/><rect x="{x - width / 2:.1f}" y="{min(ends):.1f}" '
            f'width="{width:.1f}" height="{max(abs(ends[0] - ends[1]), 0.8):.1f}" fill="{colour}"/>'
        )


def _words(reply: Reply) -> Iterator[str]:
    for row, text in enumerate(textwrap.wrap(verdict_sentence(reply), _WRAPPED)[:4]):
        yield _text(_LEFT, 24 + 17 * row, text, _TEXT, size=14)
    calibrated = ", calibrated" if reply.answer.evidence.calibrated else ""
    legend = (
        (_BLUE, f"blue: 8 and 5 of 10 outcomes{calibrated}, and the middle"),
        (_BLUE, "dotted: expected move"),
        (_GREY, "grey: usual range"),
        (_PATH, "brown: paths after the matches, in %"),
    )
    x = float(_LEFT)
    for colour, text in legend:
        yield _text(x, _BOTTOM + 42, text, colour)
        x += 7.2 * len(text) + 20
    metadata = reply.answer.metadata
    source = f"{reply.symbol} as of {iso8601(metadata.as_of)}; {metadata.collection}; times are UTC"
    yield _text(_LEFT, _BOTTOM + 62, source, _GREY)


def _text(x: float, y: float, text: str, colour: str, anchor: str = "start", size: int = 12) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}" '
        f'font-size="{size}">{escape(text)}</text>'
    )


def _stroke(
    points: Iterable[tuple[float, float]],
    colour: str,
    *,
    width: float = 1,
    dash: str = "none",
    opacity: float = 1,
) -> str:
    return (
        f'<path d="{_line(points)}" fill="none" stroke="{colour}" stroke-width="{width}" '
        f'stroke-dasharray="{dash}" stroke-opacity="{opacity}"/>'
    )


def _line(points: Iterable[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
