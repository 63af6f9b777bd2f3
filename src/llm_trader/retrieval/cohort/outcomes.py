"""What followed the states of a cohort, and which further condition changes that most."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isfinite
from typing import Annotated, Final, Literal, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta

from llm_trader.arrays import Floats, Rows
from llm_trader.index.points import PointTable
from llm_trader.retrieval.answer import Difference, Novelty
from llm_trader.retrieval.cohort.conditions import (
    condition_masks,
    further_conditions,
    looks,
)
from llm_trader.retrieval.episodes import effective_counts
from llm_trader.retrieval.forecast import (
    FORECAST_LEVELS,
    ForecastBase,
    quantile_places,
    relative_outcomes,
    size_numbers,
)
from llm_trader.retrieval.verdict import (
    Comparison,
    Thresholds,
    compare_neighbours,
    decide_verdict,
)
from llm_trader.timeframe import HORIZONS

# The nearest part of the window: with 300 of 90 days, three conditions leave 10.
COHORT_SHARE: Final = 0.1
LEAST_STATES: Final = 300

_SHOWN: Final = [9, 49, 89]  # places of 10, 50 and 90 % among the levels

Shift = Literal["distance", "direction"]


class NearestStates(NamedTuple):
    """The states of a window that are most like the one in question: increasing rows of it, and
    their similarities. `base` is of the whole window.
    """

    window: PointTable
    rows: Rows
    similarity: Floats
    base: ForecastBase
    novelty: Novelty | None

    def meeting(self, conditions: Sequence[str]) -> NearestStates:
        masks = condition_masks(self.window, conditions).values()
        kept = np.ones(len(self.rows), np.bool_)
        for mask in masks:
            kept &= mask[self.rows]
        return self._replace(rows=self.rows[kept], similarity=self.similarity[kept])


class Quantiles(msgspec.Struct, frozen=True):
    """Price changes in %: 10, 50 and 90 % of the outcomes are below them."""

    p10: Annotated[float, Meta(description="10 % are below it, %.")]
    p50: Annotated[float, Meta(description="50 % are below it, %.")]
    p90: Annotated[float, Meta(description="90 % are below it, %.")]


class CohortHorizon(msgspec.Struct, frozen=True):
    """What followed over one horizon, beside what follows all states of the window.

    Price changes are in % at the volatility that is expected now: those of the past in units of the
    volatility that was expected then. `scale` compares how far prices moved (1 is as far as after
    all states), `direction` the shares of rises; null with fewer than 10 effective episodes.
    """

    effective_episodes: Annotated[
        float, Meta(description="Number of independent outcomes that the states amount to.")
    ]
    changes: Annotated[
        Quantiles | None, Meta(description="After the states of the cohort; null where unknown.")
    ]
    base_changes: Annotated[
        Quantiles | None, Meta(description="After all states of the window; null where unknown.")
    ]
    scale: Annotated[
        Difference | None, Meta(description="How far prices moved, beside the window's 1.")
    ]
    direction: Annotated[
        Difference | None, Meta(description="Share of rises, beside the window's, 0 to 1.")
    ]


class CohortOutcomes(msgspec.Struct, frozen=True):
    """What followed a cohort. `verdict` is `weak` or `none`: no calibration measures cohorts."""

    states: Annotated[int, Meta(description="Number of states in the cohort.")]
    window_states: Annotated[int, Meta(description="Number of states of the window.")]
    similarity_range: Annotated[
        tuple[float, float] | None, Meta(description="Least and greatest similarity of the states.")
    ]
    looks: Annotated[
        int,
        Meta(
            description="Number of looks that the verdict allows for: all cohorts of this state "
            "that could have been looked at, whichever were."
        ),
    ]
    verdict: Annotated[str, Meta(description="`weak` or `none`; none means abstain.")]
    reason: Annotated[str, Meta(description="Why, in words.")]
    novelty: Annotated[
        Novelty | None, Meta(description="How far the state is from everything known.")
    ]
    horizons: Annotated[
        dict[str, CohortHorizon], Meta(description="By horizon: `15m`, `1h`, `4h` and `24h`.")
    ]
    conditions_left: Annotated[
        dict[str, int],
        Meta(description="The conditions that can be added, with the states that would be left."),
    ]


class RankedCondition(msgspec.Struct, frozen=True):
    """How much a further condition changes what follows. `deviation` is null where it leaves too
    few states.
    """

    condition: Annotated[str, Meta(description="The condition that would be added.")]
    states: Annotated[int, Meta(description="Number of states that meet it as well.")]
    horizon: Annotated[str | None, Meta(description="Where it changes most.")] = None
    changes: Annotated[
        Shift | None,
        Meta(description="What changes most: the `distance` of moves, or their `direction`."),
    ] = None
    value: Annotated[
        float | None,
        Meta(
            description="With the condition: distance over that of the cohort, or share of rises."
        ),
    ] = None
    cohort_value: Annotated[
        float | None, Meta(description="The same of the whole cohort; 1 for distances.")
    ] = None
    deviation: Annotated[float | None, Meta(description="Their difference in standard errors.")] = (
        None
    )
    beyond_chance: Annotated[
        bool,
        Meta(
            description="Whether by chance fewer than 1 in 10 states have any condition, in any of "
            "their cohorts, that changes as much."
        ),
    ] = False


def describe_cohort(
    nearest: NearestStates, conditions: Sequence[str], expected_pct: Sequence[float]
) -> CohortOutcomes:
    """What followed the nearest states that meet all conditions.

    `expected_pct` are the volatilities expected now by horizon, NaN where unknown.
    """
    cohort = nearest.meeting(conditions)
    allowed_for = looks(len(conditions))
    comparisons = _compare(cohort, nearest.base)
    effective = effective_counts(nearest.window.timestamp_ms[cohort.rows], HORIZONS.values())
    verdict, reason = decide_verdict(
        comparisons, float(effective.max()), nearest.novelty, None, allowed_for
    )
    similarity = cohort.similarity
    ends = (float(similarity.min()), float(similarity.max())) if len(similarity) else None
    return CohortOutcomes(
        *(len(cohort.rows), len(nearest.window), ends, allowed_for, verdict, reason),
        nearest.novelty,
        dict(_horizons(cohort, comparisons, effective.tolist(), expected_pct)),
        _conditions_left(cohort, conditions),
    )


def rank_conditions(nearest: NearestStates, conditions: Sequence[str]) -> list[RankedCondition]:
    """All further conditions, by how much each changes what follows the cohort.

    A part is compared with the whole that it belongs to, so its deviation is understated, as if
    both were independent.
    """
    cohort = nearest.meeting(conditions)
    further = further_conditions(conditions)
    if not (len(cohort.rows) and further):
        return [RankedCondition(name, 0) for name in further]
    base = _base_of(cohort)
    weak_z = Thresholds.of(looks(len(conditions) + 1)).weak_z
    ranked = [_ranked(name, cohort.meeting([name]), base, weak_z) for name in further]
    return sorted(ranked, key=lambda r: -abs(r.deviation or 0.0))


def _ranked(name: str, part: NearestStates, base: ForecastBase, weak_z: float) -> RankedCondition:
    options: list[tuple[float, str, Shift, Difference]] = []
    for comparison in _compare(part, base):
        for kind, difference in _kinds(comparison):
            options.append((abs(difference.deviation), comparison.horizon, kind, difference))
    if not options:
        return RankedCondition(name, len(part.rows))
    size, horizon, kind, most = max(options, key=lambda option: option[0])
    shift = most.value, most.base_rate, most.deviation
    return RankedCondition(name, len(part.rows), horizon, kind, *shift, size > weak_z)


def _kinds(comparison: Comparison) -> Iterator[tuple[Shift, Difference]]:
    if comparison.scale is not None:
        yield "distance", comparison.scale
    if comparison.direction is not None:
        yield "direction", comparison.direction


def _compare(states: NearestStates, base: ForecastBase) -> list[Comparison]:
    rows = states.rows[None]
    outcomes = relative_outcomes(states.window.values, rows)
    [comparisons] = compare_neighbours(
        base.numbers,
        outcomes,
        np.sort(outcomes, axis=2),
        size_numbers(outcomes),
        states.window.timestamp_ms[rows],
    )
    return comparisons


def _base_of(states: NearestStates) -> ForecastBase:
    outcomes = relative_outcomes(states.window.values, states.rows)
    mean = np.add.reduce(outcomes, axis=1) / outcomes.shape[1]
    return ForecastBase.of_ascending(np.sort(outcomes, axis=1), mean)


def _horizons(
    cohort: NearestStates,
    comparisons: Sequence[Comparison],
    effective: Sequence[float],
    expected_pct: Sequence[float],
) -> Iterator[tuple[str, CohortHorizon]]:
    ascending = np.sort(relative_outcomes(cohort.window.values, cohort.rows), axis=1)
    base = cohort.base.ascending
    for row, comparison in enumerate(comparisons):
        changes = _quantiles(ascending[row], expected_pct[row])
        usual = _quantiles(base[row], expected_pct[row])
        shifts = comparison.scale, comparison.direction
        yield comparison.horizon, CohortHorizon(effective[row], changes, usual, *shifts)


def _quantiles(ascending: Floats, expected_pct: float) -> Quantiles | None:
    if not (len(ascending) and isfinite(expected_pct)):
        return None
    places = quantile_places(FORECAST_LEVELS[_SHOWN], len(ascending))
    return Quantiles(*(ascending[places] * expected_pct).tolist())


def _conditions_left(cohort: NearestStates, conditions: Sequence[str]) -> dict[str, int]:
    masks = condition_masks(cohort.window, further_conditions(conditions))
    return {name: int(np.count_nonzero(mask[cohort.rows])) for name, mask in masks.items()}
