"""The prompt of a decision, of a state and what was retrieved for it.

Both arms have the same text but for the section of the evidence, so that comparing them measures
what the evidence is worth.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from llm_trader.llm.prompt.evidence import evidence_lines
from llm_trader.llm.prompt.market import market_lines
from llm_trader.llm.prompt.retrieved import Retrieved
from llm_trader.llm.prompt.system import system_text
from llm_trader.llm.providers.protocol import Message
from llm_trader.snapshot.model import MarketSnapshot

Arm = Literal["rag", "baseline"]
ARMS: Final[tuple[Arm, Arm]] = ("rag", "baseline")

# Another one whenever the text of any prompt changes; `scripts/prompt_examples.py` holds to that.
TEMPLATE_VERSION: Final = "prompt-1"

_QUESTION: Final = "Decide now: LONG, SHORT or HOLD? Reply with the JSON object only."


class PromptOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a prompt depends on beside the state and the evidence.

    A `masked` prompt names neither the symbol nor its price, so that a model cannot remember what
    followed.
    """

    masked: bool = False
    longest_hold_hours: Annotated[int, Meta(ge=1, le=999)] = 4
    round_trip_cost_pct: Annotated[float, Meta(ge=0, le=100)] = 0.13


DEFAULT_OPTIONS: Final = PromptOptions()


class Prompt(msgspec.Struct, frozen=True):
    """The texts for a model. `has_evidence` is false for `rag` where nothing was retrieved."""

    system: str
    user: str
    arm: Arm
    has_evidence: bool
    template_version: str = TEMPLATE_VERSION

    @property
    def messages(self) -> tuple[Message, ...]:
        return (Message("user", self.user),)

    @property
    def digest(self) -> str:
        """SHA-256 of both texts, in hex."""
        return hashlib.sha256(msgspec.json.encode([self.system, self.user])).hexdigest()


def render_prompt(
    arm: Arm,
    snapshot: MarketSnapshot,
    retrieved: Retrieved | None,
    options: PromptOptions = DEFAULT_OPTIONS,
) -> Prompt:
    """The prompt of an arm. Where `rag` has no evidence its text is that of `baseline`."""
    market = market_lines(snapshot, options.masked)
    return _prompt(arm, market, _evidence(snapshot, retrieved if arm == "rag" else None), options)


def render_both(
    snapshot: MarketSnapshot,
    retrieved: Retrieved | None,
    options: PromptOptions = DEFAULT_OPTIONS,
) -> tuple[Prompt, Prompt]:
    """The prompts `rag` and `baseline` of a state, whose lines of the market are written once."""
    market = market_lines(snapshot, options.masked)
    rag = _prompt("rag", market, _evidence(snapshot, retrieved), options)
    return rag, _prompt("baseline", market, [], options)


def _evidence(snapshot: MarketSnapshot, retrieved: Retrieved | None) -> list[str]:
    if retrieved is None:
        return []
    return evidence_lines(retrieved, snapshot.timestamp, snapshot.price)


def _prompt(arm: Arm, market: list[str], evidence: list[str], options: PromptOptions) -> Prompt:
    shown = ["\n".join(lines) for lines in (market, evidence, [_QUESTION]) if lines]
    return Prompt(
        system=system_text(options.longest_hold_hours, options.round_trip_cost_pct),
        user="\n\n".join(shown),
        arm=arm,
        has_evidence=len(shown) == len(("market", "evidence", "question")),
    )
