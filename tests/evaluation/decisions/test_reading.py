"""Verdicts on deciders whose way to decide is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from llm_trader.evaluation.decisions.reading import (
    NEGLIGIBLE_CHANGE,
    DecidedState,
    measure_reading,
)
from llm_trader.evaluation.decisions.results import Effect, Reading
from llm_trader.llm.decision import Action, Decision
from llm_trader.timeframe import DAY_MS
from tests.market.builders import START_MS

# What a decider sees: the lean of the evidence, None without any, and its own dice.
Rule = Callable[[float | None, np.random.Generator], Action]


def follow(lean: float | None, dice: np.random.Generator) -> Action:
    return "HOLD" if lean is None else "LONG" if lean > 0 else "SHORT"


def toss(lean: float | None, dice: np.random.Generator) -> Action:
    return "LONG" if dice.random() < 0.5 else "SHORT"


def always(action: Action) -> Rule:
    return lambda lean, dice: action


def noisy(rule: Rule, share: float) -> Rule:
    return lambda lean, dice: toss(lean, dice) if dice.random() < share else rule(lean, dice)


def decided(rule: Rule, states: int = 200, seed: int = 0, per_day: int = 1) -> list[DecidedState]:
    dice = np.random.default_rng(seed)
    made = []
    for i in range(states):
        lean = float(dice.choice([-1.0, 1.0]) * (0.5 + dice.random()))
        leans = {"original": lean, "repeat": lean, "flip": -lean, "shuffle": -lean / 2}
        decisions = {name: as_decision(rule(leans.get(name), dice)) for name in (*leans, "removal")}
        time_ms = START_MS + i * DAY_MS // per_day
        made.append(DecidedState("BTCUSDT", time_ms, leans, decisions))
    return made


def as_decision(action: Action) -> Decision:
    return Decision.hold("model", "") if action == "HOLD" else Decision(action, None, "")


def measured(states: list[DecidedState], *, testable: bool = True) -> Reading:
    return measure_reading("it", states, reps=200, seed=0, testable=testable)


def effect_of(reading: Reading, name: str) -> Effect:
    return next(effect for effect in reading.effects if effect.alteration == name)


def test_who_follows_the_evidence_reads_it() -> None:
    reading = measured(decided(follow))
    assert reading.verdict == "reads it"
    flip = effect_of(reading, "flip")
    assert flip.changed.value == 1
    assert (flip.movement.value, flip.right, flip.wrong) == (1, 200, 0)
    assert effect_of(reading, "repeat").changed.value == 0
    # Without evidence it moves back from the side it had.
    assert effect_of(reading, "removal").movement.value == 0.5


def test_who_never_looks_at_it_ignores_it() -> None:
    reading = measured(decided(always("LONG")))
    assert reading.verdict == "ignores it"
    assert effect_of(reading, "flip").changed.value == 0
    # Nothing changed in 200 states: still not quite surely never.
    assert 0 < effect_of(reading, "flip").beyond_noise.high < NEGLIGIBLE_CHANGE  # type: ignore[operator]


def test_changes_by_chance_alone_are_no_reading() -> None:
    for seed in range(20):
        reading = measured(decided(toss, seed=seed))
        assert reading.verdict != "reads it"
        assert effect_of(reading, "repeat").changed.value == pytest.approx(0.5, abs=0.15)
        assert effect_of(reading, "flip").beyond_noise.value == pytest.approx(0, abs=0.2)


def test_a_reader_with_a_temperature_is_told_from_its_noise() -> None:
    reading = measured(decided(noisy(follow, 0.4)))
    assert reading.verdict == "reads it"
    flip = effect_of(reading, "flip")
    assert 0 < flip.beyond_noise.value < flip.changed.value  # type: ignore[operator]


def test_who_does_the_opposite_of_the_evidence_is_no_reader_of_it() -> None:
    def contrary(lean: float | None, dice: np.random.Generator) -> Action:
        return follow(None if lean is None else -lean, dice)

    reading = measured(decided(contrary))
    assert reading.verdict == "cannot tell"
    assert "not to the side of the evidence: 0 with it and 200 against it" in reading.reason


def test_who_holds_always_shows_nothing() -> None:
    reading = measured(decided(always("HOLD")))
    assert reading.verdict == "cannot tell"
    assert "held on 100 % of the states" in reading.reason
    assert (reading.actions, reading.holds) == ({"HOLD": 200}, {"model": 200})


def test_evidence_that_moves_nobody_cannot_show_that_it_is_ignored() -> None:
    reading = measured(decided(always("LONG")), testable=False)
    assert reading.verdict == "cannot tell"
    assert "moves not even a decider that is known to read it" in reading.reason
    assert measured(decided(follow), testable=False).verdict == "reads it"


def test_changes_when_evidence_is_removed_are_not_yet_reading() -> None:
    def shy(lean: float | None, dice: np.random.Generator) -> Action:
        return "LONG" if lean is None else "HOLD"

    reading = measured(decided(shy))
    assert reading.verdict == "cannot tell"
    assert "when the evidence is removed, but not beyond noise with what it says" in reading.reason


def test_a_few_states_cannot_tell() -> None:
    few = measured(decided(follow, states=9))
    assert few.verdict == "cannot tell"
    assert few.reason == "9 decided states are too few for an interval"
    # As many states of one day are one observation.
    assert measured(decided(follow, states=90, per_day=10)).verdict == "cannot tell"
    deaf = measured(decided(always("SHORT"), states=20))
    assert deaf.verdict == "cannot tell"
    assert "take more states" in deaf.reason


def test_failed_decisions_are_counted_and_left_out() -> None:
    states = decided(follow)
    failed = Decision.hold("error", "no reply")
    for i in range(0, 200, 10):
        states[i] = states[i]._replace(decisions={**states[i].decisions, "flip": failed})
    reading = measured(states)
    flip = effect_of(reading, "flip")
    assert (flip.states, flip.errors) == (180, 20)
    assert reading.verdict == "reads it"
    assert effect_of(reading, "shuffle").errors == 0
    nothing = [state._replace(decisions=dict.fromkeys(state.decisions, failed)) for state in states]
    assert measured(nothing).verdict == "cannot tell"


def test_few_readers_are_called_deaf_and_few_dice_readers() -> None:
    """Rates of false verdicts over many studies of moderate size."""
    tossed = [measured(decided(noisy(always("LONG"), 0.2), 60, seed)).verdict for seed in range(60)]
    assert tossed.count("reads it") <= 3
    weak = [measured(decided(noisy(follow, 0.7), 100, seed)).verdict for seed in range(40)]
    assert weak.count("reads it") > 30
    assert weak.count("ignores it") == 0


def test_a_few_changes_to_one_side_are_not_enough() -> None:
    def seldom(lean: float | None, dice: np.random.Generator) -> Action:
        # Moves with the evidence where it leans most.
        return "SHORT" if lean is not None and lean < -1.48 else "LONG"

    reading = measured(decided(seldom, seed=3))
    flip = effect_of(reading, "flip")
    assert 0 < flip.right < 6
    assert flip.wrong == 0
    assert reading.verdict in ("cannot tell", "ignores it")
