from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.snapshot.builder import build_snapshots
from llm_trader.snapshot.model import SCALARS, SERIES, SERIES_LENGTH, MarketSnapshot
from llm_trader.snapshot.table import ROW, SnapshotTable
from llm_trader.timeframe import DAY_MS, HOUR_MS, M3, M5, MINUTE_MS
from tests.market.builders import START_MS
from tests.snapshot.histories import grid, same_snapshots, simulated, with_holes

AS_OF_MS = START_MS + 25 * DAY_MS + 13 * 60 * MINUTE_MS + 30 * MINUTE_MS

# What the wire's `current_state` must have.
WIRE = {
    "price": 60_000.0,
    "rsi_7": 61.0,
    "rsi_14": 57.0,
    "macd": 25.0,
    "ema_20": 59_900.0,
    "ema_20_4h": 59_000.0,
    "ema_50_4h": 58_000.0,
    "funding_rate": 0.0001,
    "open_interest_latest": 52_000.0,
    "open_interest_avg_24h": 50_000.0,
}

DERIVED = {
    "hour_of_day",
    "ema_ratio",
    "oi_delta_pct",
    "price_slope",
    "ema_20_slope",
    "macd_slope",
    "rsi_7_slope",
    "rsi_14_slope",
    "macd_4h_slope",
    "rsi_14_4h_slope",
}

numbers = st.floats(-1e9, 1e9)


def sent(fields: dict[str, object], as_of_ms: int = AS_OF_MS) -> SnapshotTable:
    return SnapshotTable.of_fields("BTCUSDT", M5, as_of_ms, fields)


def known(table: SnapshotTable) -> set[str]:
    return {name for name in SCALARS if np.isfinite(table.column(name)[0])}


def test_a_snapshot_has_more_than_forty_fields_and_all_the_wire_knows() -> None:
    fields = {field.name for field in msgspec.structs.fields(MarketSnapshot)}

    assert len(fields) > 40
    assert len(fields) == 2 + len(SCALARS) + len(SERIES)
    assert fields >= WIRE.keys() | {
        *("symbol", "timestamp", "price_change_1h", "price_change_4h", "price_change_24h"),
        *("atr_3_4h", "atr_14_4h", "current_volume_4h", "avg_volume_4h", "volume_ratio"),
        *("realized_volatility_1h", "realized_volatility_4h", "realized_volatility_24h"),
        *("mid_prices", "ema_20_values", "macd_values", "rsi_7_values", "rsi_14_values"),
        *("macd_4h_values", "rsi_14_4h_values", "hour_of_day", "ema_ratio", "oi_delta_pct"),
    }


def test_every_field_but_the_series_tells_its_unit() -> None:
    schema = msgspec.json.schema(MarketSnapshot)["$defs"]["MarketSnapshot"]["properties"]

    assert [name for name in SCALARS if not schema[name].get("description")] == []


@pytest.mark.parametrize("timeframe", [M3, M5], ids=str)
@given(seed=st.integers(0, 2**32))
def test_a_snapshot_goes_to_json_and_back_unchanged(timeframe, seed: int) -> None:
    history = with_holes(simulated(26, timeframe), seed)
    row = seed % 96
    snapshot = build_snapshots(history, grid(history, 25)).snapshot(row)

    sent_over = msgspec.json.encode(snapshot)

    assert msgspec.json.decode(sent_over, type=MarketSnapshot) == snapshot
    plain = msgspec.json.decode(sent_over)
    assert plain == msgspec.structs.asdict(snapshot)


def test_unknown_is_null_in_json() -> None:
    table = build_snapshots(simulated(26), np.array([START_MS + 2 * DAY_MS]))

    plain = msgspec.json.decode(msgspec.json.encode(table.snapshot(0)))

    nulls = {name for name, value in plain.items() if value is None}
    assert {"ema_20_4h", "atr_14_4h", "ema_ratio", "macd_4h_values", "macd_4h_slope"} <= nulls
    assert not nulls & {"price", "rsi_7", "funding_rate", "mid_prices", "price_slope"}


@pytest.mark.parametrize("timeframe", [M3, M5], ids=str)
def test_a_snapshot_sent_back_is_the_same_table_again(timeframe) -> None:
    history = simulated(26, timeframe)
    built = build_snapshots(history, grid(history, 25.9)[-1:])
    assert built.complete().all()

    again = SnapshotTable.of_fields(
        built.symbol,
        timeframe,
        int(built.as_of_ms[0]),
        msgspec.to_builtins(built.snapshot(0)),
    )

    assert same_snapshots(again, built)


@pytest.mark.parametrize("timeframe", [M3, M5], ids=str)
def test_what_follows_from_other_fields_is_derived_as_it_is_when_building(timeframe) -> None:
    history = simulated(26, timeframe)
    built = build_snapshots(history, grid(history, 25.9)[-1:])
    fields = msgspec.to_builtins(built.snapshot(0))
    assert fields.keys() >= DERIVED

    again = SnapshotTable.of_fields(
        built.symbol,
        timeframe,
        int(built.as_of_ms[0]),
        {name: value for name, value in fields.items() if name not in DERIVED},
    )

    assert same_snapshots(again, built)


@given(st.dictionaries(st.sampled_from(SCALARS), numbers, min_size=1))
def test_fields_that_were_sent_keep_their_values(fields: dict[str, float]) -> None:
    snapshot = sent(fields).snapshot(0)

    assert {name: getattr(snapshot, name) for name in fields} == fields


@given(st.dictionaries(st.sampled_from(SCALARS), numbers))
def test_nothing_is_made_up_beside_what_was_sent_and_what_follows(
    fields: dict[str, float],
) -> None:
    table = sent(fields)

    follows = {"hour_of_day", "ema_ratio", "oi_delta_pct", "funding_interval_hours"}
    assert known(table) <= fields.keys() | follows
    assert not np.isinf(table.scalars).any()
    assert np.isnan(table.series).all()


def test_ratio_delta_and_hour_follow_from_the_fields_of_the_wire() -> None:
    snapshot = sent(WIRE).snapshot(0)

    follows = {"hour_of_day", "ema_ratio", "oi_delta_pct", "funding_interval_hours"}
    assert known(sent(WIRE)) == WIRE.keys() | follows
    assert snapshot.ema_ratio == pytest.approx(59 / 58)
    assert snapshot.oi_delta_pct == pytest.approx(4)
    assert snapshot.hour_of_day == 13.5


@pytest.mark.parametrize(
    ("field", "value", "unknown"),
    [
        ("ema_50_4h", 0.0, "ema_ratio"),
        ("open_interest_avg_24h", 0.0, "oi_delta_pct"),
        ("price", 0.0, "price_slope"),
        ("ema_50_4h", 5e-324, "ema_ratio"),
    ],
)
def test_what_would_be_infinite_is_unknown(field: str, value: float, unknown: str) -> None:
    series = {"mid_prices": list(range(10))}

    table = sent(WIRE | series | {field: value})

    assert getattr(sent(WIRE | series).snapshot(0), unknown) is not None
    assert getattr(table.snapshot(0), unknown) is None
    assert table.column(field)[0] == value


@given(st.lists(numbers, max_size=25))
def test_the_last_ten_points_of_a_series_count_and_fewer_are_left_out(points: list[float]) -> None:
    snapshot = sent({"price": 100.0, "rsi_7_values": points}).snapshot(0)

    if len(points) < SERIES_LENGTH:
        assert snapshot.rsi_7_values is None
        assert snapshot.rsi_7_slope is None
    else:
        assert snapshot.rsi_7_values == points[-SERIES_LENGTH:]
        per_hour = np.polyfit(range(10), points[-SERIES_LENGTH:], 1)[0] * 12
        size = max(map(abs, points))
        assert snapshot.rsi_7_slope == pytest.approx(per_hour, rel=1e-6, abs=1e-9 * size + 1e-12)


def test_a_slope_is_fitted_to_the_points_that_are_there_if_the_last_and_six_more_are() -> None:
    points: list[float | None] = [float(i) for i in range(10)]
    per_hour = HOUR_MS / M5.ms

    def slope_without(*missing: int) -> float | None:
        series = [None if i in missing else p for i, p in enumerate(points)]
        snapshot = sent({"price": 100.0, "rsi_7_values": series}).snapshot(0)
        assert snapshot.rsi_7_values == series
        return snapshot.rsi_7_slope

    assert slope_without(4) == pytest.approx(per_hour)
    assert slope_without(0, 1, 7) == pytest.approx(per_hour)
    assert slope_without(0, 1, 2, 3) is None
    assert slope_without(9) is None


def test_a_slope_around_a_hole_is_that_of_least_squares() -> None:
    points = np.random.default_rng(2).uniform(20, 80, 10)
    points[[2, 6]] = np.nan
    table = sent({"price": 100.0, "rsi_7_values": [None if p != p else p for p in points]})
    there = np.flatnonzero(np.isfinite(points))
    fitted = np.polyfit(there, points[there], 1)[0] * HOUR_MS / M5.ms
    assert table.column("rsi_7_slope")[0] == pytest.approx(fitted)


def test_fields_that_are_null_or_not_ours_are_not_there() -> None:
    table = sent({"price": 100.0, "rsi_7": None, "mid_prices": None, "mood": 3})

    assert known(table) == {"price", "hour_of_day"}


def test_a_slope_that_was_sent_is_not_derived_again() -> None:
    fields = {"price": 100.0, "rsi_7_values": list(range(10)), "rsi_7_slope": -5.0}

    assert sent(fields).snapshot(0).rsi_7_slope == -5.0


@given(st.dictionaries(st.sampled_from(SCALARS), numbers))
def test_what_is_unknown_is_filled_in_and_what_is_known_stays(fields: dict[str, float]) -> None:
    history = simulated(26)
    ours = build_snapshots(history, np.array([AS_OF_MS]))
    theirs = sent(fields)

    filled = theirs.filled_from(ours.scalars)

    for name in SCALARS:
        source = theirs if name in known(theirs) else ours
        assert filled.column(name)[0] == source.column(name)[0]
    assert filled.complete().all()
    assert same_snapshots(theirs, sent(fields)), "the table itself must not change"


def test_filling_in_from_an_incomplete_snapshot_leaves_unknown_what_neither_knows() -> None:
    early = build_snapshots(simulated(26), np.array([START_MS + 2 * DAY_MS]))
    theirs = sent({"atr_14_4h": 700.0}, START_MS + 2 * DAY_MS)

    filled = theirs.filled_from(early.scalars)

    assert known(filled) == known(early) | {"atr_14_4h"}
    assert "ema_20_4h" not in known(filled)


@given(st.lists(st.booleans(), min_size=96, max_size=96))
def test_rows_are_taken_by_mask_and_by_index_alike(mask: list[bool]) -> None:
    history = simulated(26)
    table = build_snapshots(history, grid(history, 25)[:96])

    by_mask = table.take(np.array(mask))

    assert same_snapshots(by_mask, table.take(np.flatnonzero(mask)))
    assert len(by_mask) == sum(mask)
    rows = [row for row, taken in enumerate(mask) if taken]
    assert [by_mask.snapshot(i) for i in range(min(5, len(rows)))] == [
        table.snapshot(row) for row in rows[:5]
    ]


def test_a_column_is_a_view_of_the_table() -> None:
    table = SnapshotTable.unknown("BTCUSDT", M5, np.array([AS_OF_MS]))

    table.column("rsi_7")[0] = 12.0

    assert table.scalars[ROW["rsi_7"], 0] == 12.0
    assert table.snapshot(0).rsi_7 == 12.0
