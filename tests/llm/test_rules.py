from __future__ import annotations

import pytest

from llm_trader.errors import InvalidInputError
from llm_trader.llm.rules import AlwaysLong, MacdSign, RsiReversal
from tests.llm.builders import case


async def test_holding_the_asset_is_always_long() -> None:
    assert (await AlwaysLong().decide(case())).action == "LONG"


@pytest.mark.parametrize(
    ("rsi", "action"),
    [(0.0, "LONG"), (29.9, "LONG"), (30.0, "HOLD"), (70.0, "HOLD"), (70.1, "SHORT")],
)
async def test_rsi_buys_what_has_fallen_and_sells_what_has_risen(rsi: float, action: str) -> None:
    decision = await RsiReversal().decide(case(rsi_7=rsi))
    assert decision.action == action
    assert decision.hold_reason == ("model" if action == "HOLD" else None)


async def test_rsi_thresholds_are_arguments() -> None:
    assert (await RsiReversal(low=50, high=50).decide(case(rsi_7=49.0))).action == "LONG"
    with pytest.raises(InvalidInputError):
        RsiReversal(low=70, high=30)


@pytest.mark.parametrize(("macd", "action"), [(1e-9, "LONG"), (-3.0, "SHORT"), (0.0, "HOLD")])
async def test_macd_follows_its_sign(macd: float, action: str) -> None:
    assert (await MacdSign().decide(case(macd=macd))).action == action


async def test_an_unknown_indicator_is_a_hold_of_the_guard() -> None:
    for decider in (RsiReversal(), MacdSign()):
        assert (await decider.decide(case())).hold_reason == "guard"
