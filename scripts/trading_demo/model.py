"""What the stub of a language model says: it follows the evidence of the prompt, and no more.

It reads the prompt as a model would, so that a decision changes where the evidence does. Without
evidence it follows the last hour. It is no strategy, and its trades prove nothing.
"""

from __future__ import annotations

import json
import re
from typing import Final

from tests.llm.stub.replies import StubRequest

# "4h: 0.60, -0.84 to +0.83 | +0.05 [-0.03] 52 [48] | 0.84 50"
_NUMBER: Final = r"[-+]?\d+(?:\.\d+)?"
_EVIDENCE: Final = re.compile(
    rf"^4h: .* \| ({_NUMBER}) \[({_NUMBER})\] (\d+) \[\d+\] \|", re.MULTILINE
)
_LAST_HOUR: Final = re.compile(rf"^change 1h ({_NUMBER})%", re.MULTILINE)
# Of the mean beyond the base rate, or of the last hour, in %: enough for a few trades a day.
_LEAST_PCT: Final = 0.15
_STOP_PCT: Final = -0.8
_TARGET_PCT: Final = 1.2


def follow_evidence(request: StubRequest) -> str:
    """The reply, a JSON object of the schema."""
    shown = _EVIDENCE.search(request.prompt)
    if shown is not None:
        mean, usual = float(shown[1]), float(shown[2])
        beyond, share_up = mean - usual, int(shown[3]) / 100
        why = f"After similar states {mean:+.2f} % in 4h, and usually {usual:+.2f} %."
    else:
        change = _LAST_HOUR.search(request.prompt)
        beyond, share_up = (0.0 if change is None else float(change[1])), 0.5
        why = "There is no evidence; I go by the last hour."
    action = "HOLD" if abs(beyond) < _LEAST_PCT else "LONG" if beyond > 0 else "SHORT"
    is_held = action == "HOLD"
    reply = {
        "reasoning": why,
        "action": action,
        "confidence": max(share_up, 1 - share_up),
        "stop_pct": None if is_held else _STOP_PCT,
        "target_pct": None if is_held else _TARGET_PCT,
        "size_pct": None,
    }
    return json.dumps(reply)
