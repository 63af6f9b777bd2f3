"""The records of an answer, with the field names of the wire. `None` is unknown."""

from __future__ import annotations

import msgspec

from llm_trader.retrieval.intervals import Interval
from llm_trader.snapshot.outcome import Outcome
from llm_trader.timeframe import Millis


class MatchState(msgspec.Struct, frozen=True):
    rsi_7: float
    rsi_14: float
    macd: float
    ema_ratio: float
    oi_delta_pct: float
    funding_rate: float


class Match(msgspec.Struct, frozen=True):
    """A past state. `similarity_percentile`: the % of random pairs that are less similar."""

    similarity: float
    similarity_percentile: float | None
    timestamp: Millis
    resolved_at: Millis
    date: str
    id: str
    market_state: MatchState
    outcomes: Outcome


class OutcomeStatistics(msgspec.Struct, frozen=True):
    """% changes of the matches at one horizon. `win_rate` is the share of changes above 0."""

    mean: float | None
    median: float | None
    p10: float | None
    p90: float | None
    positive_count: int
    negative_count: int
    win_rate: float | None


class Statistics(msgspec.Struct, frozen=True):
    total_matches: int
    avg_similarity: float | None
    similarity_range: tuple[float, float] | None
    outcome_15m: OutcomeStatistics
    outcome_1h: OutcomeStatistics
    outcome_4h: OutcomeStatistics
    outcome_24h: OutcomeStatistics
    stop_loss_hits: int
    take_profit_hits: int


class Estimate(Interval, frozen=True):
    """A statistic of the episodes, its interval, and the same statistic of the whole window.

    The mean of a single episode has no interval.
    """

    value: float
    base_rate: float


class Rescaled(msgspec.Struct, frozen=True):
    """% changes multiplied by (current / former volatility), both over 24 hours."""

    mean: float
    p10: float
    p25: float
    p50: float
    p75: float
    p90: float


class Forecast(msgspec.Struct, frozen=True):
    """% changes. `quantiles` are those at 1, 2, ... 99 %, `p_up` is the probability of a rise.

    It is made of the outcomes of the whole window in units of the volatility that was expected
    then, times the volatility that is expected now; outcomes of similar states have the weight
    `weight_of_neighbours` in it.
    """

    quantiles: list[float]
    mean: float
    p_up: float
    weight_of_neighbours: float


class Difference(msgspec.Struct, frozen=True):
    """A statistic of similar states, the same of the window, and by how many standard errors they
    differ.
    """

    value: float
    base_rate: float
    deviation: float


class HorizonEvidence(msgspec.Struct, frozen=True):
    """% changes. `p_up` is the share above 0. `rescaled` needs the current volatility.

    The volatility model says how far the price should move: `expected_volatility_pct`. Where it
    is unknown there is no forecast. `band_80` is where 8 in 10 outcomes fall: 10 and 90 % of the
    forecast after a calibration. `scale` compares how far prices moved after similar states, in
    units of expected volatility, with the window (1), `direction` the shares of rises; both are
    null with fewer than 10 effective episodes. `summary` says all of this in words.
    """

    effective_episodes: float
    mean: Estimate
    p_up: Estimate
    p10: Estimate
    p25: Estimate
    p50: Estimate
    p75: Estimate
    p90: Estimate
    rescaled: Rescaled | None
    band_80: tuple[float, float] | None = None
    expected_volatility_pct: float | None = None
    forecast: Forecast | None = None
    scale: Difference | None = None
    direction: Difference | None = None
    summary: str | None = None


class BarrierEvidence(msgspec.Struct, frozen=True):
    """Shares of states after which stop (-2 %) or target (+3 %) was touched first within 24h."""

    stop_first: Estimate
    target_first: Estimate


class BarrierForecast(msgspec.Struct, frozen=True):
    """The chances that a stop below the price, or a target above it, is touched first within 24h.

    Distances are in % and in moves that are expected of the 24h. The chances are shares of all
    states of the window, with both distances in moves that were expected then.
    """

    stop_pct: float
    target_pct: float
    stop_moves: float
    target_moves: float
    stop_first: float
    target_first: float
    neither: float


class PastStates(msgspec.Struct, frozen=True):
    """Past states as columns, in the order of time: what the numbers of an answer are made of.

    `similarity` is null for a whole window. % changes and expected volatilities are by horizon. The
    path says how the price reached its extremes within 24h, in %: before it fell by more than
    `path_low_1`, it had risen by `path_high_1`, and so on; `path_high_9` is its highest rise.
    """

    timestamp: list[Millis]
    similarity: list[float] | None
    outcomes: dict[str, list[float]]
    expected_volatility_pct: dict[str, list[float]]
    realized_volatility_24h: list[float]
    path: dict[str, list[float]]


class StatesUsed(msgspec.Struct, frozen=True):
    """The episodes of the evidence, the neighbours of the forecast, and the window of both."""

    episodes: PastStates
    neighbours: PastStates
    window: PastStates


class Novelty(msgspec.Struct, frozen=True):
    """`percentile`: the % of past states with a nearer neighbour than this state has."""

    percentile: float
    nearest_similarity: float
    reference_states: int


class Evidence(msgspec.Struct, frozen=True):
    """`verdict` is `informative`, `weak` or `none`; abstaining is a normal answer.

    `calibrated`: a calibration contributed to the bands and the verdict. `barrier_forecasts` are of
    -2 and +3 %, then of the barriers that the query names; null where the expected volatility is
    unknown. `states_used` is there where the query asks for full detail.
    """

    verdict: str
    reason: str
    episodes: int
    interval_level: float
    base_rate_points: int
    similarity_mean: float | None
    similarity_range: tuple[float, float] | None
    novelty: Novelty | None
    barriers: BarrierEvidence | None
    horizons: dict[str, HorizonEvidence]
    calibrated: bool = False
    barrier_forecasts: list[BarrierForecast] | None = None
    states_used: StatesUsed | None = None


class CalibrationUsed(msgspec.Struct, frozen=True):
    """`digest`: first 12 hex digits of the file's SHA-256. `known_by`: when all of it was known."""

    digest: str
    known_by: Millis


class Answer(msgspec.Struct, frozen=True):
    """What a query found and how. `warnings` name what could not be done.

    `index_end_ms` is the time of the newest state in the window, known at the query's time.
    """

    matches: list[Match]
    statistics: Statistics
    evidence: Evidence
    filters_applied: list[str]
    features_missing: list[str]
    points_eligible: int
    embedding_us: int
    retrieval_us: int
    calibration: CalibrationUsed | None = None
    warnings: list[str] = []
    index_end_ms: Millis | None = None
