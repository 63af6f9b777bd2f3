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
    write_calibration,
)
from llm_trader.timeframe import DAY_MS, Millis
from tests.retrieval.calibrations import ASKED, KNOWN_BY_MS, calibration, of_horizon

LATER_MS = KNOWN_BY_MS + DAY_MS


def warnings(query: Any = ASKED, as_of_ms: Millis = LATER_MS, **more: Any) -> str:
    given = {"episodes": 50, "features_missing": ()} | more
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
        ({"schema_version": 2}, "schema 2"),
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
        ("feature_version", "v2_5m4h"),
        ("state_space_id", "state-other"),
        ("text_space_id", "text-other"),
        ("vector", "hybrid"),
        ("lookback_days", 60),
        ("evidence_k", 40),
        ("min_gap_hours", 2.5),
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


def test_it_is_of_whole_states_with_all_their_episodes() -> None:
    assert "lacks features" in warnings(features_missing=("rsi_7",))
    assert "49 were found" in warnings(episodes=49)


@given(
    st.floats(-5, 5),
    st.floats(-20, 20),
    st.floats(0, 20),
    st.floats(0, 30),
)
def test_a_band_is_widened_by_the_margin_at_todays_volatility_and_never_crossed(
    margin: float, low: float, width: float, volatility: float
) -> None:
    fitted = calibration(horizons={"1h": of_horizon(margin)})
    low_end, high_end = band(fitted, "1h", low, low + width, volatility)
    assert low_end <= high_end
    assert low_end + high_end == pytest.approx(2 * low + width, abs=1e-9)
    if margin >= 0:
        assert low_end <= low
        assert high_end - low_end == pytest.approx(
            width + 2 * margin * max(volatility, 1e-3), abs=1e-9
        )


def test_skill_is_where_the_whole_interval_lies_above_zero() -> None:
    skills = {"15m": (0.001, 0.02), "1h": (-0.02, -0.01), "4h": (0.0, 0.1), "24h": (None, None)}
    fitted = calibration(horizons={name: of_horizon(skill=of) for name, of in skills.items()})
    assert fitted.skilled_horizons == {"15m"}


def test_a_file_of_an_earlier_version_is_read_and_keeps_its_digest(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    document = msgspec.to_builtins(calibration(), str_keys=True)
    identity = ("exchange", "symbols", "feature_version", "state_space_id", "text_space_id")
    search = ("vector", "lookback_days", "evidence_k", "min_gap_hours", "include_regime_filters")
    document["scope"] = {name: document["scope"][name] for name in (*identity, *search)}
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document)) + b"\n")
    read = read_calibration(path)
    assert read == calibration()
    assert hashlib.sha256(path.read_bytes()).hexdigest().startswith(read.digest)
