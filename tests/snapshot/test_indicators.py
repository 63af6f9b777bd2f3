"""Indicators against the textbook's definitions, computed in plain Python."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.arrays import Floats
from llm_trader.market.candles import CandleSeries
from llm_trader.market.history import MarketHistory
from llm_trader.market.resampling import resample
from llm_trader.snapshot.builder import build_snapshots
from llm_trader.snapshot.model import MarketSnapshot
from llm_trader.timeframe import DAY_MS, H4, HOUR_MS, M3, M5, M15, Millis, Timeframe
from tests.market.builders import START_MS
from tests.snapshot import textbook
from tests.snapshot.histories import BYBIT_2025, between, grid, real, simulated

TIMEFRAMES = pytest.mark.parametrize("timeframe", [M3, M5], ids=str)


def young(timeframe: Timeframe, intraday_hours: int, four_hour_days: int) -> MarketHistory:
    """A market of which little is stored: every recursion begins at its first candle."""
    history = simulated(26, timeframe)
    end = START_MS + 26 * DAY_MS
    return replace(
        history,
        intraday=history.intraday.between(end - intraday_hours * HOUR_MS, end),
        four_hour=history.four_hour.between(end - four_hour_days * DAY_MS, end),
    )


def known_then(candles: CandleSeries, as_of_ms: Millis) -> dict[str, list[float]]:
    closed = candles.open_time_ms + candles.timeframe.ms <= as_of_ms
    return {name: values[closed].tolist() for name, values in candles.columns()}


def expected(history: MarketHistory, as_of_ms: Millis) -> dict[str, float | list[float]]:
    """Every field of a snapshot that can be told from candles, by the definitions."""
    fine = known_then(history.intraday, as_of_ms)
    coarse = known_then(history.four_hour, as_of_ms)
    closes, volumes = fine["close"], fine["volume"]
    closes_4h, volumes_4h = coarse["close"], coarse["volume"]
    ranges = coarse["high"], coarse["low"], closes_4h
    found: dict[str, float | list[float]] = {
        "price": closes[-1],
        "ema_50_4h": textbook.ema(closes_4h, 50)[-1],
        "ema_20_4h": textbook.ema(closes_4h, 20)[-1],
        "atr_3_4h": textbook.atr(*ranges, 3)[-1],
        "atr_14_4h": textbook.atr(*ranges, 14)[-1],
        "macd_4h": textbook.macd(closes_4h)[-1],
        "rsi_14_4h": textbook.rsi(closes_4h, 14)[-1],
        "current_volume_4h": volumes_4h[-1],
        "avg_volume_4h": fmean(volumes_4h[-20:]),
        "mid_prices": closes[-10:],
        "macd_4h_values": textbook.macd(closes_4h)[-10:],
        "rsi_14_4h_values": textbook.rsi(closes_4h, 14)[-10:],
    }
    for name, values in (
        ("rsi_7", textbook.rsi(closes, 7)),
        ("rsi_14", textbook.rsi(closes, 14)),
        ("macd", textbook.macd(closes)),
        ("ema_20", textbook.ema(closes, 20)),
    ):
        found[name], found[f"{name}_values"] = values[-1], values[-10:]
    for hours in (1, 4, 24):
        count = hours * HOUR_MS // history.intraday.timeframe.ms
        window = closes[-count - 1 :]
        moves = [math.log(b / a) for a, b in pairwise(window)]
        assert len(moves) == count
        found[f"price_change_{hours}h"] = (window[-1] - window[0]) / window[0] * 100
        found[f"realized_volatility_{hours}h"] = math.sqrt(sum(m * m for m in moves)) * 100
    hour = HOUR_MS // history.intraday.timeframe.ms
    found["volume_ratio"] = sum(volumes[-hour:]) / (sum(volumes[-24 * hour :]) / 24)
    return found


def check(snapshot: MarketSnapshot, truth: dict[str, float | list[float]], rel: float) -> None:
    """`rel` is for quote currency and of the price; RSI may differ by `100 * rel`."""
    assert snapshot.price is not None
    for name, value in truth.items():
        size = 100 if "rsi" in name else snapshot.price
        assert getattr(snapshot, name) == pytest.approx(value, rel=rel, abs=rel * size), name


@TIMEFRAMES
@pytest.mark.parametrize("hours_before_the_end", [0, 0.25, 3, 5])
def test_every_indicator_is_the_textbooks_from_the_first_warm_candle_on(
    timeframe: Timeframe, hours_before_the_end: float
) -> None:
    history = young(timeframe, intraday_hours=31, four_hour_days=21)
    as_of_ms = START_MS + 26 * DAY_MS - round(hours_before_the_end * HOUR_MS)

    snapshot = build_snapshots(history, np.array([as_of_ms])).snapshot(0)

    check(snapshot, expected(history, as_of_ms), rel=1e-11)


@TIMEFRAMES
def test_a_long_history_gives_the_textbooks_indicators_too(timeframe: Timeframe) -> None:
    """The recursion begins somewhere else; after this warm-up that makes no difference."""
    history = simulated(75, timeframe)
    as_of_ms = START_MS + 75 * DAY_MS - 5 * M15.ms

    snapshot = build_snapshots(history, np.array([as_of_ms])).snapshot(0)

    truth = expected(history, as_of_ms)
    slowest = {name: truth.pop(name) for name in ("ema_50_4h",)}
    check(snapshot, truth, rel=1e-10)
    check(snapshot, slowest, rel=1e-6)


def test_a_4h_run_just_warm_has_its_slowest_mean_within_a_fifth_of_a_percent() -> None:
    longer = simulated(75)
    for as_of_ms in range(START_MS + 65 * DAY_MS, START_MS + 75 * DAY_MS, DAY_MS):
        first_ms = as_of_ms - 120 * H4.ms
        newcomer = replace(longer, four_hour=longer.four_hour.between(first_ms, None))
        closes = longer.four_hour.known_at(as_of_ms).close.tolist()

        table = build_snapshots(newcomer, np.array([as_of_ms]))

        truth = textbook.ema(closes, 50)[-1]
        assert table.column("ema_50_4h")[0] == pytest.approx(truth, rel=2e-3)


def test_open_interest_is_the_last_and_the_mean_of_24_hours_and_funding_the_last() -> None:
    history = simulated(26)
    times = grid(history, 25)

    table = build_snapshots(history, times)

    interest, funding = history.open_interest, history.funding
    samples = list(zip(interest.time_ms.tolist(), interest.open_interest.tolist(), strict=True))
    for row, as_of_ms in enumerate(times.tolist()):
        day = [value for at, value in samples if as_of_ms - DAY_MS < at <= as_of_ms]
        assert table.column("open_interest_latest")[row] == day[-1]
        mean = fmean(day)
        assert table.column("open_interest_avg_24h")[row] == pytest.approx(mean, rel=1e-13)
        delta = (day[-1] - mean) / mean * 100
        assert table.column("oi_delta_pct")[row] == pytest.approx(delta, rel=1e-8)
        settled = funding.rate[funding.time_ms <= as_of_ms]
        assert table.column("funding_rate")[row] == settled[-1]


@TIMEFRAMES
def test_slopes_are_least_squares_fits_over_the_last_ten_points(timeframe: Timeframe) -> None:
    history = simulated(26, timeframe)
    times = grid(history, 25)

    table = build_snapshots(history, times)

    per_hour = HOUR_MS / timeframe.ms
    for row in range(0, len(times), 7):
        s = table.snapshot(row)
        of_price = 100 / s.price
        for slope, points, factor in (
            (s.price_slope, s.mid_prices, per_hour * of_price),
            (s.ema_20_slope, s.ema_20_values, per_hour * of_price),
            (s.macd_slope, s.macd_values, per_hour * of_price),
            (s.rsi_7_slope, s.rsi_7_values, per_hour),
            (s.rsi_14_slope, s.rsi_14_values, per_hour),
            (s.macd_4h_slope, s.macd_4h_values, of_price),
            (s.rsi_14_4h_slope, s.rsi_14_4h_values, 1),
        ):
            fitted = np.polyfit(range(10), points, 1)[0] * factor
            assert slope == pytest.approx(fitted, rel=1e-7, abs=1e-9)


def market(closes: Floats, timeframe: Timeframe = M5) -> MarketHistory:
    """26 days whose candles close at the given prices, one for each candle."""
    history = simulated(26, timeframe)
    opens = np.concatenate((closes[:1], closes[:-1]))
    intraday = replace(
        history.intraday,
        open=opens,
        high=np.maximum(opens, closes),
        low=np.minimum(opens, closes),
        close=closes,
    )
    return replace(history, intraday=intraday, four_hour=resample(intraday, H4))


def last_of(history: MarketHistory) -> MarketSnapshot:
    return build_snapshots(history, grid(history, 25.9)[-1:]).snapshot(0)


def test_a_flat_market_has_an_rsi_of_50_and_no_change_nor_range() -> None:
    count = len(simulated(26).intraday)

    flat = last_of(market(np.full(count, 42.5)))

    assert (flat.rsi_7, flat.rsi_14, flat.rsi_14_4h) == (50, 50, 50)
    assert flat.rsi_7_values == flat.rsi_14_values == flat.rsi_14_4h_values == [50] * 10
    assert (flat.price_change_1h, flat.price_change_4h, flat.price_change_24h) == (0, 0, 0)
    assert (flat.realized_volatility_1h, flat.realized_volatility_24h) == (0, 0)
    assert flat.atr_14_4h == pytest.approx(0, abs=1e-12)
    assert flat.macd == pytest.approx(0, abs=1e-12)
    assert flat.ema_20 == pytest.approx(42.5)
    assert flat.ema_ratio == pytest.approx(1)


def test_a_market_that_only_falls_has_an_rsi_of_0() -> None:
    count = len(simulated(26).intraday)

    falling = last_of(market(np.linspace(1000, 500, count)))

    assert (falling.rsi_7, falling.rsi_14, falling.rsi_14_4h) == (0, 0, 0)
    assert falling.rsi_7_values == [0] * 10
    assert falling.macd is not None
    assert falling.macd < 0


def test_a_market_that_only_rises_has_an_rsi_of_100() -> None:
    count = len(simulated(26).intraday)

    rising = last_of(market(np.linspace(500, 1000, count)))

    assert (rising.rsi_7, rising.rsi_14, rising.rsi_14_4h) == (100, 100, 100)
    assert rising.macd is not None
    assert rising.macd > 0


def test_an_rsi_of_0_is_not_taken_for_a_flat_market_while_the_price_still_falls() -> None:
    closes = np.linspace(1000, 500, len(simulated(26).intraday))
    closes[-5:] = closes[-5]  # fewer than 7 equal closes

    paused = last_of(market(closes))

    assert (paused.rsi_7, paused.rsi_14) == (0, 0)


@given(st.integers(-40, 10))
def test_no_scale_free_field_depends_on_the_unit_of_the_price(exponent: int) -> None:
    """A coin may cost 60,000 or 0.00000005: relative fields are the same."""
    history = simulated(26)
    unit = 2.0**exponent

    def in_unit(series: CandleSeries) -> CandleSeries:
        prices = ("open", "high", "low", "close")
        return replace(series, **{name: getattr(series, name) * unit for name in prices})

    rescaled = replace(
        history, intraday=in_unit(history.intraday), four_hour=in_unit(history.four_hour)
    )

    usual, other = last_of(history), last_of(rescaled)

    in_quote = ("price", "macd", "ema_20", "ema_50_4h", "atr_3_4h", "macd_4h")
    relative = ("rsi_7", "rsi_14", "rsi_14_4h", "price_change_4h", "realized_volatility_1h")
    relative += ("ema_ratio", "price_slope", "macd_slope", "macd_4h_slope", "volume_ratio")
    for name in in_quote:
        assert getattr(other, name) == pytest.approx(getattr(usual, name) * unit, rel=1e-8), name
    for name in relative:
        assert getattr(other, name) == pytest.approx(getattr(usual, name), rel=1e-8), name


def test_the_indicators_of_a_real_market_are_the_textbooks(real_data: Path) -> None:
    history = real(real_data, BYBIT_2025, "BTCUSDT")
    for as_of_ms in grid(history, 62)[[0, 1234, -1]].tolist():
        recent = between(history, as_of_ms - 100 * DAY_MS, as_of_ms)

        snapshot = build_snapshots(history, np.array([as_of_ms])).snapshot(0)

        truth = expected(recent, as_of_ms)
        slowest = {"ema_50_4h": truth.pop("ema_50_4h")}
        check(snapshot, truth, rel=1e-10)
        check(snapshot, slowest, rel=1e-6)
