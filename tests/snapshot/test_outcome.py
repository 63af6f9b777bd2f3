from __future__ import annotations

import math
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.market.candles import CandleSeries
from llm_trader.snapshot.outcome import (
    BARRIERS,
    LABELS,
    LONGEST_HORIZON_MS,
    OUTCOMES,
    PATH,
    STOP_FIRST,
    STOP_LOSS_PCT,
    TAKE_PROFIT_PCT,
    TARGET_FIRST,
    TURNS,
    Outcome,
    first_touches,
    label_outcomes,
    mirrored_labels,
    resolved_at,
)
from llm_trader.timeframe import (
    DAY_MS,
    HORIZONS,
    HOUR_MS,
    M3,
    M5,
    M15,
    MINUTE_MS,
    Millis,
    Timeframe,
)
from tests.market.builders import START_MS, no_candles, run_of_candles
from tests.snapshot.histories import simulated, without

HORIZON_MS = {"15m": 15 * MINUTE_MS, "1h": HOUR_MS, "4h": 4 * HOUR_MS, "24h": 24 * HOUR_MS}
HIT = ("hit_stop_loss", "hit_take_profit")

timeframes = st.sampled_from([M3, M5])
holes = st.lists(st.tuples(st.integers(0, 900), st.integers(1, 3)), max_size=2)
Bars = dict[Millis, tuple[float, float, float]]


def bars_of(candles: CandleSeries) -> Bars:
    columns = (candles.open_time_ms, candles.high, candles.low, candles.close)
    return {t: (h, low, c) for t, h, low, c in zip(*(x.tolist() for x in columns), strict=True)}


def followed(bars: Bars, step: Millis, as_of_ms: Millis, horizon_ms: Millis) -> list[tuple] | None:
    """The candles from a time on to a horizon, `None` where one is missing."""
    times = range(as_of_ms, as_of_ms + horizon_ms, step)
    return [bars[t] for t in times] if all(t in bars for t in times) else None


def naively(bars: Bars, step: Millis, as_of_ms: Millis) -> dict[str, object]:
    found: dict[str, object] = dict.fromkeys((*OUTCOMES, *HIT))
    if as_of_ms - step not in bars:
        return found
    price = bars[as_of_ms - step][2]
    for name, horizon_ms in HORIZON_MS.items():
        last = bars.get(as_of_ms + horizon_ms - step)
        if last is not None:
            found[f"outcome_{name}"] = (last[2] - price) / price * 100
    hour = followed(bars, step, as_of_ms, HOUR_MS)
    if hour is not None:
        best = max(high for high, _, _ in hour)
        worst = min(low for _, low, _ in hour)
        found["max_runup_1h"] = max(0.0, (best - price) / price * 100)
        found["max_drawdown_1h"] = min(0.0, (worst - price) / price * 100)
        found["hit_stop_loss"] = worst <= 0.98 * price
        found["hit_take_profit"] = best >= 1.03 * price
    day = followed(bars, step, as_of_ms, DAY_MS)
    if day is not None:
        found["first_barrier"] = "none"
        for high, low, _ in day:
            if low <= 0.98 * price:
                found["first_barrier"] = "stop"
                break
            if high >= 1.03 * price:
                found["first_barrier"] = "target"
                break
    return found


def outcomes(candles: CandleSeries, times: list[Millis]) -> list[Outcome]:
    labels = label_outcomes(candles, np.array(times, dtype=np.int64))
    return [Outcome.of_values(values) for values in labels.T.tolist()]


def stormy(timeframe: Timeframe, seed: int, size: float, days: float = 1.6) -> CandleSeries:
    """Candles whose moves are `size` times the builder's, so that barriers are touched or not."""
    calm = run_of_candles(round(days * DAY_MS / timeframe.ms), timeframe, seed=seed)
    columns = {name: getattr(calm, name) ** size for name in ("open", "high", "low", "close")}
    return replace(calm, **columns)


@given(timeframes, st.integers(0, 2**32), st.floats(0.1, 6), holes)
def test_outcomes_are_what_a_plain_loop_finds(
    timeframe: Timeframe, seed: int, size: float, gaps: list[tuple[int, int]]
) -> None:
    candles = without(stormy(timeframe, seed, size), gaps)
    times = [START_MS + i * M15.ms for i in range(0, 180, 5)]
    bars = bars_of(candles)

    labelled = outcomes(candles, times)

    for as_of_ms, outcome in zip(times, labelled, strict=True):
        truth = naively(bars, timeframe.ms, as_of_ms)
        told = msgspec.structs.asdict(outcome)
        assert told.keys() == truth.keys()
        for name, value in truth.items():
            assert told[name] == (
                pytest.approx(value, rel=1e-9, abs=1e-9) if isinstance(value, float) else value
            ), name


def test_the_loops_cases_all_occur() -> None:
    """Otherwise the test above might compare nothing."""
    seen = set()
    for size in (0.3, 2, 6):
        for as_of_ms in range(START_MS + HOUR_MS, START_MS + 14 * HOUR_MS, M15.ms):
            truth = naively(bars_of(stormy(M5, 1, size)), M5.ms, as_of_ms)
            seen.add((truth["first_barrier"], truth["hit_stop_loss"], truth["hit_take_profit"]))

    assert {barrier for barrier, _, _ in seen} == {"stop", "target", "none"}
    assert {stop for _, stop, _ in seen} == {target for _, _, target in seen} == {True, False}


def test_outcomes_of_a_long_history_are_what_a_plain_loop_finds_too() -> None:
    candles = simulated(26).intraday
    bars = bars_of(candles)
    times = list(range(START_MS + M15.ms, START_MS + 25 * DAY_MS, M15.ms))

    labels = label_outcomes(candles, np.array(times))

    assert np.isfinite(labels).all()
    for i in range(0, len(times), 37):
        truth = naively(bars, M5.ms, times[i])
        told = msgspec.structs.asdict(Outcome.of_values(labels[:, i].tolist()))
        assert told["first_barrier"] == truth["first_barrier"]
        assert told["outcome_24h"] == pytest.approx(truth["outcome_24h"], rel=1e-9)


def drawn(
    *bars: tuple[float, float, float], price: float = 100.0, timeframe: Timeframe = M5
) -> CandleSeries:
    """A candle that closes at `price` when the snapshot is taken, then the given (high, low, close)
    candles, then quiet ones for a day."""
    count = DAY_MS // timeframe.ms
    rows = [(price, price, price), *bars, *([(price, price, price)] * (count - len(bars)))]
    high, low, close = (np.array(values) for values in zip(*rows, strict=True))
    times = START_MS + timeframe.ms * np.arange(-1, count, dtype=np.int64)
    return CandleSeries(timeframe, times, close, high, low, close, np.ones(count + 1))


@pytest.mark.parametrize(
    ("bars", "barrier"),
    [
        ([(100.5, 99.5, 100)], "none"),
        ([(103.1, 99, 100), (100, 97, 100)], "target"),
        ([(101, 97.9, 100), (104, 100, 100)], "stop"),
        ([(103.1, 97.9, 100)], "stop"),
        ([(102, 99, 100), (103.1, 97.9, 100), (103.1, 100, 100)], "stop"),
        ([(102.99, 98.01, 100)], "none"),
        ([(103.0, 99, 100)], "target"),
        ([(101, 98.0, 100)], "stop"),
    ],
)
def test_the_barrier_touched_first_is_told_and_both_in_one_candle_are_the_stop(
    bars: list[tuple[float, float, float]], barrier: str
) -> None:
    assert outcomes(drawn(*bars), [START_MS])[0].first_barrier == barrier


def test_a_barrier_counts_up_to_24_hours_and_a_hit_up_to_one() -> None:
    quiet = [(100.0, 100.0, 100.0)]
    day = DAY_MS // M5.ms

    def touched_in_candle(number: int) -> Outcome:
        return outcomes(drawn(*quiet * (number - 1), (100.0, 97.0, 100.0)), [START_MS])[0]

    assert (touched_in_candle(12).hit_stop_loss, touched_in_candle(12).first_barrier) == (
        True,
        "stop",
    )
    assert (touched_in_candle(13).hit_stop_loss, touched_in_candle(13).first_barrier) == (
        False,
        "stop",
    )
    assert touched_in_candle(day).first_barrier == "stop"
    assert touched_in_candle(12).max_drawdown_1h == pytest.approx(-3)
    assert touched_in_candle(13).max_drawdown_1h == 0


@given(
    st.integers(1, 10_000_000), st.integers(0, 8), st.sampled_from([98, 103]), st.integers(1, 12)
)
def test_a_price_exactly_on_a_barrier_is_a_hit_exactly_if_it_touches_first(
    ticks: int, decimals: int, percent: int, number: int
) -> None:
    """Decimal prices are not exact in binary; the two ways to tell must still agree."""
    price = ticks / 10**decimals
    level = ticks * percent / 10 ** (decimals + 2)
    touching = (max(level, price), min(level, price), price)

    outcome = outcomes(
        drawn(*[(price, price, price)] * (number - 1), touching, price=price), [START_MS]
    )[0]

    assert (outcome.first_barrier == "stop") == outcome.hit_stop_loss
    assert (outcome.first_barrier == "target") == outcome.hit_take_profit


def test_a_runup_and_a_drawdown_are_never_below_and_above_zero() -> None:
    falling = outcomes(drawn((99.9, 99.0, 99.0), *[(99.0, 98.5, 98.8)] * 11), [START_MS])[0]
    rising = outcomes(drawn((101.0, 100.1, 101.0), *[(102.0, 101.0, 101.0)] * 11), [START_MS])[0]

    assert (falling.max_runup_1h, rising.max_drawdown_1h) == (0, 0)
    assert falling.max_drawdown_1h == pytest.approx(-1.5)
    assert rising.max_runup_1h == pytest.approx(2)


@given(st.integers(0, 287), timeframes)
def test_a_missing_candle_makes_the_change_that_ends_with_it_unknown_and_extremes_beyond_it(
    minutes_5: int, timeframe: Timeframe
) -> None:
    missing = minutes_5 * 5 * MINUTE_MS // timeframe.ms
    candles = without(drawn(timeframe=timeframe), [(1 + missing, 1)])

    outcome = outcomes(candles, [START_MS])[0]

    gone_after_ms = missing * timeframe.ms
    for name, horizon_ms in HORIZON_MS.items():
        known = getattr(outcome, f"outcome_{name}") is not None
        assert known == (horizon_ms != gone_after_ms + timeframe.ms), name
    for name in ("max_runup_1h", "max_drawdown_1h", *HIT):
        assert (getattr(outcome, name) is not None) == (gone_after_ms >= HOUR_MS), name
    assert outcome.first_barrier is None


@pytest.mark.parametrize("end", ["no candle closes at it", "history ends", "nothing is stored"])
def test_an_outcome_without_a_price_or_a_future_is_unknown(end: str) -> None:
    whole = drawn()
    candles = {
        "no candle closes at it": without(whole, [(0, 1)]),
        "history ends": whole.rows(slice(0, 1)),
        "nothing is stored": no_candles(M5),
    }[end]

    assert set(msgspec.structs.asdict(outcomes(candles, [START_MS])[0]).values()) == {None}


def test_no_snapshots_have_no_outcomes() -> None:
    assert label_outcomes(drawn(), np.empty(0, dtype=np.int64)).shape == (len(LABELS), 0)


def test_a_time_at_which_no_candle_closes_has_no_outcome() -> None:
    labels = label_outcomes(drawn(), np.array([START_MS + MINUTE_MS]))

    assert np.isnan(labels).all()


@given(timeframes, st.integers(0, 2**32), st.integers(0, 40))
def test_only_the_close_at_a_time_and_the_candles_after_it_matter(
    timeframe: Timeframe, seed: int, quarter: int
) -> None:
    candles = stormy(timeframe, seed, 2.0)
    as_of_ms = START_MS + (1 + quarter) * M15.ms
    draw = np.random.default_rng(seed)
    past = candles.open_time_ms < as_of_ms
    last = candles.open_time_ms == as_of_ms - timeframe.ms
    too_late = candles.open_time_ms >= as_of_ms + DAY_MS

    changed = {}
    for name, values in candles.columns():
        open_to_change = past | too_late if name != "close" else (past & ~last) | too_late
        changed[name] = np.where(open_to_change, draw.uniform(1, 1e5, len(values)), values)

    times = np.array([as_of_ms])
    truth = label_outcomes(candles, times)
    assert np.isfinite(truth).all()
    assert label_outcomes(replace(candles, **changed), times).tobytes() == truth.tobytes()
    gone = replace(candles, close=np.where(last, candles.close * 1.5, candles.close))
    assert label_outcomes(gone, times).tobytes() != truth.tobytes()


@given(st.integers(0, 2**32), st.sampled_from(list(HORIZON_MS)))
def test_no_outcome_depends_on_candles_after_its_horizon(seed: int, horizon: str) -> None:
    candles = stormy(M5, seed, 2.0)
    times = np.array([START_MS + M15.ms])
    later = candles.open_time_ms >= times[0] + HORIZON_MS[horizon]
    factor = np.where(later, 7.0, 1.0)
    other = replace(candles, **{name: values * factor for name, values in candles.columns()})
    row = OUTCOMES.index(f"outcome_{horizon}")

    truth, told = label_outcomes(candles, times), label_outcomes(other, times)

    assert told[row, 0] == truth[row, 0]
    last = OUTCOMES.index("outcome_24h")
    assert (told[last, 0] == truth[last, 0]) == (horizon == "24h")
    if HORIZON_MS[horizon] >= HOUR_MS:
        extremes = [OUTCOMES.index(name) for name in ("max_runup_1h", "max_drawdown_1h")]
        assert (told[extremes] == truth[extremes]).all()


def test_an_outcome_is_known_a_day_after_its_snapshot_when_the_longest_horizon_is() -> None:
    times = np.array([START_MS, START_MS + M15.ms])

    assert HORIZONS == HORIZON_MS
    assert LONGEST_HORIZON_MS == DAY_MS
    assert resolved_at(times).tolist() == [START_MS + DAY_MS, START_MS + M15.ms + DAY_MS]


def test_an_outcome_is_known_exactly_from_the_time_it_is_resolved_at() -> None:
    candles = stormy(M5, 3, 2.0)
    at = np.array([START_MS + HOUR_MS])
    resolved = int(resolved_at(at)[0])

    just_before = label_outcomes(candles.known_at(resolved - 1), at)
    then = label_outcomes(candles.known_at(resolved), at)

    assert np.isfinite(then).all()
    assert np.isnan(just_before[OUTCOMES.index("outcome_24h")]).all()
    assert np.isfinite(just_before[OUTCOMES.index("outcome_4h")]).all()
    assert then.tobytes() == label_outcomes(candles, at).tobytes()


@given(timeframes, st.integers(0, 2**32), st.floats(0.1, 6), st.floats(0.1, 4), st.floats(0.1, 4))
def test_paths_tell_which_of_any_two_barriers_was_touched_first(
    timeframe: Timeframe, seed: int, size: float, stop_pct: float, target_pct: float
) -> None:
    candles = stormy(timeframe, seed, size, days=1.3)
    times = np.array([START_MS + i * M15.ms for i in range(1, 25, 4)])
    path = label_outcomes(candles, times)[LABELS.index(PATH[0]) :]
    bars = bars_of(candles)
    expected = []
    for as_of_ms in times.tolist():
        price, first = bars[as_of_ms - timeframe.ms][2], None
        for high, low, _ in followed(bars, timeframe.ms, as_of_ms, DAY_MS) or []:
            if first is None and -100 * (low / price - 1) >= stop_pct:
                first = "stop"
            if first is None and 100 * (high / price - 1) >= target_pct:
                first = "target"
        expected.append(first)
    barriers = np.full(len(times), stop_pct), np.full(len(times), target_pct)
    stop_first, target_first = first_touches(path, *barriers)
    assert stop_first.tolist() == [first == "stop" for first in expected]
    assert target_first.tolist() == [first == "target" for first in expected]


def test_the_two_barriers_of_the_wire_are_those_of_the_path() -> None:
    labels = label_outcomes(stormy(M5, 5, 1.5, 9), START_MS + M15.ms * np.arange(1, 700))
    labels = labels[:, np.isfinite(labels).all(axis=0)]
    n = labels.shape[1]
    path = labels[LABELS.index(PATH[0]) :]
    first = first_touches(path, np.full(n, -STOP_LOSS_PCT), np.full(n, TAKE_PROFIT_PCT))
    barrier = labels[LABELS.index("first_barrier")]
    assert np.array_equal(first[0], barrier == STOP_FIRST)
    assert np.array_equal(first[1], barrier == TARGET_FIRST)
    assert first[0].any()
    assert first[1].any()
    assert not (first[0] | first[1]).all()


def test_of_a_path_of_more_turns_than_are_kept_the_smallest_are_left_out() -> None:
    # It rises and falls by one more percent each time: twelve turns.
    bars = []
    for size in range(1, 13):
        bars += [(100.0 + size - 0.5, 99.9, 100.0), (100.1, 100.0 - size, 100.0)]
    path = label_outcomes(drawn(*bars), np.array([START_MS]))[LABELS.index(PATH[0]) :, 0]
    lows, highs = path[:TURNS], path[TURNS:]
    assert lows == pytest.approx(np.arange(12 - TURNS, 12) + 1)
    assert highs == pytest.approx(np.append(np.arange(12 - TURNS, 12) + 0.5, 11.5))


def test_an_outcome_goes_to_json_and_back_with_unknown_as_null() -> None:
    column = np.full(len(OUTCOMES), math.nan)
    column[OUTCOMES.index("outcome_15m")] = 0.25
    outcome = Outcome.of_values(column.tolist())

    plain = msgspec.json.decode(msgspec.json.encode(outcome))

    assert msgspec.json.decode(msgspec.json.encode(outcome), type=Outcome) == outcome
    assert plain.pop("outcome_15m") == 0.25
    assert set(plain.values()) == {None}
    assert set(BARRIERS.values()) == {"none", "stop", "target"}


@given(st.integers(0, 2**32), st.floats(0.1, 6))
def test_mirrored_labels_are_those_of_prices_on_the_other_side_of_the_start(
    seed: int, size: float
) -> None:
    """Without wicks no candle reaches new extremes on both sides, which a path cannot tell."""
    candles = without_wicks(stormy(M15, seed, size, days=1.3))
    as_of_ms = np.array([START_MS + HOUR_MS])
    labels = label_outcomes(candles, as_of_ms)
    price = candles.close[candles.last_closed(as_of_ms)[0][0]]
    opposite = {
        "open": 2 * price - candles.open,
        "high": 2 * price - candles.low,
        "low": 2 * price - candles.high,
        "close": 2 * price - candles.close,
    }
    expected = label_outcomes(replace(candles, **opposite), as_of_ms)
    mirrored = mirrored_labels(labels)
    assert mirrored == pytest.approx(expected, abs=1e-9, nan_ok=True)
    assert mirrored_labels(mirrored) == pytest.approx(labels, abs=1e-9, nan_ok=True)


def test_a_mirrored_path_with_a_turn_too_many_leaves_out_the_smallest() -> None:
    labels = np.zeros((len(LABELS), 1))
    # It rose to 1, fell to 1.5, rose to 2, fell to 2.5, and so on, and last rose to 9.
    labels[LABELS.index("path_low_1") :][:TURNS, 0] = np.arange(TURNS) + 1.5
    labels[LABELS.index("path_high_1") :][: TURNS + 1, 0] = np.arange(TURNS + 1) + 1
    mirrored = mirrored_labels(labels)
    assert mirrored[LABELS.index("path_low_1") :][:TURNS, 0].tolist() == [*range(2, TURNS + 2)]
    assert mirrored[LABELS.index("path_high_1"), 0] == 1.5
    assert BARRIERS[mirrored[LABELS.index("first_barrier"), 0]] == "stop"


def test_mirrored_labels_keep_what_is_unknown() -> None:
    labels = np.full((len(LABELS), 2), np.nan)
    labels[:4, 0] = [1.0, 0.0, -2.0, 3.0]
    mirrored = mirrored_labels(labels)
    assert mirrored[:4, 0].tolist() == [-1.0, 0.0, 2.0, -3.0]
    assert str(mirrored[1, 0]) == "0.0"
    assert np.isnan(mirrored[4:]).all()
    assert np.isnan(mirrored[:, 1]).all()


def without_wicks(candles: CandleSeries) -> CandleSeries:
    open_ = np.append(candles.open[:1], candles.close[:-1])
    high, low = np.maximum(open_, candles.close), np.minimum(open_, candles.close)
    return replace(candles, open=open_, high=high, low=low)
