"""From the text of a reply to a decision."""

from __future__ import annotations

import re
from typing import Final

from llm_trader.llm.decision import Decision
from llm_trader.llm.providers.protocol import Finish
from llm_trader.llm.reply.error import ReplyError
from llm_trader.llm.reply.fields import decision_of
from llm_trader.llm.reply.objects import FinalObject, final_object
from llm_trader.llm.reply.statements import read_statements, stated_action

# Some 10,000 tokens: no decision is so long.
_MOST_CHARACTERS: Final = 40_000
_OPENING: Final = re.compile(r"\s*<(think|thinking)>", re.IGNORECASE)
# On a line of its own it cannot be a part of a JSON string.
_CLOSING: Final = re.compile(r"^[ \t]*</(?:think|thinking)>[ \t]*$", re.IGNORECASE | re.MULTILINE)


def read_reply(text: str, finish: Finish) -> Decision:
    """The decision that a reply states beyond doubt. Raises `ReplyError`, and nothing else."""
    if finish == "refused":
        raise ReplyError("refused", "the model declined to decide")
    if finish == "truncated":
        raise ReplyError("truncated", "it was cut off at the limit of its length; be brief")
    answer = _without_thinking(text.removeprefix("\ufeff")).strip()
    if not answer:
        raise ReplyError("empty", "it is empty")
    if len(answer) > _MOST_CHARACTERS:
        raise ReplyError("unreadable", f"it is longer than {_MOST_CHARACTERS} characters")
    found = final_object(answer)
    if found is None:
        return _read_without_object(answer)
    decision = decision_of(found.fields)
    _refuse_contradiction(found, decision)
    return decision


def _read_without_object(answer: str) -> Decision:
    if "{" in answer or '"action"' in answer:
        raise ReplyError("unreadable", "its JSON object does not stand on lines of its own")
    return read_statements(answer)


def _without_thinking(text: str) -> str:
    """What follows the thoughts that some open models write into their replies."""
    opening = _OPENING.match(text)
    if opening is not None:
        closing = f"</{opening[1]}>"
        return text[opening.end() :].partition(closing)[2]
    *_, end = 0, *(match.end() for match in _CLOSING.finditer(text))
    return text[end:]


def _refuse_contradiction(found: FinalObject, decision: Decision) -> None:
    for line in found.prose.splitlines():
        if stated_action(line) not in (None, decision.action):
            raise ReplyError(
                "ambiguous",
                f"its text decides {stated_action(line)}, its JSON object {decision.action}",
            )
