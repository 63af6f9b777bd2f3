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

# Other alphabets have letters that count as equal to ours without regard to case.
_FLAGS: Final = re.IGNORECASE | re.ASCII
_WORD: Final = r"(?P<action>LONG|SHORT|HOLD)"
_LABEL: Final = r"(?:my |the )?(?:final )?(?:trading )?(?:action|decision|answer|recommendation)"
_CONFIDENCE: Final = r"confidence(?: of)?\s*[:=]?\s*(?P<{}>[\d.]{{1,9}}\s?%?)"
_STATEMENT: Final = re.compile(
    rf"(?:{_LABEL}(?:\s*[:=]\s*| is )|I (?:choose|decide on|go) )?{_WORD}"
    rf"(?:,? (?:with )?(?:a )?{_CONFIDENCE.format('stated')}"
    rf"|,? ?\({_CONFIDENCE.format('bracketed')}\))?"
    r"[.!]?",
    _FLAGS,
)
_LABELLED: Final = re.compile(rf"{_LABEL}\s*(?:[:=]|is\b)", _FLAGS)
_FIELD: Final = re.compile(
    r"(?P<name>confidence|reasoning|reason|rationale|stop|stop_pct|stop.loss|target|target_pct"
    r"|take.profit|size|size_pct)\s*[:=]\s*(?P<value>.+)",
    _FLAGS,
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
_MENTION: Final = re.compile(r"(?<![\w-])(LONG|SHORT|HOLD)(?![\w-])", _FLAGS)
_NEGATION: Final = re.compile(r"\b(?:not|no|never|avoid|against|than|instead)\b|n['’]t\b", _FLAGS)
_SENTENCE_END: Final = re.compile(r"[.;:\n]")
_MARKUP: Final = re.compile(r"[*`#]+|^[-•] ")


def read_statements(text: str) -> Decision:
    """The decision of a text without JSON. Raises `ReplyError`."""
    lines = list(filter(None, map(_bare, text.splitlines())))
    if len(lines) == 1:
        lines = [lines[0].strip("\"'.!")]
    action, fields = _parse(lines)
    reasoning = fields.pop("reasoning", "")
    if _speaks_against(reasoning, action):
        raise ReplyError("ambiguous", f"it decides {action}, but its reasoning speaks against it")
    confidence = confidence_of(fields.pop("confidence", None))
    return make_decision(action, confidence, reasoning, fields)


def stated_action(line: str) -> Action | None:
    """The action of a line that states one by a label."""
    statement = _STATEMENT.fullmatch(_bare(line))
    return ACTIONS[statement["action"].upper()] if statement else None


def _speaks_against(reasoning: str, action: Action) -> bool:
    """Whether a sentence names another action, or this one with a negation."""
    for sentence in _SENTENCE_END.split(reasoning):
        named = {mention.upper() for mention in _MENTION.findall(sentence)}
        if named - {action} or (named and _NEGATION.search(sentence)):
            return True
    return False


def _bare(line: str) -> str:
    """A line without emphasis and list marks, its words one space apart."""
    return " ".join(_MARKUP.sub("", line.strip()).split())


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
            if confidence := statement["stated"] or statement["bracketed"]:
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
