from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_trader.arrays import Floats
from llm_trader.errors import InvalidInputError
from llm_trader.market.candles import CandleSeries
from llm_trader.market.history import MarketHistory
from llm_trader.market.resampling import resample
from llm_trader.market.simulation import simulate, simulate_random_walk
from llm_trader.timeframe import DAY_MS, H4, HOUR_MS, M3, M5, M15, Timeframe
from tests.market.builders import START_MS, same_series


def same_history(one: MarketHistory, other: MarketHistory) -> bool:
    return all(
        same_series(getattr(one, name), getattr(other, name))
        for name in ("intraday", "four_hour", "funding", "open_interest")
    )


def returns(history: MarketHistory) -> Floats:
    log_returns: Floats = np.diff(np.log(history.intraday.close))
    return log_returns


@pytest.fixture(scope="module")
def bitcoin() -> MarketHistory:
    return simulate("BTCUSDT", start_ms=START_MS, days=120, seed=7)


def test_equal_arguments_give_equal_bytes_in_any_process(bitcoin: MarketHistory) -> None:
    program = (
        "import hashlib; from llm_trader.market.simulation import simulate;"
        f"h = simulate('BTCUSDT', start_ms={START_MS}, days=120, seed=7);"
        "print(hashlib.sha256(h.intraday.close.tobytes() + h.intraday.volume.tobytes()"
        " + h.funding.rate.tobytes() + h.open_interest.open_interest.tobytes()).hexdigest())"
    )

    def digest(hash_seed: str) -> str:
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-c", program]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True
        ).stdout

    assert digest("1") == digest("2")
    assert same_history(bitcoin, simulate("BTCUSDT", start_ms=START_MS, days=120, seed=7))


@settings(max_examples=10)
@given(
    st.sampled_from(["BTCUSDT", "DOGEUSDT"]),
    st.integers(0, 2**40),
    st.integers(1, 5),
    st.integers(1, 5),
    st.sampled_from([M3, M5, M15]),
)
def test_a_longer_simulation_begins_with_the_shorter_one(
    symbol: str, seed: int, days: int, more: int, timeframe: Timeframe
) -> None:
    def of(length: int) -> MarketHistory:
        return simulate(symbol, start_ms=START_MS, days=length, seed=seed, timeframe=timeframe)

    short, long = of(days), of(days + more)

    end = START_MS + days * DAY_MS
    assert same_series(short.intraday, long.intraday.between(None, end))
    assert same_series(short.funding, long.funding.between(None, end))
    assert same_series(short.open_interest, long.open_interest.between(None, end))


def test_candles_are_whole_valid_and_follow_each_other(bitcoin: MarketHistory) -> None:
    candles = bitcoin.intraday
    columns = {"open_time_ms": candles.open_time_ms, **dict(candles.columns())}

    CandleSeries.validated(M3, columns)

    assert len(candles) == 120 * 480
    assert candles.gaps() == []
    assert np.array_equal(candles.open[1:], candles.close[:-1])
    assert same_series(resample(candles, H4), bitcoin.four_hour)


@pytest.mark.parametrize(
    ("symbol", "price"), [("BTCUSDT", 60_000), ("ETHUSDT", 3_000), ("SOLUSDT", 150)]
)
def test_known_symbols_begin_at_a_plausible_price(symbol: str, price: float) -> None:
    assert simulate(symbol, start_ms=START_MS, days=1, seed=0).intraday.open[0] == price


def test_unknown_symbols_have_a_price_of_their_own() -> None:
    first = [simulate(s, start_ms=START_MS, days=1, seed=0) for s in ("AAAUSDT", "BBBUSDT")]

    assert first[0].intraday.open[0] != first[1].intraday.open[0]


def test_symbols_of_one_seed_share_a_market(bitcoin: MarketHistory) -> None:
    ether = simulate("ETHUSDT", start_ms=START_MS, days=120, seed=7)
    stranger = simulate("ETHUSDT", start_ms=START_MS, days=120, seed=8)

    assert 0.7 < np.corrcoef(returns(bitcoin), returns(ether))[0, 1] < 0.9
    assert abs(np.corrcoef(returns(bitcoin), returns(stranger))[0, 1]) < 0.05


def test_volatility_clusters_tails_are_fat_and_volume_goes_with_moves(
    bitcoin: MarketHistory,
) -> None:
    moves = returns(bitcoin)
    size = np.abs(moves)

    assert np.corrcoef(size[20:], size[:-20])[0, 1] > 0.15
    assert np.mean((moves / moves.std()) ** 4) > 5
    assert np.corrcoef(bitcoin.intraday.volume[1:], size)[0, 1] > 0.5
    assert 0.01 < moves.std() * np.sqrt(480) < 0.05


def test_the_next_return_cannot_be_told_from_the_last_ones() -> None:
    seen = []
    for seed in range(8):
        hourly = returns(simulate("BTCUSDT", start_ms=START_MS, days=60, seed=seed))[19:]
        hourly = hourly[: len(hourly) // 20 * 20].reshape(-1, 20).sum(axis=1)
        seen.append(np.corrcoef(hourly[1:], hourly[:-1])[0, 1])

    assert abs(np.mean(seen)) < 0.03


def test_funding_is_settled_every_eight_hours_within_the_clamp(bitcoin: MarketHistory) -> None:
    funding = bitcoin.funding

    assert (funding.time_ms % (8 * HOUR_MS) == 0).all()
    assert (np.diff(funding.time_ms) == 8 * HOUR_MS).all()
    assert (np.abs(funding.rate) <= 0.003).all()
    assert (funding.rate < 0).any()
    assert (funding.rate > 0.0001).any()


def test_open_interest_falls_when_the_market_is_liquidated(bitcoin: MarketHistory) -> None:
    hourly = resample(bitcoin.intraday, Timeframe(HOUR_MS)).close
    moves = np.abs(np.diff(np.log(hourly)))[:-1]
    change = np.diff(np.log(bitcoin.open_interest.open_interest))[2:]
    violent = moves[: len(change)] > np.quantile(moves, 0.99)

    assert change[violent].mean() < change[~violent].mean()


def walk(**arguments: float) -> MarketHistory:
    plain = {"start_ms": START_MS, "days": 60, "seed": 7, "timeframe": M5}
    return simulate_random_walk("BTCUSDT", **(plain | arguments))  # type: ignore[arg-type]


@settings(max_examples=10)
@given(st.integers(0, 2**40), st.integers(1, 3), st.integers(1, 3), st.sampled_from([0.0, 0.3]))
def test_a_longer_random_walk_begins_with_the_shorter_one(
    seed: int, days: int, more: int, reversal: float
) -> None:
    short, long = (walk(seed=seed, days=of, reversal=reversal) for of in (days, days + more))

    end = START_MS + days * DAY_MS
    assert same_series(short.intraday, long.intraday.between(None, end))
    assert same_series(short.funding, long.funding.between(None, end))
    assert same_series(short.open_interest, long.open_interest.between(None, end))


def test_a_random_walk_has_the_same_volatility_at_every_hour_and_no_fat_tails() -> None:
    moves = returns(walk())[11:]
    by_hour = moves[: 59 * 288].reshape(59, 24, 12).std(axis=(0, 2))

    assert moves.std() * np.sqrt(288) == pytest.approx(0.022, rel=0.03)
    assert by_hour == pytest.approx(np.full(24, moves.std()), rel=0.1)
    assert np.mean((moves / moves.std()) ** 4) == pytest.approx(3, abs=0.15)


def test_a_random_walk_stays_on_average_where_it_is_whatever_came_before() -> None:
    """Its mean gross return is 1, after rises as after falls, to within four standard errors."""
    grown, error, risen = [], 0.022 * np.sqrt(4 / 24), []
    for seed in range(8):
        four_hours = walk(seed=seed).four_hour.close
        gross = four_hours[1:] / four_hours[:-1]
        grown.append(gross[1:])
        risen.append(gross[:-1] > 1)
    after, rise = np.concatenate(grown), np.concatenate(risen)

    for of in (after[rise], after[~rise]):
        assert abs(of.mean() - 1) < 4 * error / np.sqrt(len(of))


@pytest.mark.parametrize("reversal", [-0.3, 0.0, 0.1, 0.4])
def test_a_planted_reversal_is_the_slope_of_the_next_candle_on_the_last_four_hours(
    reversal: float,
) -> None:
    history = walk(reversal=reversal, days=120)
    level = np.log(history.intraday.close)
    sigma = 0.022 / np.sqrt(288)
    last_4h = np.tanh((level[48:-1] - level[:-49]) / (sigma * np.sqrt(48)))
    following = np.diff(level[48:]) / sigma

    slope, _ = np.polyfit(last_4h, following, 1)

    assert slope == pytest.approx(-reversal, abs=4 / (last_4h.std() * np.sqrt(len(last_4h))))


def test_a_random_walk_is_a_whole_market() -> None:
    history = walk(days=3)

    assert history.intraday.gaps() == []
    assert np.array_equal(history.intraday.open[1:], history.intraday.close[:-1])
    assert same_series(resample(history.intraday, H4), history.four_hour)
    assert len(history.funding) == 9
    assert len(history.open_interest) == 72


@pytest.mark.parametrize(
    ("symbol", "days", "seed", "timeframe"),
    [("btc", 1, 0, M3), ("BTCUSDT", 0, 0, M3), ("BTCUSDT", 1, -1, M3), ("BTCUSDT", 1, 0, H4)],
)
def test_arguments_out_of_range_are_refused(
    symbol: str, days: int, seed: int, timeframe: Timeframe
) -> None:
    for simulating in (simulate, simulate_random_walk):
        with pytest.raises(InvalidInputError):
            simulating(symbol, start_ms=START_MS, days=days, seed=seed, timeframe=timeframe)
