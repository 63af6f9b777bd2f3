from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.errors import ConfigurationError
from llm_trader.retrieval.calibration import (
    LoadedCalibration,
    band,
    read_calibration,
    scope_of,
    write_calibration,
)
from llm_trader.retrieval.forecast import NEIGHBOURS
from llm_trader.timeframe import DAY_MS, HORIZONS, HOUR_MS, Millis
from tests.index.builders import SYMBOL
from tests.retrieval.builders import COLLECTION
from tests.retrieval.calibrations import (
    ASKED,
    CONFIG,
    KNOWN_BY_MS,
    calibration,
    margins,
    of_horizon,
)

LATER_MS = KNOWN_BY_MS + DAY_MS


def warnings(query: Any = ASKED, as_of_ms: Millis = LATER_MS, **more: Any) -> str:
    given = {"neighbours": NEIGHBOURS, "features_missing": ()} | more
    loaded = LoadedCalibration(calibration(), max_age_days=30)
    return "; ".join(loaded.objections(query, as_of_ms, **given))


def test_what_was_written_is_read_again_and_named_by_the_files_digest(tmp_path: Path) -> None:
    path = tmp_path / "new" / "calibration.json"
    written = calibration("4h")
    write_calibration(written, path)
    assert read_calibration(path) == written
    assert hashlib.sha256(path.read_bytes()).hexdigest().startswith(written.digest)
    assert [of.name for of in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 3}, "it has schema 3, and this version reads 2"),
        ({"horizons": {}}, "has the horizons"),
        ({"fitted_from_ms": KNOWN_BY_MS}, "not in order"),
        ({"seed": "one"}, r"Expected `int`, got `str` - at `\$.seed`"),
        ({"extra": 1}, "unknown field `extra`"),
    ],
)
def test_a_file_that_is_no_calibration_is_refused_with_the_remedy(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(msgspec.to_builtins(calibration(), str_keys=True) | change))
    with pytest.raises(ConfigurationError, match=message) as raised:
        read_calibration(path)
    assert "llm-trader calibrate" in raised.value.message


@pytest.mark.parametrize("content", [None, b"", b"not JSON", b"[]", b'{"a": 1}', b"\xff\xfe"])
def test_nonsense_or_nothing_is_refused_with_the_remedy(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "calibration.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="llm-trader calibrate"):
        read_calibration(path)


def test_a_file_that_cannot_be_written_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="--out"):
        write_calibration(calibration(), tmp_path / "file" / "calibration.json")


def test_it_is_used_for_queries_like_those_it_is_of() -> None:
    assert warnings() == ""
    used = LoadedCalibration(calibration(), 30).used
    assert (used.digest, used.known_by) == (calibration().digest, KNOWN_BY_MS)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("exchange", "binance"),
        ("feature_version", "v1_5m4h"),
        ("state_space_id", "state-other"),
        ("text_space_id", "text-other"),
        ("vector", "hybrid"),
        ("lookback_days", 60),
        ("volatility_model", "volatility-other"),
        ("neighbours", 40),
        ("gap_hours", 2.5),
        ("include_regime_filters", False),
        ("symbols", ("SOLUSDT",)),
    ],
)
def test_for_any_other_query_it_is_not_used_and_says_why(field: str, value: Any) -> None:
    message = warnings(msgspec.structs.replace(ASKED, **{field: value}))
    assert "SOLUSDT" in message if field == "symbols" else f"{field} is " in message


def test_it_answers_nothing_before_all_of_it_was_known() -> None:
    assert warnings(as_of_ms=KNOWN_BY_MS) == ""
    assert "after the query's time" in warnings(as_of_ms=KNOWN_BY_MS - 1)


def test_it_is_stale_after_its_days() -> None:
    assert warnings(as_of_ms=KNOWN_BY_MS + 30 * DAY_MS) == ""
    assert "more than 30 days" in warnings(as_of_ms=KNOWN_BY_MS + 30 * DAY_MS + 1)


def test_it_is_of_whole_states_with_all_their_neighbours() -> None:
    assert "lacks features" in warnings(features_missing=("rsi_7",))
    told = warnings(neighbours=NEIGHBOURS - 1)
    assert told == f"it was fitted on {NEIGHBOURS} neighbours, and {NEIGHBOURS - 1} were found"


def test_one_of_states_without_open_interest_is_for_states_without_it() -> None:
    fitted = calibration(features_missing=("oi_delta_pct", "funding_rate"))
    loaded = LoadedCalibration(fitted, 30)

    def objections(*missing: str) -> list[str]:
        return loaded.objections(ASKED, LATER_MS, NEIGHBOURS, missing)

    assert objections("funding_rate", "oi_delta_pct") == []
    (whole,) = objections()
    assert whole.endswith("states without oi_delta_pct, funding_rate, and this one lacks nothing")
    (partly,) = objections("oi_delta_pct")
    assert partly.endswith("and this one lacks oi_delta_pct")


def test_what_only_a_reply_shows_makes_no_other_query() -> None:
    spec = msgspec.structs.replace(CONFIG, top_k=7, evidence_k=20, min_gap_hours=1.0)
    assert scope_of(COLLECTION, SYMBOL, spec) == ASKED
    assert (ASKED.neighbours, ASKED.gap_hours) == (NEIGHBOURS, 0.0)


@given(st.floats(-20, 20), st.floats(0, 20), st.floats(-30, 30))
def test_a_band_is_widened_by_the_margin_on_both_sides_and_never_crossed(
    low: float, width: float, margin_pct: float
) -> None:
    low_end, high_end = band(low, low + width, margin_pct)
    assert low_end <= high_end
    assert low_end + high_end == pytest.approx(2 * low + width, abs=1e-9)
    assert high_end - low_end == pytest.approx(max(width + 2 * margin_pct, 0), abs=1e-9)


@pytest.mark.parametrize(
    ("ratio", "of_ratio"),
    [
        (0.0, -0.02),
        (0.0999, -0.02),
        (0.1, -0.01),
        (0.15, 0.0),
        (0.25, 0.01),
        (0.3, 0.02),
        (9, 0.02),
    ],
)
@pytest.mark.parametrize(
    ("hours", "of_hours"), [(0, -0.003), (3.999, -0.003), (4, -0.002), (12, 0.001), (23.999, 0.003)]
)
def test_a_margin_adds_what_the_ratio_the_hour_and_the_symbol_ask_for(
    ratio: float, of_ratio: float, hours: float, of_hours: float
) -> None:
    fitted = margins(base=0.2, symbols=("ETHUSDT", SYMBOL))
    as_of_ms = KNOWN_BY_MS + round(hours * HOUR_MS)
    common = 0.2 + of_ratio + of_hours
    assert fitted.of(ratio, as_of_ms, "ETHUSDT") == pytest.approx(common)
    assert fitted.of(ratio, as_of_ms, SYMBOL) == pytest.approx(common + 0.0001)


def test_a_query_has_a_margin_of_each_horizon_by_its_own_expected_volatility() -> None:
    bases = dict(zip(HORIZONS, (0.1, 0.2, 0.3, 0.4), strict=True))
    fitted = calibration(horizons={name: of_horizon(base) for name, base in bases.items()})
    found = fitted.margins([0.2, 0.32, 0.5, 1.0], 2.0, KNOWN_BY_MS, SYMBOL)
    # Ratios of 0.1, 0.16, 0.25 and 0.5, shortly after midnight.
    expected = [0.1 - 0.01, 0.2, 0.3 + 0.01, 0.4 + 0.02]
    assert found == pytest.approx([margin - 0.003 for margin in expected])


def test_in_a_market_that_stood_still_the_ratio_is_as_high_as_it_gets_and_finite() -> None:
    assert calibration().margins([1.0] * 4, 0.0, KNOWN_BY_MS, SYMBOL) == pytest.approx(
        [0.1 + 0.02 - 0.003] * 4
    )


@pytest.mark.parametrize("part", ["ratio_edges", "by_ratio", "by_hours"])
def test_margins_of_another_number_of_cells_are_refused(tmp_path: Path, part: str) -> None:
    path = tmp_path / "calibration.json"
    document = msgspec.to_builtins(calibration(), str_keys=True)
    document["horizons"]["4h"]["margins"][part] += (0.0,)
    path.write_text(json.dumps(document))
    with pytest.raises(ConfigurationError, match=rf"length <= .*margins\.{part}`"):
        read_calibration(path)


def test_skill_is_where_the_whole_interval_lies_above_zero() -> None:
    skills = {"15m": (0.001, 0.02), "1h": (-0.02, -0.01), "4h": (0.0, 0.1), "24h": (None, None)}
    fitted = calibration(horizons={name: of_horizon(skill=of) for name, of in skills.items()})
    assert fitted.skilled_horizons == {"15m"}


def test_a_file_of_the_schema_before_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    document = msgspec.to_builtins(calibration(), str_keys=True) | {"schema_version": 1}
    for horizon in document["horizons"].values():
        horizon["margin"] = horizon.pop("margins")["base"]
    path.write_text(json.dumps(document))
    with pytest.raises(ConfigurationError, match="fit a new one with: llm-trader calibrate"):
        read_calibration(path)
