"""What an evaluation finds, as it is written to `metrics.json` and shown in the report.

Skills are shares: 0.02 is a loss 2 % smaller than the reference's. None is unknown.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from llm_trader.evaluation.plan import StudyPlan
from llm_trader.evaluation.significance import Verdict
from llm_trader.llm.decision import Action, HoldReason
from llm_trader.retrieval.intervals import Interval
from llm_trader.timeframe import Millis

SCHEMA_VERSION: Final = 2

Command = Literal["evaluate", "compare", "ab", "calibrate", "judge"]
Kind = Literal["negative", "positive"]
CurveKind = Literal["equity", "similarity", "effective episodes", "coverage"]
# The rescaled base rate is scaled by the volatility of the last 24h.
Reference = Literal[
    "base rate", "rescaled base rate", "volatility model", "random neighbours", "served forecast"
]

Period = Literal["all", "up to the cutoff", "after the cutoff"]

# What the verdict is about: the base of the forecast alone, so that scaling cannot pass for skill.
VERDICT_REFERENCE: Final[Reference] = "volatility model"


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """What was evaluated, and with what: equal origins give equal metrics.

    `settings_digest` is, in spite of its name, the digest of the plan; `program_settings_digest`
    is that of the settings. `lookback_filled` is, by symbol, the mean share of the states that a
    whole lookback has: gaps and a store that begins late lower it. `partial_states` is, by symbol,
    the number of states without open interest or funding, compared over what they know.
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
    program_settings_digest: str | None = None
    data_digest: str
    lookback_filled: dict[str, float]
    plan: StudyPlan
    partial_states: dict[str, int] = {}


class Skill(msgspec.Struct, frozen=True, kw_only=True):
    """The skill of forecasts of one symbol at one horizon against one reference, by CRPS as issued.

    `potential` is by the fair score of the forecast: that of infinitely many such neighbours.
    `variant` is what was compared: a kind of vector, or a configuration's name. `p_value` is from
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
    potential: float | None
    p_value: float | None
    p_adjusted: float | None
    detectable: float | None
    verdict: Verdict


class UndirectedSkill(msgspec.Struct, frozen=True, kw_only=True):
    """The skill over the volatility model that is left when the direction of each
    stretch of outcomes is random: what states say about how far prices go, not where to.
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
    """Forecasts of about one probability, and how often the event happened."""

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
    """The share of outcomes inside the 80 % band before and after conformal correction.

    The weeks before each day correct it, and both shares count the days that have such weeks.
    """

    symbol: str
    horizon: str
    before: Interval
    after: Interval
    queries: int


class BandCell(msgspec.Struct, frozen=True, kw_only=True):
    """The shares of a band among the queries of one condition, before and after correction."""

    symbol: str
    horizon: str
    by: str
    value: str
    before: float
    after: float
    queries: int


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """A data set with a known answer: a negative one has no skill to find, a positive one has.

    Skill is against the volatility model. A control has `passed` where skill was found
    in a positive one or in no negative one, by the interval `wide`, which allows for the number of
    negative controls, so that all of them pass in 19 of 20 runs. One that fails is tried again with
    other seeds, and has failed where all of its `attempts` did; the numbers are of the last.
    """

    name: str
    kind: Kind
    symbol: str
    horizon: str
    skill: Interval
    wide: Interval
    passed: bool
    attempts: int = 1


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """A search for knowledge of the future; `problem` says what it found."""

    name: str
    symbol: str
    checked: int
    problem: str | None


class RegimeSkill(msgspec.Struct, frozen=True, kw_only=True):
    """Skill against the volatility model among the queries of one regime."""

    symbol: str
    horizon: str
    by: str
    value: str
    queries: int
    skill: Interval | None


class Performance(msgspec.Struct, frozen=True, kw_only=True):
    """What a simulation earned; None is undefined.

    `sharpe` is annualised, over `daily_returns` returns; no interest is deducted.
    `probabilistic_sharpe` is the probability that the true Sharpe ratio is above 0, and
    `deflated_sharpe` that it is above what the best of `trials` without skill would show.
    `max_drawdown_pct` is at most 0. `win_rate` is the share of trades with a net above 0,
    `exposure` the share of the time in a position, `turnover_per_day` the notional bought and sold
    a day in multiples of the equity.
    """

    total_return_pct: float | None
    daily_returns: int
    sharpe: float | None
    probabilistic_sharpe: float | None
    deflated_sharpe: float | None
    trials: int
    max_drawdown_pct: float | None
    trades: int
    win_rate: float | None
    mean_net_pct: float | None
    exposure: float | None
    turnover_per_day: float | None


class Arm(msgspec.Struct, frozen=True, kw_only=True):
    """One way to decide, traded over the whole time.

    `difference` is its mean daily return less the baseline's, in percentage points, by a paired
    block bootstrap; None for the baseline itself.
    """

    symbol: str
    name: str
    performance: Performance
    difference: Interval | None
    verdict: Verdict | None


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """What decisions cost: `total_usd` with those that were paid for earlier, `new_usd` in this
    run alone. `per_decision_usd` is None without a decision.
    """

    decisions: int
    total_usd: float
    new_usd: float
    input_tokens: int
    output_tokens: int
    per_decision_usd: float | None


class DecidedArm(msgspec.Struct, frozen=True, kw_only=True):
    """How one arm of a language model decided on a symbol's states, and for how much.

    `holds` count its HOLDs by their reason; those by `error` had no usable reply. `bill_pct` is the
    price of all of them, in % of the account.
    """

    symbol: str
    arm: str
    states: int
    actions: dict[Action, int]
    holds: dict[HoldReason, int]
    price: Price
    bill_pct: float


class Paired(msgspec.Struct, frozen=True, kw_only=True):
    """Two arms' decisions on the same states, each as a trade of its own after all costs.

    `different` counts the states on which the actions differ. `difference` is the mean result of
    the arm's decision less the baseline's, in % of the position. The model may have read about what
    followed the states of the period "up to the cutoff".
    """

    symbol: str
    arm: str
    baseline: str
    period: Period
    states: int
    different: int
    difference: Interval


class DeciderStudy(msgspec.Struct, frozen=True, kw_only=True):
    """The language model of an A/B. `knowledge_cutoff` is what its maker states; None: nothing."""

    provider: str
    model: str
    knowledge_cutoff: str | None
    template_version: str
    arms: list[DecidedArm]


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """A series of one value a day, for charts."""

    symbol: str
    name: str
    kind: CurveKind
    time_ms: list[Millis]
    value: list[float | None]


class Histogram(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of the mean similarity of each query's neighbours, and their edges, one more."""

    symbol: str
    edges: list[float]
    counts: list[int]


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """A configuration of the sweep, with its skill against the volatility model."""

    label: str
    symbol: str
    horizon: str
    skill: Interval


class Trials(msgspec.Struct, frozen=True, kw_only=True):
    """How many configurations have been tried so far in this folder, and those of this sweep.

    `superior_p_value` is from Hansen's test for superior predictive ability of the best of the
    `tested` configurations, those that were tried on the same queries.
    """

    so_far: int
    configurations: list[Configuration]
    superior_p_value: float | None
    tested: int


class Metrics(msgspec.Struct, frozen=True, kw_only=True):
    """Everything an evaluation found. `readings` say it in words, most important first."""

    schema_version: int
    command: Command
    created_at: str
    origin: Origin
    verdict: Verdict
    readings: list[str] = []
    skills: list[Skill]
    undirected: list[UndirectedSkill] = []
    directions: list[Direction] = []
    probabilities: list[Probability] = []
    bands: list[Band] = []
    band_cells: list[BandCell] = []
    arms: list[Arm] = []
    paired: list[Paired] = []
    decider: DeciderStudy | None = None
    controls: list[Control] = []
    probes: list[Probe] = []
    slices: list[RegimeSkill] = []
    trials: Trials
    histograms: list[Histogram] = []
    curves: list[Curve] = []
    seconds: float
