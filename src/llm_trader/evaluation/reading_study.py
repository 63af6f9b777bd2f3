"""Does a decider read its evidence? Asked of any decider, beside two whose answer is known.

1. `prepare_reading`  states whose evidence leans to a side, and that evidence in five versions
2. `reading_asks`     the decisions to make, so that their price can be estimated before
3. `measure_all`      effects and verdicts of the decider, and of the controls: one that follows the
                      evidence and nothing else, and a rule that never looks at it
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from llm_trader.arrays import none_for_nan
from llm_trader.evaluation.dataset import Dataset
from llm_trader.evaluation.decisions.cases import (
    Evaluated,
    Evidences,
    altered_cases,
    draw_times,
    most_leaning,
)
from llm_trader.evaluation.decisions.deciding import (
    Ask,
    KeylessDecider,
    Made,
    decide_all,
    price_of,
)
from llm_trader.evaluation.decisions.reading import DecidedState, measure_reading
from llm_trader.evaluation.decisions.results import (
    READS_SCHEMA_VERSION,
    Reading,
    ReadingVerdict,
    ReadsMetrics,
    StateRow,
)
from llm_trader.evaluation.plan import StudyPlan
from llm_trader.evaluation.report.reads_wording import reads_readings
from llm_trader.evaluation.results import Origin, Price
from llm_trader.llm.aggregator import Aggregator, AggregatorConfig
from llm_trader.llm.cases import states_at
from llm_trader.llm.decision import Decider, Decision
from llm_trader.llm.rules import MacdSign
from llm_trader.market.store import MarketStore
from llm_trader.progress import Progress, no_progress
from llm_trader.timeframe import iso8601


class Prepared(NamedTuple):
    """The states to decide on with their cases, and how many were looked at for them."""

    states: list[Evaluated]
    candidates: int


class Asked(NamedTuple):
    """Who was asked, as the report names it."""

    decider: str
    provider: str | None = None
    model: str | None = None
    masked: bool = False


async def prepare_reading(
    dataset: Dataset,
    store: MarketStore,
    evidences: Evidences,
    plan: StudyPlan,
    states: int,
    progress: Progress = no_progress,
) -> Prepared:
    """As of each state's own time, as a server would have answered; nothing is decided yet."""
    times = draw_times(dataset, plan.step_ms, states, plan.seed)
    candidates = [
        state
        for symbol, times_ms in times.items()
        for state in states_at(store, symbol, dataset.intraday, times_ms, dataset.rules)
    ]
    chosen = await most_leaning(evidences, candidates, states, progress)
    return Prepared(await altered_cases(evidences, chosen, plan.seed), len(candidates))


def reading_asks(prepared: Prepared, masked: bool = False) -> list[Ask]:
    """Five decisions on each state; the same prompt asked again is another sample."""
    return [
        Ask(
            case,
            arm="baseline" if name == "removal" else "rag",
            variant=name,
            sample=int(name == "repeat"),
            masked=masked,
        )
        for state in prepared.states
        for name, case in state.cases.items()
    ]


def followers_and_deaf(horizon: str) -> dict[ReadingVerdict, Decider]:
    """The controls by their known answer. The first has no thresholds, so it follows always."""
    follower = AggregatorConfig(
        horizon=horizon, least_mean_bp=0, least_similarity=None, least_effective_episodes=0
    )
    return {
        "reads it": Aggregator(follower, name="aggregator without thresholds"),
        "ignores it": MacdSign(),
    }


async def measure_all(
    prepared: Prepared,
    made: Sequence[Made],
    asked: Asked,
    plan: StudyPlan,
    origin: Origin,
    created_at: str,
    started: float,
) -> ReadsMetrics:
    """`made` are the decisions on `reading_asks`, `started` the monotonic time of the study."""
    controls: dict[ReadingVerdict, Reading] = {}
    for expected, decider in followers_and_deaf(plan.aggregator.horizon).items():
        keyless = KeylessDecider(decider)
        of_control = await decide_all(keyless, reading_asks(prepared))
        controls[expected] = _measure(prepared, of_control, keyless.name, plan, expected=expected)
    testable = controls["reads it"].verdict == "reads it"
    subject = _measure(prepared, made, asked.decider, plan, testable=testable, price=price_of(made))
    trusted = all(c.verdict in ("cannot tell", c.expected) for c in controls.values())
    return ReadsMetrics(
        schema_version=READS_SCHEMA_VERSION,
        command="reads",
        created_at=created_at,
        origin=origin,
        **asked._asdict(),
        states=len(prepared.states),
        candidates=prepared.candidates,
        subject=subject,
        controls=list(controls.values()),
        trusted=trusted,
        readings=reads_readings(subject, trusted),
        rows=_rows(prepared, made),
        seconds=time.monotonic() - started,
    )


def _measure(
    prepared: Prepared,
    made: Sequence[Made],
    name: str,
    plan: StudyPlan,
    *,
    expected: ReadingVerdict | None = None,
    testable: bool = True,
    price: Price | None = None,
) -> Reading:
    decided = [
        DecidedState(state.symbol, state.as_of_ms, state.leans, decisions)
        for state, decisions in _by_state(prepared, made)
    ]
    return measure_reading(
        name,
        decided,
        reps=plan.reps,
        seed=plan.seed,
        expected=expected,
        testable=testable,
        price=price,
    )


def _by_state(
    prepared: Prepared, made: Sequence[Made]
) -> Iterator[tuple[Evaluated, dict[str, Decision]]]:
    results = iter(made)
    for state in prepared.states:
        yield state, {name: next(results).decision for name in state.cases}


def _rows(prepared: Prepared, made: Sequence[Made]) -> list[StateRow]:
    return [
        StateRow(
            symbol=state.symbol,
            time=iso8601(state.as_of_ms),
            leans={name: none_for_nan(lean) for name, lean in state.leans.items()},
            actions={name: decision.action for name, decision in decisions.items()},
            holds={
                name: decision.hold_reason
                for name, decision in decisions.items()
                if decision.hold_reason is not None
            },
        )
        for state, decisions in _by_state(prepared, made)
    ]
