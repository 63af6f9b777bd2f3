"""The JSON Schema of a reply, in what all providers of structured output take.

All keys are required and bounds are words: strict modes refuse optional keys and `minimum`.
"""

from __future__ import annotations

from typing import Any, Final

DECISION_SCHEMA_NAME: Final = "decision"


def _number_or_null(description: str) -> dict[str, Any]:
    return {"anyOf": [{"type": "number"}, {"type": "null"}], "description": description}


# The reasoning stands first, so that a model reasons before it decides.
DECISION_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "reasoning": {"type": "string", "description": "Why, in at most three sentences."},
        "action": {"type": "string", "enum": ["LONG", "SHORT", "HOLD"]},
        "confidence": {
            "type": "number",
            "description": "Probability from 0 to 1 that the position ends with a profit after "
            "costs or, for HOLD, that neither side would.",
        },
        "stop_pct": _number_or_null("Stop in % of the entry price, below 0; null means -2."),
        "target_pct": _number_or_null("Target in % of the entry price, above 0; null means 3."),
        "size_pct": _number_or_null(
            "Size in % of the equity, above 0 and at most 100; null leaves it to the risk limits."
        ),
    },
    "required": ["reasoning", "action", "confidence", "stop_pct", "target_pct", "size_pct"],
    "additionalProperties": False,
}
