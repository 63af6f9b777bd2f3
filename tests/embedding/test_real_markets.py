"""On real data a similarity means something: most states are unlike, mirror images most of all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llm_trader.embedding.features import FEATURES
from llm_trader.embedding.state import StateSpace
from llm_trader.snapshot.table import ROW, SnapshotTable
from llm_trader.timeframe import M5, M15
from tests.embedding.states import (
    bybit_states,
    cosines,
    random_pairs,
    real_states,
)
from tests.snapshot.histories import BINANCE_2023

MARKETS = pytest.mark.parametrize(
    "market",
    [
        "BTCUSDT",
        *(
            pytest.param(market, marks=pytest.mark.soak)
            for market in ("ETHUSDT", "SOLUSDT", "BTCUSDT of 2023")
        ),
    ],
)

RSI = ("rsi_7", "rsi_14", "rsi_14_4h")
SIGNED = (
    *("macd", "macd_4h", "price_change_1h", "price_change_4h", "price_change_24h"),
    *("oi_delta_pct", "price_slope", "ema_20_slope", "macd_slope", "rsi_7_slope"),
    *("rsi_14_slope", "macd_4h_slope", "rsi_14_4h_slope"),
)
EMAS = ("ema_20", "ema_20_4h", "ema_50_4h")
TREND = (
    *("rsi_7", "rsi_14", "macd_of_price", "above_ema_20", "ema_ratio", "above_ema_20_4h"),
    *("above_ema_50_4h", "macd_4h_of_price", "rsi_14_4h", "return_4h", "return_24h"),
)


def states(data: Path, market: str) -> SnapshotTable:
    if market == "BTCUSDT of 2023":
        return real_states(data, BINANCE_2023, "BTCUSDT")
    return bybit_states(data, market)


def mirrored(table: SnapshotTable) -> SnapshotTable:
    """The same market upside down: what rose, falls as fast; volatility and volume are the same."""
    fields = table.scalars.copy()
    for name in RSI:
        fields[ROW[name]] = 100 - fields[ROW[name]]
    for name in SIGNED:
        fields[ROW[name]] *= -1
    for name in EMAS:
        fields[ROW[name]] = 2 * fields[ROW["price"]] - fields[ROW[name]]
    fields[ROW["ema_ratio"]] = 2 - fields[ROW["ema_ratio"]]
    return replace(table, scalars=fields)


def trending(table: SnapshotTable) -> SnapshotTable:
    """The hundredth part of the states that trend most, up or down."""
    names = [feature.name for feature in FEATURES]
    rows = [names.index(name) for name in TREND]
    strength = np.abs(np.tanh(StateSpace(table.intraday).standardise(table)[rows]).mean(axis=0))
    return table.take(strength >= np.quantile(strength, 0.99))


@MARKETS
def test_random_pairs_of_states_are_about_half_alike_and_hardly_ever_more_than_nine_tenths(
    real_data: Path, market: str
) -> None:
    table = states(real_data, market)
    assert len(table) > 15_000
    vectors, _ = StateSpace(M5).embed(table)

    alike = cosines(vectors, *random_pairs(20_000, len(table)))

    assert 0.4 < np.median(alike) < 0.6
    assert np.quantile(alike, 0.99) < 0.9


@MARKETS
def test_a_trending_state_and_its_mirror_image_are_among_the_least_alike(
    real_data: Path, market: str
) -> None:
    table, space = states(real_data, market), StateSpace(M5)
    vectors, _ = space.embed(table)
    least = np.quantile(cosines(vectors, *random_pairs(20_000, len(table))), 0.05)
    strong = trending(table)
    assert len(strong) > 100

    (these, _), (images, _) = space.embed(strong), space.embed(mirrored(strong))

    assert (these.astype(float) * images).sum(axis=1).max() < least


@MARKETS
def test_a_mirror_image_of_a_mirror_image_is_the_state_itself(real_data: Path, market: str) -> None:
    table, space = states(real_data, market).take(np.arange(0, 15_000, 100)), StateSpace(M5)

    (vectors, _), (again, _) = space.embed(table), space.embed(mirrored(mirrored(table)))

    assert (vectors.astype(float) * again).sum(axis=1).min() > 1 - 1e-6


@MARKETS
def test_a_state_is_most_like_the_quarter_hours_beside_it(real_data: Path, market: str) -> None:
    table = states(real_data, market)
    assert (np.diff(table.as_of_ms) == M15.ms).all()
    vectors, _ = StateSpace(M5).embed(table)

    alike = cosines(vectors, *random_pairs(20_000, len(table)))
    beside = cosines(vectors, np.arange(len(table) - 1), np.arange(1, len(table)))

    assert np.median(beside) > np.quantile(alike, 0.99)


@MARKETS
def test_no_feature_is_saturated_or_idle(real_data: Path, market: str) -> None:
    """Each spreads over its angles: not nearly always at one end, nor always in the middle."""
    z = StateSpace(M5).standardise(states(real_data, market))

    spread = np.tanh(z).std(axis=1)
    at_the_end = (np.abs(z) > 2.5).mean(axis=1)
    assert dict(zip([f.name for f in FEATURES], spread, strict=True)) == {
        f.name: pytest.approx(0.5, abs=0.25) for f in FEATURES
    }
    assert at_the_end.max() < 0.1
