"""Whether a decider reads its evidence: what happens to decisions when the evidence is altered.

The same state is decided on five times: with its evidence, once more with the same (`repeat`), with
the outcomes inverted (`flip`), with the evidence of another state (`shuffle`), and without any
(`removal`). A model with a temperature changes its mind by itself, so only changes beyond those of
`repeat` count. And they must go to the side that the altered evidence leans to: what a model
changes by itself, or out of confusion, goes to no side.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import comb, isfinite, nan, sqrt
from statistics import NormalDist
from typing import Final, NamedTuple

import numpy as np

from llm_trader.arrays import Floats, Mask
from llm_trader.evaluation import significance
from llm_trader.evaluation.backtest.simulator import SIDES
from llm_trader.evaluation.decisions.results import (
    ALTERATIONS,
    Alteration,
    Effect,
    Reading,
    ReadingVerdict,
)
from llm_trader.evaluation.results import Price
from llm_trader.llm.decision import Decision
from llm_trader.retrieval.answer import Answer
from llm_trader.retrieval.intervals import Interval, wilson
from llm_trader.timeframe import DAY_MS, Millis

ORIGINAL: Final = "original"

# A decider that changes fewer of its decisions than this, with the evidence turned round, would
# earn about the same without it. A twentieth would need 400 states to be shown.
NEGLIGIBLE_CHANGE: Final = 0.1
# Who holds nearly always shows nothing about what moves it.
LEAST_ACTING_SHARE: Final = 0.1
_Z: Final = NormalDist().inv_cdf(1 - significance.SIGNIFICANCE_LEVEL / 2)


class DecidedState(NamedTuple):
    """The decisions on one state by the name of their evidence, and the leans of that evidence."""

    symbol: str
    as_of_ms: Millis
    leans: Mapping[str, float]
    decisions: Mapping[str, Decision]


def lean(answer: Answer) -> float:
    """To which side evidence leans, and how far: above 0 the price rose after similar states.

    The mean changes of all horizons, each in units of its window's interquartile range, averaged.
    Inverted outcomes have the opposite lean; NaN without evidence.
    """
    horizons = answer.evidence.horizons.values()
    spreads = [h.p75.base_rate - h.p25.base_rate for h in horizons]
    means = [h.mean.value / s for h, s in zip(horizons, spreads, strict=True) if s > 0]
    return sum(means) / len(means) if means else nan


def measure_reading(
    decider: str,
    states: Sequence[DecidedState],
    *,
    reps: int,
    seed: int,
    expected: ReadingVerdict | None = None,
    testable: bool = True,
    price: Price | None = None,
) -> Reading:
    """The effects of all alterations and the verdict; states in the order of symbol and time.

    `testable` says whether a decider that is known to read was seen to do so on these states: if
    not, decisions that stay as they are show nothing.
    """
    effects = [_effect(name, states, reps, seed) for name in ALTERATIONS]
    originals = [state.decisions[ORIGINAL] for state in states]
    acting = [any(d.action != "HOLD" for d in state.decisions.values()) for state in states]
    acting_share = sum(acting) / len(acting) if acting else 0.0
    verdict, reason = reading_verdict(effects, acting_share, testable)
    return Reading(
        decider=decider,
        verdict=verdict,
        reason=reason,
        expected=expected,
        actions=dict(Counter(d.action for d in originals)),
        holds=dict(Counter(d.hold_reason for d in originals if d.hold_reason is not None)),
        effects=effects,
        price=price,
    )


def reading_verdict(
    effects: Sequence[Effect], acting_share: float, testable: bool
) -> tuple[ReadingVerdict, str]:
    """The verdict and why.

    *reads it*: with inverted outcomes decisions move to the side of the inverted evidence, beyond
    chance; noise moves to no side. *ignores it*: they do not, and with no alteration do more than
    `NEGLIGIBLE_CHANGE` of them change beyond noise, though some decisions are no HOLD, and a
    decider that reads was seen to change here.
    """
    by_name = {effect.alteration: effect for effect in effects}
    flip = by_name["flip"]
    if flip.beyond_noise.low is None or flip.movement.low is None:
        return "cannot tell", f"{flip.states} decided states are too few for an interval"
    follows = flip.movement.above(0)
    # The interval alone is too sure of a few changes that all went to one side.
    if follows and _sign_test(flip.right, flip.wrong) <= significance.SIGNIFICANCE_LEVEL:
        return "reads it", (
            f"with inverted outcomes {_pct(flip.changed.value)} of the decisions changed, "
            f"{flip.right} to the side of the evidence and {flip.wrong} to the other"
        )
    altered = [by_name[name] for name in ("flip", "shuffle", "removal") if by_name[name].states]
    quiet = not follows and all(e.beyond_noise.below(NEGLIGIBLE_CHANGE) for e in altered)
    if quiet and acting_share < LEAST_ACTING_SHARE:
        return "cannot tell", (
            f"it held on {_pct(1 - acting_share)} of the states whatever the evidence, which shows "
            "nothing about what moves it"
        )
    if quiet and not testable:
        return "cannot tell", (
            "the evidence of these states moves not even a decider that is known to read it; take "
            "more states, or a time in which the evidence says more"
        )
    if quiet:
        return "ignores it", (
            f"whatever the evidence, fewer than {_pct(NEGLIGIBLE_CHANGE)} of the decisions change "
            "beyond noise"
        )
    return "cannot tell", _doubt(by_name)


def _doubt(effects: Mapping[Alteration, Effect]) -> str:
    flip, removal = effects["flip"], effects["removal"]
    if flip.movement.above(0):
        return (
            f"{flip.right} decisions moved to the side of the inverted evidence and {flip.wrong} "
            "against it: too few to be sure; take more states"
        )
    if flip.beyond_noise.above(0):
        return (
            f"with inverted outcomes {_pct(flip.changed.value)} of the decisions changed, but not "
            f"to the side of the evidence: {flip.right} with it and {flip.wrong} against it"
        )
    if removal.beyond_noise.above(0):
        return (
            "decisions change when the evidence is removed, but not beyond noise with what it says"
        )
    return "the changes are neither beyond noise nor surely negligible; take more states"


def _effect(alteration: Alteration, states: Sequence[DecidedState], reps: int, seed: int) -> Effect:
    decided = [s for s in states if {ORIGINAL, "repeat", alteration} <= s.decisions.keys()]
    names = (ORIGINAL, "repeat", alteration)
    usable = [s for s in decided if not any(_failed(s.decisions[name]) for name in names)]
    sides = {name: _sides(usable, name) for name in names}
    # What is repeated leans as before; it is counted by the side that a flip would lean to.
    towards = _towards(usable, "flip" if alteration == "repeat" else alteration)
    changed = sides[alteration] != sides[ORIGINAL]
    noise = sides["repeat"] != sides[ORIGINAL]
    effective = _days(usable)
    block = max(1, round(len(usable) / max(effective, 1)))
    moved = towards * (sides[alteration] - sides[ORIGINAL])
    return Effect(
        alteration=alteration,
        states=len(usable),
        errors=len(decided) - len(usable),
        changed=_share(changed, effective),
        beyond_noise=_share_difference(changed, noise, effective),
        movement=_movement(alteration, sides, towards, block, reps, seed),
        right=int((moved > 0).sum()),
        wrong=int((moved < 0).sum()),
    )


def _failed(decision: Decision) -> bool:
    return decision.hold_reason == "error"


def _sides(states: Sequence[DecidedState], name: str) -> Floats:
    return np.array([float(SIDES[state.decisions[name].action]) for state in states])


def _towards(states: Sequence[DecidedState], name: str) -> Floats:
    """The side, 1 or -1, to which the lean changes, (n,); evidence that is removed has none."""
    change = [
        (state.leans.get(name, nan) if name != "removal" else 0.0) - state.leans[ORIGINAL]
        for state in states
    ]
    return np.sign(np.nan_to_num(change))


def _movement(
    alteration: Alteration,
    sides: Mapping[str, Floats],
    towards: Floats,
    block: int,
    reps: int,
    seed: int,
) -> Interval:
    """The mean of half the change of sides, towards the altered evidence.

    The decision and its repetition are alike, so their mean is the better one to start from.
    """
    start = sides[ORIGINAL]
    if alteration != "repeat":
        start = (start + sides["repeat"]) / 2
    moves = towards * (sides[alteration] - start) / 2
    return significance.mean_interval(moves, block, reps, seed)


def _days(states: Sequence[DecidedState]) -> int:
    """Of each symbol. States of one day share their evidence, so they count as one observation."""
    return len({(state.symbol, state.as_of_ms // DAY_MS) for state in states})


def _share(happened: Mask, n: float) -> Interval:
    if not len(happened):
        return Interval.of(nan)
    share = float(happened.mean())
    return Interval.of(share, *wilson(share, n, _Z))


def _share_difference(happened: Mask, noise: Mask, n: float) -> Interval:
    """Newcombe's interval (1998, method 10) of a difference of shares of n observations each.

    It is for independent shares: those of one state depend on each other, which only makes it wide.
    A bootstrap of shares of 0 would have no width at all.
    """
    if not len(happened) or n < significance.MIN_BLOCKS:
        return Interval.of(float(happened.mean() - noise.mean()) if len(happened) else nan)
    (p, low, high), (q, noise_low, noise_high) = (
        (float(m.mean()), *wilson(float(m.mean()), n, _Z)) for m in (happened, noise)
    )
    below = sqrt((p - low) ** 2 + (noise_high - q) ** 2)
    above = sqrt((high - p) ** 2 + (q - noise_low) ** 2)
    return Interval.of(p - q, p - q - below, p - q + above)


def _sign_test(right: int, wrong: int) -> float:
    """The two-sided p-value of so uneven a division where both sides are as likely."""
    n, fewer = right + wrong, min(right, wrong)
    return min(1.0, 2 * sum(comb(n, k) for k in range(fewer + 1)) / (1 << n))


def _pct(share: float | None) -> str:
    return f"{100 * share:.0f} %" if share is not None and isfinite(share) else "an unknown share"
