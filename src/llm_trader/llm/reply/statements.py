"""A reply without JSON: labelled lines, or a single statement, and nothing else.

Prose that talks about the options, quotes somebody, or takes a decision back can be told from a
decision by no rule. So the only prose is that of a reasoning, and it names no other action.
"""

from __future__ import annotations

import re
from typing import Any, Final

from llm_trader.llm.decision import Action, Decision
from llm_trader.llm.reply.error import ReplyError
from llm_trader.llm.reply.fields import ACTIONS, confidence_of, make_decision

_WORD: Final = r"(?P<action>LONG|SHORT|HOLD)"
_LABEL: Final = r"(?:my |the )?(?:final )?(?:trading )?(?:action|decision|answer|recommendation)"
_CONFIDENCE: Final = r"confidence(?: of)?\s*[:=]?\s*(?P<confidence>[\d.]{1,9}\s?%?)"
_STATEMENT: Final = re.compile(
    rf"(?:{_LABEL}(?:\s*[:=]\s*| is )|I (?:choose|decide on|go) )?{_WORD}"
    rf"(?:,? (?:with )?(?:a )?{_CONFIDENCE}|,? ?\({_CONFIDENCE.replace('confidence>', 'inside>')}\))?"
    r"[.!]?",
    re.IGNORECASE,
)
_LABELLED: Final = re.compile(rf"{_LABEL}\s*(?:[:=]|is\b)", re.IGNORECASE)
_FIELD: Final = re.compile(
    r"(?P<name>confidence|reasoning|reason|rationale|stop|stop_pct|stop.loss|target|target_pct"
    r"|take.profit|size|size_pct)\s*[:=]\s*(?P<value>.+)",
    re.IGNORECASE,
)
_NAMES: Final = {
    "reason": "reasoning",
    "rationale": "reasoning",
    "stop": "stop_pct",
    "stop loss": "stop_pct",
    "target": "target_pct",
    "take profit": "target_pct",
    "size": "size_pct",
}
# Not a part of `LONG-term` or of `go-long`.
_MENTION: Final = re.compile(r"(?<![\w-])(LONG|SHORT|HOLD)(?![\w-])", re.IGNORECASE)
_MARKUP: Final = re.compile(r"[*`_#]+|^[-•] ")


def read_statements(text: str) -> Decision:
    """The decision of a text without JSON. Raises `ReplyError`."""
    lines = [_MARKUP.sub("", line.strip()).strip() for line in text.splitlines()]
    lines = [line for line in lines if line]
    if len(lines) == 1:
        lines = [lines[0].strip("\"'")]
    action, fields = _parse(lines)
    reasoning = fields.pop("reasoning", "")
    for mention in _MENTION.findall(reasoning):
        if mention.upper() != action:
            raise ReplyError(
                "ambiguous", f"it decides {action}, but its reasoning also names {mention}"
            )
    confidence = confidence_of(fields.pop("confidence", None))
    return make_decision(action, confidence, reasoning, fields)


def stated_action(line: str) -> Action | None:
    """The action of a line that states one by a label."""
    statement = _STATEMENT.fullmatch(_MARKUP.sub("", line.strip()).strip())
    return ACTIONS[statement["action"].upper()] if statement else None


def _parse(lines: list[str]) -> tuple[Action, dict[str, Any]]:
    """The action that is stated once, and the other fields by name."""
    action: Action | None = None
    fields: dict[str, Any] = {}
    in_reasoning = False
    for line in lines:
        if statement := _STATEMENT.fullmatch(line):
            if action is not None or fields.get("reasoning", "").endswith(":"):
                raise ReplyError("ambiguous", "it states an action twice, or quotes one")
            action, in_reasoning = ACTIONS[statement["action"].upper()], False
            if confidence := statement["confidence"] or statement["inside"]:
                _add(fields, "confidence", confidence)
        elif field := _FIELD.fullmatch(line):
            name = re.sub(r"[\W]", " ", field["name"].lower())
            name = _NAMES.get(name, name)
            in_reasoning = name == "reasoning"
            _add(fields, name, field["value"].strip())
        elif in_reasoning and not _LABELLED.match(line):
            fields["reasoning"] += f"\n{line}"
        else:
            raise _not_a_decision(line)
    if action is None:
        raise ReplyError("unreadable", "it states no action")
    return action, fields


def _add(fields: dict[str, Any], name: str, value: str) -> None:
    if name in fields:
        raise ReplyError("ambiguous", f"it gives {name} twice")
    fields[name] = value


def _not_a_decision(line: str) -> ReplyError:
    named = {mention.upper() for mention in _MENTION.findall(line)}
    if len(named) > 1:
        return ReplyError("ambiguous", "it names several actions and decides for none")
    return ReplyError("unreadable", "it is neither a JSON object nor a plain statement")
