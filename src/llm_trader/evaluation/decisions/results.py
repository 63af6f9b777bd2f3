"""What a study of reading finds, as it is written to `reads.json` and shown in its report."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from llm_trader.evaluation.results import Origin, Price
from llm_trader.llm.decision import Action, HoldReason
from llm_trader.retrieval.intervals import Interval

READS_SCHEMA_VERSION: Final = 1

# `repeat` asks the same again: what changes there is noise.
Alteration = Literal["repeat", "flip", "shuffle", "removal"]
ALTERATIONS: Final[tuple[Alteration, ...]] = ("repeat", "flip", "shuffle", "removal")
ReadingVerdict = Literal["reads it", "ignores it", "cannot tell"]


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """What one alteration of the evidence did to the decisions on `states` states.

    `changed` is the share of states whose action changed, `beyond_noise` that share less the one of
    `repeat`. `movement` is how far decisions moved to the side that the altered evidence leans
    to, from -1 to 1: 1 is every LONG to SHORT with it; a repeated decision would move by 0. `right`
    and `wrong` count the changes with and against the evidence. `errors` are states of which a
    decision failed; they count nowhere else.
    """

    alteration: Alteration
    states: int
    errors: int
    changed: Interval
    beyond_noise: Interval
    movement: Interval
    right: int
    wrong: int


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """Whether one decider reads its evidence, in a word and with the reason.

    `actions` count its decisions on the evidence as it was, `holds` those that held by their
    reason. `expected` is the known answer of a control, else None.
    """

    decider: str
    verdict: ReadingVerdict
    reason: str
    expected: ReadingVerdict | None
    actions: dict[Action, int]
    holds: dict[HoldReason, int]
    effects: list[Effect]
    price: Price | None = None


class StateRow(msgspec.Struct, frozen=True, kw_only=True):
    """One state of the study: lean and decision by the name of the evidence; a HOLD's reason."""

    symbol: str
    time: str
    leans: dict[str, float | None]
    actions: dict[str, Action]
    holds: dict[str, HoldReason]


class ReadsMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that `evaluate reads` found. The first of `readings` is the verdict."""

    schema_version: int
    command: Literal["reads"]
    created_at: str
    origin: Origin
    decider: str
    provider: str | None
    model: str | None
    masked: bool
    states: int
    candidates: int
    subject: Reading
    controls: list[Reading]
    trusted: bool
    readings: list[str]
    rows: list[StateRow]
    seconds: float
