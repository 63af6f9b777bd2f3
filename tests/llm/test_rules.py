from __future__ import annotations

from collections import Counter

import pytest

from llm_trader.errors import InvalidInputError
from llm_trader.llm.rules import AlwaysLong, MacdSign, RandomSides, RsiReversal
from llm_trader.timeframe import MINUTE_MS
from tests.llm.builders import NOON_MS, case


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


async def test_random_sides_come_as_often_as_asked() -> None:
    decider = RandomSides(longs=0.2, shorts=0.5, seed=3)
    times = range(NOON_MS, NOON_MS + 4000 * 15 * MINUTE_MS, 15 * MINUTE_MS)
    drawn: Counter[str] = Counter()
    for time in times:
        drawn[(await decider.decide(case(as_of_ms=time))).action] += 1
    # Five standard deviations of a share among 4,000.
    for action, share in (("LONG", 0.2), ("SHORT", 0.5), ("HOLD", 0.3)):
        assert abs(drawn[action] / 4000 - share) < 5 * (share * (1 - share) / 4000) ** 0.5


async def test_random_sides_depend_on_seed_symbol_and_time_and_not_on_the_order() -> None:
    cases = [
        case(symbol=symbol, as_of_ms=NOON_MS + i * MINUTE_MS)
        for symbol in ("BTCUSDT", "ETHUSDT")
        for i in range(60)
    ]

    async def drawn(seed: int, reverse: bool = False) -> list[str]:
        decider = RandomSides(0.5, 0.5, seed)
        order = cases[::-1] if reverse else cases
        actions: list[str] = [(await decider.decide(one)).action for one in order]
        return actions[::-1] if reverse else actions

    assert await drawn(1) == await drawn(1, reverse=True)
    assert await drawn(1) != await drawn(2)
    assert (await drawn(1))[:60] != (await drawn(1))[60:]


@pytest.mark.parametrize(("longs", "shorts"), [(-0.1, 0.5), (0.6, 0.5), (float("nan"), 0.1)])
def test_impossible_frequencies_are_refused(longs: float, shorts: float) -> None:
    with pytest.raises(InvalidInputError):
        RandomSides(longs, shorts)


@pytest.mark.parametrize(("longs", "shorts"), [(1.0, 0.0), (0.9, 0.1)])
async def test_frequencies_of_one_together_never_hold(longs: float, shorts: float) -> None:
    decider = RandomSides(longs, shorts)
    for i in range(200):
        decision = await decider.decide(case(as_of_ms=NOON_MS + i * MINUTE_MS))
        assert decision.action != "HOLD"
