"""When a snapshot is made: as soon as its data is there, else after the longest wait."""

from __future__ import annotations

from uuid import UUID

import pytest

from llm_trader.delivery.boundary import DataEnds, decide, pause_s
from llm_trader.delivery.config import IntakeAddress, parse_intake
from llm_trader.delivery.jobs import job_id, snapshot_id
from llm_trader.errors import ConfigurationError
from llm_trader.settings.loading import load_settings
from llm_trader.timeframe import DAY_MS, HOUR_MS, M3, M5, MINUTE_MS, SECOND_MS

NOON_MS = 20_000 * DAY_MS + 12 * HOUR_MS
QUARTER_PAST_MS = NOON_MS + 15 * MINUTE_MS
WAIT_MS = 10 * SECOND_MS


def ends(**changes: object) -> DataEnds:
    """All that is to be known at noon, and at a quarter past."""
    whole = {
        "intraday": M5,
        "intraday_close_ms": QUARTER_PAST_MS,
        "four_hour_close_ms": NOON_MS,
        "open_interest_ms": NOON_MS,
        "open_interest_interval_ms": HOUR_MS,
        "funding_ms": NOON_MS - 4 * HOUR_MS,
        "funding_interval_hours": 8.0,
    }
    return DataEnds(**(whole | changes))  # type: ignore[arg-type]


def test_whole_data_is_not_waited_for() -> None:
    assert decide(ends(), QUARTER_PAST_MS, QUARTER_PAST_MS, WAIT_MS) == (True, ())


@pytest.mark.parametrize(
    ("changes", "late"),
    [
        ({"intraday_close_ms": QUARTER_PAST_MS - M5.ms}, "5m candles"),
        ({"intraday_close_ms": None}, "5m candles"),
        ({"four_hour_close_ms": NOON_MS - 4 * HOUR_MS}, "4h candles"),
        ({"open_interest_ms": NOON_MS - HOUR_MS}, "open interest"),
        ({"funding_ms": NOON_MS - 8 * HOUR_MS}, "funding"),
        ({"funding_ms": NOON_MS - 8 * HOUR_MS + 17}, "funding"),
    ],
)
def test_late_data_is_named_and_waited_for_no_longer_than_allowed(
    changes: dict[str, object], late: str
) -> None:
    data = ends(**changes)
    for after_ms, is_due in ((0, False), (WAIT_MS - 1, False), (WAIT_MS, True)):
        decision = decide(data, QUARTER_PAST_MS, QUARTER_PAST_MS + after_ms, WAIT_MS)
        assert decision == (is_due, (late,))


def test_what_a_market_does_not_have_is_not_waited_for() -> None:
    data = ends(four_hour_close_ms=None, open_interest_ms=None, funding_ms=None)
    assert decide(data, NOON_MS, NOON_MS, WAIT_MS).is_due


def test_candles_that_close_within_the_interval_of_a_boundary_count() -> None:
    at_ms = NOON_MS + 10 * MINUTE_MS  # 3-minute candles close at 9 past
    data = ends(intraday=M3, intraday_close_ms=NOON_MS + 9 * MINUTE_MS)
    assert decide(data, at_ms, at_ms, WAIT_MS).is_due


def test_pauses_double_to_ten_seconds() -> None:
    pauses = [pause_s(attempt) for attempt in range(2000)]
    assert pauses[:4] == [0.2, 0.4, 0.8, 1.6]
    assert max(pauses) == 10
    assert pauses == sorted(pauses)


def test_ids_name_a_snapshot_and_an_intake_and_nothing_else() -> None:
    one = snapshot_id("BTCUSDT", NOON_MS, "bybit", "v2_5m4h")
    assert one == snapshot_id("BTCUSDT", NOON_MS, "bybit", "v2_5m4h")
    others = {
        snapshot_id("ETHUSDT", NOON_MS, "bybit", "v2_5m4h"),
        snapshot_id("BTCUSDT", QUARTER_PAST_MS, "bybit", "v2_5m4h"),
        snapshot_id("BTCUSDT", NOON_MS, "binance", "v2_5m4h"),
        snapshot_id("BTCUSDT", NOON_MS, "bybit", "v3_5m4h"),
        job_id(one, "a:1"),
        job_id(one, "b:1"),
    }
    assert len(others - {one}) == 6
    assert {UUID(text).version for text in (one, *others)} == {5}
    # Receivers keep ids over restarts and upgrades.
    assert one == "e7ed8746-bcaf-575b-abea-b109c1589651"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:7880", IntakeAddress("127.0.0.1", 7880)),
        ("intake.local:1", IntakeAddress("intake.local", 1)),
        ("[::1]:7880", IntakeAddress("::1", 7880)),
        ("MY_TOKEN@box:7880", IntakeAddress("box", 7880, "MY_TOKEN")),
    ],
)
def test_an_intake_is_an_address_and_perhaps_the_name_of_a_variable(
    text: str, address: IntakeAddress
) -> None:
    assert parse_intake(text) == address


@pytest.mark.parametrize(
    "text", ["", "box", "box:", "box:0", "box:70000", "my-secret@box:1", "tcp://box:1", "a b:1"]
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="should be HOST:PORT"):
        parse_intake(text)


def test_intakes_come_from_the_environment_and_may_name_variables_of_tokens() -> None:
    environ = {"LLM_TRADER_DELIVERY__INTAKES": "box:1, LLM_TRADER_BOX_TOKEN@box:2"}
    settings = load_settings(environ=environ | {"LLM_TRADER_BOX_TOKEN": "secret"})
    assert settings.delivery.intakes == ("box:1", "LLM_TRADER_BOX_TOKEN@box:2")


def test_a_token_in_the_place_of_its_variable_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigurationError) as refused:
        load_settings(environ={"LLM_TRADER_DELIVERY__INTAKES": "box:1,my-secret@box:2"})
    assert "delivery.intakes should be HOST:PORT" in str(refused.value)
    assert "LLM_TRADER_DELIVERY__INTAKES" in str(refused.value)
    assert "my-secret" not in str(refused.value)
