from __future__ import annotations

import msgspec
import pytest

from llm_trader.errors import InvalidInputError
from llm_trader.llm.decision import Action, Decision, HoldReason


@pytest.mark.parametrize("action", ["LONG", "SHORT"])
def test_a_side_needs_no_reason_to_hold(action: Action) -> None:
    assert Decision(action, 0.7, "because").hold_reason is None
    with pytest.raises(InvalidInputError, match="hold_reason"):
        Decision(action, 0.7, "because", "model")


@pytest.mark.parametrize("why", ["model", "error", "guard"])
def test_a_hold_says_why_it_is_one(why: HoldReason) -> None:
    assert Decision("HOLD", 0.2, "nothing to do", why).hold_reason == why
    assert Decision.hold(why, "nothing to do") == Decision("HOLD", None, "nothing to do", why)
    with pytest.raises(InvalidInputError, match="hold_reason"):
        Decision("HOLD", 0.2, "nothing to do")


@pytest.mark.parametrize("confidence", [-0.01, 1.01, float("nan"), float("inf")])
def test_a_confidence_that_is_no_share_is_refused(confidence: float) -> None:
    with pytest.raises(InvalidInputError, match="confidence"):
        Decision("LONG", confidence, "because")


def test_a_confidence_may_be_unknown_and_stays_so_on_the_wire() -> None:
    decision = Decision.hold("error", "no reply in time")
    written = msgspec.json.encode(decision)
    assert b'"confidence":null' in written
    assert msgspec.json.decode(written, type=Decision) == decision


def test_other_words_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="action"):
        Decision("BUY", 0.5, "because")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="hold_reason"):
        Decision("HOLD", 0.5, "because", "tired")  # type: ignore[arg-type]
