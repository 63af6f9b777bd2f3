"""What an evaluation found, as it is written to `metrics.json` and shown in the report.

Skills are shares: 0.02 is a loss 2 % smaller than the reference's. None is "not known".
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from llm_trader.evaluation.backtest.performance import Performance
from llm_trader.evaluation.plan import StudyPlan
from llm_trader.evaluation.significance import Verdict
from llm_trader.retrieval.intervals import Interval
from llm_trader.timeframe import Millis

SCHEMA_VERSION = 1

Command = Literal["evaluate", "compare", "ab", "calibrate"]
Reference = Literal["base rate", "base rate treated alike", "random neighbours"]

# What the verdict is about: the rescaling that both have cannot pass for skill.
VERDICT_REFERENCE: Final[Reference] = "base rate treated alike"


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """What was evaluated, and with what: equal origins give equal metrics. `whole_lookback`: by
    symbol, the share of queries whose window reached back as far as the plan says.
    """

    package_version: str
    exchange: str | None
    symbols: list[str]
    start: str
    end: str
    feature_version: str
    state_space_id: str
    text_space_id: str | None
    settings_digest: str
    data_digest: str
    whole_lookback: dict[str, float]
    plan: StudyPlan


class Skill(msgspec.Struct, frozen=True, kw_only=True):
    """Of forecasts of one symbol at one horizon, by CRPS, against one reference.

    `variant` is what was compared: a kind of vector, or a configuration's name. `p_value` is of
    Diebold and Mariano's test, `p_adjusted` after Holm over all variants, horizons and symbols;
    the verdict needs both that and the interval. `detectable` is the smallest skill that would be
    found with 80 % power.
    """

    variant: str
    symbol: str
    horizon: str
    reference: Reference
    queries: int
    skill: Interval
    p_value: float | None
    p_adjusted: float | None
    detectable: float | None
    verdict: Verdict


class UndirectedSkill(msgspec.Struct, frozen=True, kw_only=True):
    """What is left of the skill over the base rate treated alike once the direction of each
    stretch of outcomes is drawn by chance: what states tell of how far prices go, not where to.
    """

    symbol: str
    horizon: str
    skill: Interval


class Direction(msgspec.Struct, frozen=True, kw_only=True):
    """How often the median forecast had the sign of what followed."""

    variant: str
    symbol: str
    horizon: str
    accuracy: Interval


class Bin(msgspec.Struct, frozen=True):
    """Forecasts of about one probability, and how often it happened."""

    forecast: float
    observed: float
    count: int


class Probability(msgspec.Struct, frozen=True, kw_only=True):
    """Forecast probabilities of an event, by Brier score against the base rate's."""

    symbol: str
    event: str
    brier: float | None
    base_brier: float | None
    skill: Interval
    bins: list[Bin]


class Band(msgspec.Struct, frozen=True, kw_only=True):
    """Share of outcomes inside the 80 % band before and after conformal correction.

    Each day is corrected by what the weeks before it taught, and both shares are counted where
    there were such weeks.
    """

    symbol: str
    horizon: str
    before: Interval
    after: Interval
    queries: int


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """A data set of which the answer is known: a negative one has no skill to find, a positive one
    has. Skill is against the base rate treated alike. `passed`: skill was found where there is
    some and nowhere else, by the interval `wide`, which allows for the number of negative controls,
    so that all of them pass in 19 of 20 runs.
    """

    name: str
    kind: Literal["negative", "positive"]
    symbol: str
    horizon: str
    skill: Interval
    wide: Interval
    passed: bool


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """A search for knowledge of the future; `problem` says what was found."""

    name: str
    symbol: str
    checked: int
    problem: str | None


class RegimeSkill(msgspec.Struct, frozen=True, kw_only=True):
    """Skill against the base rate treated alike, among the queries of one regime."""

    symbol: str
    horizon: str
    by: str
    value: str
    queries: int
    skill: Interval | None


class Arm(msgspec.Struct, frozen=True, kw_only=True):
    """One way to decide, traded over the whole time. `difference` is its mean daily return less
    the baseline's, in % points, by a paired block bootstrap; None for the baseline itself.
    """

    symbol: str
    name: str
    performance: Performance
    difference: Interval | None
    verdict: Verdict | None


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """A series of one value a day, for charts: equity by arm, similarity, coverage, episodes."""

    symbol: str
    name: str
    kind: Literal["equity", "similarity", "effective episodes", "coverage"]
    time_ms: list[Millis]
    value: list[float | None]


class Histogram(msgspec.Struct, frozen=True, kw_only=True):
    """Of the mean similarity of each query's neighbours; `edges` are one more than `counts`."""

    symbol: str
    edges: list[float]
    counts: list[int]


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """One of the configurations tried, with its skill against the base rate treated alike."""

    label: str
    symbol: str
    horizon: str
    skill: Interval


class Trials(msgspec.Struct, frozen=True, kw_only=True):
    """Configurations tried so far in this folder, and what Hansen's test for superior predictive
    ability says of the best of those that were tried on these queries: its p-value and how many
    they were.
    """

    so_far: int
    configurations: list[Configuration]
    superior_p_value: float | None
    tested: int


class Metrics(msgspec.Struct, frozen=True, kw_only=True):
    """Everything an evaluation found. `readings` say it in plain language, most important first."""

    schema_version: int
    command: Command
    created_at: str
    origin: Origin
    verdict: Verdict
    readings: list[str]
    skills: list[Skill]
    undirected: list[UndirectedSkill]
    directions: list[Direction]
    probabilities: list[Probability]
    bands: list[Band]
    arms: list[Arm]
    controls: list[Control]
    probes: list[Probe]
    slices: list[RegimeSkill]
    trials: Trials
    histograms: list[Histogram]
    curves: list[Curve]
    seconds: float
