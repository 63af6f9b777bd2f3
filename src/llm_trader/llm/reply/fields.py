"""The fields of a reply, checked one by one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from llm_trader.llm.decision import Action, Decision
from llm_trader.llm.reply.error import ReplyError

ACTIONS: Final[dict[str, Action]] = {"LONG": "LONG", "SHORT": "SHORT", "HOLD": "HOLD"}
DEFAULT_STOP_PCT: Final = -2.0
DEFAULT_TARGET_PCT: Final = 3.0

# The whole reply is in the record.
_MOST_REASONING_CHARACTERS: Final = 2_000
_NUMBER: Final = re.compile(r"([+-]?\d{1,9}(?:\.\d{1,12})?)\s*(%?)", re.ASCII)


class _Range(NamedTuple):
    low: float
    high: float
    words: str


# A stop or target nearer than 0.1 % is a fraction that was meant as a percentage, or is touched by
# noise at once; one beyond is a price.
_RANGES: Final = {
    "stop_pct": _Range(-50, -0.1, "from -50 to -0.1, such as -2 for 2 % against the position"),
    "target_pct": _Range(0.1, 100, "from 0.1 to 100, such as 3 for 3 % in its favour"),
    "size_pct": _Range(0.01, 100, "from 0.01 to 100, such as 10 for 10 % of the equity"),
}


def decision_of(fields: Mapping[str, Any]) -> Decision:
    """The decision of an object with the key `action`. Raises `ReplyError`."""
    action = _action(fields["action"])
    _refuse_another_action(fields, action)
    confidence = confidence_of(fields["confidence"]) if "confidence" in fields else None
    if confidence is None:
        raise ReplyError("invalid", "confidence is missing; give a number from 0 to 1")
    reasoning = fields.get("reasoning")
    if not isinstance(reasoning, str) or not reasoning.strip():
        raise ReplyError("invalid", "reasoning is missing; give one to three sentences")
    return make_decision(action, confidence, reasoning, fields)


def make_decision(
    action: Action, confidence: float | None, reasoning: str, distances: Mapping[str, Any]
) -> Decision:
    """A decision with the defaults for the distances that are missing; a HOLD has none."""
    words = shortened(reasoning)
    if action == "HOLD":
        return Decision(action, confidence, words, "model")
    stop, target, size = (_distance(distances.get(name), name) for name in _RANGES)
    return Decision(
        action,
        confidence,
        words,
        stop_pct=DEFAULT_STOP_PCT if stop is None else stop,
        target_pct=DEFAULT_TARGET_PCT if target is None else target,
        size_pct=size,
    )


def shortened(reasoning: str) -> str:
    # A lone half of a surrogate pair, which JSON can spell, cannot be stored.
    words = reasoning.strip().encode(errors="replace").decode()
    if len(words) <= _MOST_REASONING_CHARACTERS:
        return words
    return f"{words[:_MOST_REASONING_CHARACTERS]}…"


def confidence_of(value: Any) -> float | None:
    """A confidence from 0 to 1, also as text or in %; None for null. Raises `ReplyError`."""
    if value is None:
        return None
    number, is_pct = _number(value, "confidence")
    if is_pct and 0 <= number <= 100:
        return number / 100
    if is_pct or not 0 <= number <= 1:
        # 85 is not taken for 85 %: whoever misreads the scale may have meant anything.
        raise ReplyError(
            "invalid", f"confidence {_shown(value)} is not from 0 to 1, such as 0.85 for 85 %"
        )
    return float(number)


def _action(value: Any) -> Action:
    word = _word(value)
    if word not in ACTIONS:
        raise ReplyError(
            "invalid", f'action {_shown(value)} is not one of "LONG", "SHORT" and "HOLD"'
        )
    return ACTIONS[word]


def _word(value: Any) -> str:
    """In capitals; empty for what is no plain word."""
    return value.strip().upper() if isinstance(value, str) and value.isascii() else ""


def _refuse_another_action(fields: Mapping[str, Any], action: Action) -> None:
    """Where another key names another action, nobody knows which one is meant."""
    for key, value in fields.items():
        word = _word(value)
        if key.lower() != "reasoning" and word in ACTIONS and word != action:
            raise ReplyError(
                "ambiguous", f"action is {action}, but {_shown(key)} is {word}; give action alone"
            )


def _distance(value: Any, name: str) -> float | None:
    if value is None:
        return None
    number, _ = _number(value, name)
    low, high, words = _RANGES[name]
    if not low <= number <= high:
        raise ReplyError("invalid", f"{name} {_shown(value)} is not {words}; or give null")
    return float(number)


def _number(value: Any, name: str) -> tuple[float, bool]:
    """A number, and whether it has a percent sign."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value, False
    match = _NUMBER.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ReplyError("invalid", f"{name} {_shown(value)} is not a number")
    return float(match[1]), bool(match[2])


def _shown(value: Any) -> str:
    """A value of the reply in a message, bounded."""
    if isinstance(value, int) and abs(value) > 10**15:
        return "with so many digits"  # Python does not even write the longest ones
    text = repr(value) if isinstance(value, str | int | float | None) else type(value).__name__
    return text if len(text) <= 40 else f"{text[:40]}…"
