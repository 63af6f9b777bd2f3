"""The sentences about whether a decider reads its evidence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from llm_trader.evaluation.decisions.results import (
    Alteration,
    Effect,
    Reading,
    ReadsMetrics,
    StateRow,
)
from llm_trader.evaluation.report import formats
from llm_trader.evaluation.report.formats import count, has_bounds, share, usd
from llm_trader.evaluation.results import Price
from llm_trader.llm.decision import HoldReason

ALTERATIONS: Final[dict[Alteration, str]] = {
    "repeat": "asked the same again",
    "flip": "outcomes inverted",
    "shuffle": "another state's evidence",
    "removal": "evidence removed",
}

HOLDS: Final[dict[HoldReason, str]] = {
    "model": "by choice",
    "error": "after a failure",
    "guard": "because of a guard",
}


def reads_headline(metrics: ReadsMetrics) -> str:
    """The verdict as a sentence."""
    claims = {
        "reads it": "reads its evidence",
        "ignores it": "ignores its evidence",
        "cannot tell": "may or may not read its evidence: these decisions cannot tell",
    }
    who = f"{metrics.model} of {metrics.provider}" if metrics.model else metrics.decider
    masked = " with masked prompts" if metrics.masked else ""
    return f"{formats.capitalised(who)}{masked} {claims[metrics.subject.verdict]}"


def reads_readings(subject: Reading, trusted: bool) -> list[str]:
    """What was found, most important first."""
    by_name = {effect.alteration: effect for effect in subject.effects}
    sentences = [f"{formats.capitalised(subject.reason)}.", noise_sentence(by_name["repeat"])]
    sentences += [error_sentence(subject.effects), price_sentence(subject.price)]
    if not trusted:
        sentences.insert(
            0, "A control gave another answer than the known one: nothing here counts."
        )
    return [sentence for sentence in sentences if sentence]


def noise_sentence(repeat: Effect) -> str:
    if not has_bounds(repeat.changed):
        return ""
    return (
        f"Asked the same again, it decided otherwise on {share(repeat.changed.value)} of the "
        f"states ({formats.bounds(repeat.changed, share)}); only changes beyond that count."
    )


def error_sentence(effects: Sequence[Effect]) -> str:
    errors = max((effect.errors for effect in effects), default=0)
    if not errors:
        return ""
    return f"A decision failed on {count(errors, 'state')}, which are left out where it is needed."


def price_sentence(price: Price | None) -> str:
    if price is None or not price.total_usd:
        return ""
    return (
        f"Its {count(price.decisions, 'decision')} cost {usd(price.total_usd)}, "
        f"{usd(price.per_decision_usd)} each; this run paid {usd(price.new_usd)}."
    )


def cells(state: StateRow) -> list[str]:
    """A state's decisions, and why it held where the model did not choose to."""
    return [_cell(state, name) for name in ("original", *ALTERATIONS)]


def _cell(state: StateRow, name: str) -> str:
    action, reason = state.actions.get(name), state.holds.get(name)
    return f"{action} ({reason})" if reason not in (None, "model") else action or formats.DASH
