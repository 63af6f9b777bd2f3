from __future__ import annotations

import pytest

from llm_trader.llm.providers.protocol import Message
from llm_trader.llm.reply.error import ReplyError
from llm_trader.llm.reply.reading import read_reply
from llm_trader.llm.reply.repair import repair_messages
from tests.llm.reply.awkward import AWKWARD, reply

ASKED = (Message("user", "Decide now."),)


def repaired(text: str) -> tuple[Message, ...]:
    with pytest.raises(ReplyError) as raised:
        read_reply(text, "complete")
    return repair_messages(ASKED, text, raised.value)


def test_the_model_sees_what_it_was_asked_its_own_reply_and_what_is_wrong_with_it() -> None:
    text = reply(confidence=85)
    first, own, demand = repaired(text)
    assert (first, own) == (ASKED[0], Message("assistant", text))
    assert demand.role == "user"
    assert "confidence 85 is not from 0 to 1, such as 0.85 for 85 %" in demand.text
    assert '"action": "LONG" or "SHORT" or "HOLD"' in demand.text


def test_an_empty_reply_is_shown_as_empty_since_providers_refuse_empty_messages() -> None:
    assert repaired("  ")[1].text == "(empty)"


def test_a_long_reply_is_shown_in_part_and_can_be_sent() -> None:
    shown = repaired("\ud800" + "x" * 30_000)[1].text
    assert len(shown) == 4_001
    shown.encode()


def test_every_error_but_a_refusal_may_be_repaired() -> None:
    kinds = {case.expected for case in AWKWARD} - {"LONG", "SHORT", "HOLD"}
    assert {kind for kind in kinds if not ReplyError(kind, "").repairable} == {"refused"}
