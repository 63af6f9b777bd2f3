from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.llm.decision import Decision
from llm_trader.llm.providers.protocol import Finish
from llm_trader.llm.reply.error import ReplyError
from llm_trader.llm.reply.reading import read_reply
from llm_trader.llm.reply.schema import DECISION_SCHEMA
from tests.llm.reply.awkward import AWKWARD, Awkward, reply

FINISHES: tuple[Finish, ...] = ("complete", "truncated", "refused")
FRAGMENTS = (
    *("LONG", "SHORT", "HOLD", "long", "LONG-term", "not ", "or ", "no ", "Action: ", "Decision: "),
    *(
        "Reasoning: ",
        "Confidence: 0.7",
        "I choose ",
        "The news says: ",
        "```json",
        "```",
        "<think>",
    ),
    *("</think>", "{", "}", "[", "]", '"', '"action": "LONG"', '"action": "HOLD"', ": ", ", "),
    *("\n", "\n\n", " ", ".", "?", "\ufeff", "\ud800", "だ", "%", "85", "\x00", "\u2028"),
    *(reply("LONG"), reply("SHORT"), reply("HOLD")),
)
TEXTS = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=5), max_size=12).map("".join)


def read(text: str, finish: Finish = "complete") -> Decision | ReplyError:
    try:
        return read_reply(text, finish)
    except ReplyError as error:
        return error


def reading(text: str, finish: Finish = "complete") -> str:
    result = read(text, finish)
    return result.action if isinstance(result, Decision) else result.kind


@pytest.mark.parametrize("case", AWKWARD, ids=lambda case: case.name)
def test_an_awkward_reply_is_read_as_expected(case: Awkward) -> None:
    assert reading(case.text, case.finish) == case.expected


def test_the_table_of_awkward_replies_has_each_of_them_once() -> None:
    assert len({(case.text, case.finish) for case in AWKWARD}) == len(AWKWARD) >= 80


def test_what_is_left_out_takes_the_defaults() -> None:
    decision = read_reply(reply("SHORT"), "complete")
    assert decision == Decision("SHORT", 0.7, "The trend is up.", None, -2.0, 3.0, None)


def test_what_is_said_is_kept() -> None:
    text = reply(confidence="55%", stop_pct="-1.5%", target_pct=4, size_pct=10)
    assert read_reply(text, "complete") == Decision(
        "LONG", 0.55, "The trend is up.", None, -1.5, 4.0, 10.0
    )


def test_a_hold_is_that_of_the_model_and_has_no_stop_target_or_size() -> None:
    text = reply("HOLD", stop_pct=-2, target_pct=3, size_pct=10)
    assert read_reply(text, "complete") == Decision("HOLD", 0.7, "The trend is up.", "model")


def test_lines_of_fields_are_read_like_an_object() -> None:
    text = "Action: LONG\nConfidence: 60%\nStop_pct: -1\nTake profit: 4%\nSize: 5\nReason: up"
    assert read_reply(text, "complete") == Decision("LONG", 0.6, "up", None, -1.0, 4.0, 5.0)


def test_a_long_reasoning_is_shortened_and_can_be_stored() -> None:
    decision = read_reply(reply(reasoning="up " * 2_000), "complete")
    assert len(decision.reasoning) == 2_001
    lone = read_reply(reply().replace("The", "\\ud800"), "complete").reasoning
    assert lone.encode() == b"? trend is up."


def test_a_reply_of_the_schema_is_read() -> None:
    assert set(json.loads(reply())) == set(DECISION_SCHEMA["properties"])
    assert DECISION_SCHEMA["required"] == list(DECISION_SCHEMA["properties"])
    for action in DECISION_SCHEMA["properties"]["action"]["enum"]:
        assert read_reply(reply(action), "complete").action == action


@given(TEXTS, st.sampled_from(FINISHES))
def test_any_text_is_a_decision_or_a_reply_error_that_can_be_shown(
    text: str, finish: Finish
) -> None:
    result = read(text, finish)
    if isinstance(result, ReplyError):
        assert 0 < len(result.message) < 300
        result.message.encode()
    else:
        assert finish == "complete"
        result.reasoning.encode()


@given(TEXTS)
def test_a_side_is_stated_by_the_end_of_the_reply_and_by_nothing_against_it(text: str) -> None:
    result = read(text)
    if not isinstance(result, Decision) or result.action == "HOLD":
        return
    thoughts_end = [match.end() for match in re.finditer(r"</think>", text)]
    endings = [text[end:] for end in (0, *thoughts_end)]
    assert any(
        _ends_with_object(end, result.action) or _is_plain(end, result.action) for end in endings
    )


def _ends_with_object(text: str, action: str) -> bool:
    text = text.strip("\ufeff \n\t\x00\u2028").removesuffix("```").rstrip()
    for start in (match.start() for match in re.finditer(r"\{", text)):
        try:
            fields = json.loads(text[start:])
        except ValueError:
            continue
        return str(fields.get("action")).strip().upper() == action
    return False


def _is_plain(text: str, action: str) -> bool:
    others = {"LONG", "SHORT", "HOLD"} - {action}
    words = re.findall(r"[\w-]+", text.upper(), re.ASCII)
    return action in words and not others & set(words) and not {"NOT", "OR"} & set(words)


@given(st.sampled_from(["LONG", "SHORT"]), st.sampled_from(["LONG", "SHORT", "HOLD"]))
def test_a_second_object_or_a_label_of_another_action_is_never_overruled(
    action: str, other: str
) -> None:
    expected = action if action == other else "ambiguous"
    assert reading(f"{reply(other)}\n{reply(action)}") == expected
    assert reading(f"Decision: {other}\n{reply(action)}") == expected
