"""The records of an answer, with the field names of the wire. `None` is unknown."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from llm_trader.retrieval.intervals import Interval
from llm_trader.snapshot.outcome import Outcome
from llm_trader.timeframe import Millis


class MatchState(msgspec.Struct, frozen=True):
    rsi_7: Annotated[float, Meta(description="RSI of 7 candles, 0 to 100.")]
    rsi_14: Annotated[float, Meta(description="RSI of 14 candles, 0 to 100.")]
    macd: Annotated[float, Meta(description="MACD line, EMA12 - EMA26, in quote currency.")]
    ema_ratio: Annotated[float, Meta(description="EMA20 over EMA50 of the 4h candles.")]
    oi_delta_pct: Annotated[
        float | None,
        Meta(description="Open interest over its 24h mean, in % of it; null where unknown."),
    ]
    funding_rate: Annotated[
        float | None,
        Meta(
            description="Last settled funding rate, a fraction per settlement; null where unknown."
        ),
    ]


class Match(msgspec.Struct, frozen=True):
    """A past state. `similarity_percentile`: the % of random pairs that are less similar."""

    similarity: Annotated[
        float, Meta(description="Cosine similarity to the state of the query, -1 to 1; 1 is equal.")
    ]
    similarity_percentile: Annotated[
        float | None, Meta(description="% of random pairs of past states that are less similar.")
    ]
    timestamp: Annotated[Millis, Meta(description="Time of the past state, UTC milliseconds.")]
    resolved_at: Annotated[
        Millis, Meta(description="When its outcomes were all known, 24h later, UTC milliseconds.")
    ]
    date: Annotated[str, Meta(description="`timestamp` in RFC 3339.")]
    id: Annotated[str, Meta(description="Id of the point in the index.")]
    market_state: Annotated[MatchState, Meta(description="Some fields of the past state.")]
    outcomes: Annotated[Outcome, Meta(description="What followed it.")]
    compared_share: Annotated[
        float,
        Meta(
            description="Share of the features' weight that it was compared over, 0 to 1: what "
            "both states know."
        ),
    ] = 1.0


class OutcomeStatistics(msgspec.Struct, frozen=True):
    """% changes of the matches at one horizon. `win_rate` is the share of changes above 0."""

    mean: Annotated[float | None, Meta(description="Mean price change, %.")]
    median: Annotated[float | None, Meta(description="Median price change, %.")]
    p10: Annotated[float | None, Meta(description="10 % of the changes are below it, %.")]
    p90: Annotated[float | None, Meta(description="90 % of the changes are below it, %.")]
    positive_count: Annotated[
        int, Meta(description="Number of matches after which the price was higher.")
    ]
    negative_count: Annotated[
        int, Meta(description="Number of matches after which the price was lower.")
    ]
    win_rate: Annotated[
        float | None, Meta(description="Share of matches after which the price was higher, 0 to 1.")
    ]


class Statistics(msgspec.Struct, frozen=True):
    total_matches: Annotated[int, Meta(description="Number of matches.")]
    avg_similarity: Annotated[float | None, Meta(description="Their mean similarity.")]
    similarity_range: Annotated[
        tuple[float, float] | None, Meta(description="Their least and greatest similarity.")
    ]
    outcome_15m: Annotated[
        OutcomeStatistics, Meta(description="Price changes within 15 minutes after the matches.")
    ]
    outcome_1h: Annotated[
        OutcomeStatistics, Meta(description="Price changes within 1 hour after the matches.")
    ]
    outcome_4h: Annotated[
        OutcomeStatistics, Meta(description="Price changes within 4 hours after the matches.")
    ]
    outcome_24h: Annotated[
        OutcomeStatistics, Meta(description="Price changes within 24 hours after the matches.")
    ]
    stop_loss_hits: Annotated[
        int,
        Meta(
            description="Number of matches after which the price was 2 % lower at some time "
            "within 1 hour."
        ),
    ]
    take_profit_hits: Annotated[
        int,
        Meta(
            description="Number of matches after which the price was 3 % higher at some time "
            "within 1 hour."
        ),
    ]


class Estimate(Interval, frozen=True):
    """A statistic of the episodes, its interval, and the same statistic of the whole window.

    The mean of a single episode has no interval.
    """

    value: Annotated[float, Meta(description="The statistic of the episodes.")]
    base_rate: Annotated[float, Meta(description="The same statistic of all states of the window.")]


class Rescaled(msgspec.Struct, frozen=True):
    """% changes multiplied by (current / former volatility), both over 24 hours."""

    mean: Annotated[float, Meta(description="Mean, %.")]
    p10: Annotated[float, Meta(description="10 % are below it, %.")]
    p25: Annotated[float, Meta(description="25 % are below it, %.")]
    p50: Annotated[float, Meta(description="50 % are below it, %.")]
    p75: Annotated[float, Meta(description="75 % are below it, %.")]
    p90: Annotated[float, Meta(description="90 % are below it, %.")]


class Forecast(msgspec.Struct, frozen=True):
    """% changes. `quantiles` are those at 1, 2, ... 99 %, `p_up` is the probability of a rise.

    It is made of the outcomes of the whole window in units of the volatility that was expected
    then, times the volatility that is expected now; outcomes of similar states have the weight
    `weight_of_neighbours` in it.
    """

    quantiles: Annotated[
        list[float],
        Meta(description="Price changes in % that 1, 2, ... 99 % of the outcomes should be below."),
    ]
    mean: Annotated[float, Meta(description="Mean price change, %.")]
    p_up: Annotated[float, Meta(description="Probability of a rise, 0 to 1.")]
    weight_of_neighbours: Annotated[
        float,
        Meta(
            description="Weight of similar states in the forecast, 0 to 1; the rest is all "
            "states of the window."
        ),
    ]


class Difference(msgspec.Struct, frozen=True):
    """A statistic of similar states, the same of the window, and by how many standard errors they
    differ.
    """

    value: Annotated[float, Meta(description="The statistic of similar states.")]
    base_rate: Annotated[float, Meta(description="The same statistic of the window.")]
    deviation: Annotated[float, Meta(description="Their difference in standard errors.")]


class HorizonEvidence(msgspec.Struct, frozen=True):
    """% changes. `p_up` is the share above 0. `rescaled` needs the current volatility.

    The volatility model says how far the price should move: `expected_volatility_pct`. Where it
    is unknown there is no forecast. `band_80` is where 8 in 10 outcomes fall: 10 and 90 % of the
    forecast after a calibration. `scale` compares how far prices moved after similar states, in
    units of expected volatility, with the window (1), `direction` the shares of rises; both are
    null with fewer than 10 effective episodes. `summary` says all of this in words.
    """

    effective_episodes: Annotated[
        float, Meta(description="Number of independent observations that the episodes amount to.")
    ]
    mean: Annotated[Estimate, Meta(description="Mean price change, %.")]
    p_up: Annotated[
        Estimate, Meta(description="Share of episodes after which the price was higher, 0 to 1.")
    ]
    p10: Annotated[Estimate, Meta(description="10 % of the changes are below it, %.")]
    p25: Annotated[Estimate, Meta(description="25 % of the changes are below it, %.")]
    p50: Annotated[Estimate, Meta(description="50 % of the changes are below it, %.")]
    p75: Annotated[Estimate, Meta(description="75 % of the changes are below it, %.")]
    p90: Annotated[Estimate, Meta(description="90 % of the changes are below it, %.")]
    rescaled: Annotated[
        Rescaled | None,
        Meta(
            description="The changes after the episodes, each multiplied by the current over "
            "its former volatility of 24h; null where the current one is unknown."
        ),
    ]
    band_80: Annotated[
        tuple[float, float] | None,
        Meta(
            description="Calibrated range in % that 8 of 10 outcomes should fall in; null "
            "without a calibration."
        ),
    ] = None
    expected_volatility_pct: Annotated[
        float | None, Meta(description="How far the price should move, by the volatility model, %.")
    ] = None
    forecast: Annotated[
        Forecast | None,
        Meta(description="What to expect; null where the expected volatility is unknown."),
    ] = None
    scale: Annotated[
        Difference | None,
        Meta(
            description="How far prices moved after similar states in units of expected "
            "volatility, beside the window's 1; null with fewer than 10 effective "
            "episodes."
        ),
    ] = None
    direction: Annotated[
        Difference | None,
        Meta(
            description="Share of rises after similar states beside the window's, 0 to 1; null "
            "with fewer than 10 effective episodes."
        ),
    ] = None
    summary: Annotated[str | None, Meta(description="All of this in words.")] = None


class BarrierEvidence(msgspec.Struct, frozen=True):
    """Shares of states after which stop (-2 %) or target (+3 %) was touched first within 24h."""

    stop_first: Annotated[
        Estimate,
        Meta(
            description="Share of episodes after which the price touched -2 % within 24h, "
            "before +3 %."
        ),
    ]
    target_first: Annotated[
        Estimate,
        Meta(
            description="Share of episodes after which the price touched +3 % within 24h, "
            "before -2 %."
        ),
    ]


class BarrierForecast(msgspec.Struct, frozen=True):
    """The chances that a stop below the price, or a target above it, is touched first within 24h.

    Distances are in % and in moves that are expected of the 24h. The chances are shares of all
    states of the window, with both distances in moves that were expected then.
    """

    stop_pct: Annotated[float, Meta(description="Distance of the stop below the price, %.")]
    target_pct: Annotated[float, Meta(description="Distance of the target above the price, %.")]
    stop_moves: Annotated[
        float, Meta(description="Distance of the stop in moves expected of the next 24h.")
    ]
    target_moves: Annotated[
        float, Meta(description="Distance of the target in moves expected of the next 24h.")
    ]
    stop_first: Annotated[
        float, Meta(description="Chance that the stop is touched first within 24h, 0 to 1.")
    ]
    target_first: Annotated[
        float, Meta(description="Chance that the target is touched first within 24h, 0 to 1.")
    ]
    neither: Annotated[
        float, Meta(description="Chance that neither is touched within 24h, 0 to 1.")
    ]


class PastStates(msgspec.Struct, frozen=True):
    """Past states as columns, in the order of time: what the numbers of an answer are made of.

    `similarity` is null for a whole window. % changes and expected volatilities are by horizon. The
    path says how the price reached its extremes within 24h, in %: before it fell by more than
    `path_low_1`, it had risen by `path_high_1`, and so on; `path_high_9` is its highest rise.
    """

    timestamp: Annotated[list[Millis], Meta(description="Times of the states, UTC milliseconds.")]
    similarity: Annotated[
        list[float] | None,
        Meta(description="Similarities to the state of the query; null for a whole window."),
    ]
    outcomes: Annotated[
        dict[str, list[float]], Meta(description="Price changes after the states in %, by horizon.")
    ]
    expected_volatility_pct: Annotated[
        dict[str, list[float]],
        Meta(description="Volatility that was expected then in %, by horizon."),
    ]
    realized_volatility_24h: Annotated[
        list[float], Meta(description="Volatility of the 24h before the states, %.")
    ]
    path: Annotated[
        dict[str, list[float | None]],
        Meta(
            description="How the price reached its extremes within 24h, in %: columns "
            "`path_low_1`, `path_high_1`, and so on; null where a candle of them is missing."
        ),
    ]


class StatesUsed(msgspec.Struct, frozen=True):
    """The episodes of the evidence, the neighbours of the forecast, and the window of both."""

    episodes: Annotated[PastStates, Meta(description="The episodes of the evidence.")]
    neighbours: Annotated[PastStates, Meta(description="The similar states of the forecast.")]
    window: Annotated[PastStates, Meta(description="All states that the query could see.")]


class Novelty(msgspec.Struct, frozen=True):
    """`percentile`: the % of past states with a nearer neighbour than this state has."""

    percentile: Annotated[
        float,
        Meta(
            description="% of past states that had a nearer neighbour than this state has; from "
            "99 on the verdict is none."
        ),
    ]
    nearest_similarity: Annotated[float, Meta(description="Similarity of the nearest past state.")]
    reference_states: Annotated[int, Meta(description="Number of past states compared with.")]


class Evidence(msgspec.Struct, frozen=True):
    """`verdict` is `informative`, `weak` or `none`; abstaining is a normal answer.

    `calibrated`: a calibration contributed to the bands and the verdict. `barrier_forecasts` are of
    -2 and +3 %, then of the barriers that the query names; null where the expected volatility is
    unknown. `states_used` is there where the query asks for full detail.
    """

    verdict: Annotated[
        str, Meta(description="`informative`, `weak` or `none`; none means abstain.")
    ]
    reason: Annotated[str, Meta(description="Why, in words.")]
    episodes: Annotated[int, Meta(description="Number of separate past episodes.")]
    interval_level: Annotated[
        float, Meta(description="Share of cases in which an interval holds the true value, 0 to 1.")
    ]
    base_rate_points: Annotated[
        int, Meta(description="Number of states of the window, from which the base rates come.")
    ]
    similarity_mean: Annotated[float | None, Meta(description="Mean similarity of the episodes.")]
    similarity_range: Annotated[
        tuple[float, float] | None, Meta(description="Their least and greatest similarity.")
    ]
    novelty: Annotated[
        Novelty | None, Meta(description="How far the state is from everything known.")
    ]
    barriers: Annotated[
        BarrierEvidence | None,
        Meta(
            description="Which of -2 and +3 % was touched first within 24h after the episodes; "
            "null if none of them has all candles of these 24h."
        ),
    ]
    horizons: Annotated[
        dict[str, HorizonEvidence],
        Meta(description="The evidence by horizon: `15m`, `1h`, `4h` and `24h`."),
    ]
    calibrated: Annotated[
        bool, Meta(description="Whether a calibration contributed to the bands and the verdict.")
    ] = False
    barrier_forecasts: Annotated[
        list[BarrierForecast] | None,
        Meta(
            description="Chances of -2 and +3 % within 24h, then of the barriers that the query "
            "names; null where the expected volatility is unknown."
        ),
    ] = None
    states_used: Annotated[
        StatesUsed | None,
        Meta(description="The past states behind the numbers; null unless `detail` is `full`."),
    ] = None
    episodes_compared_in_part: Annotated[
        int,
        Meta(
            description="Number of the episodes that were compared over a part of the features, "
            "because they or the query lack some."
        ),
    ] = 0


class CalibrationUsed(msgspec.Struct, frozen=True):
    """`digest`: first 12 hex digits of the file's SHA-256. `known_by`: when all of it was known."""

    digest: Annotated[str, Meta(description="First 12 hex digits of the file's SHA-256.")]
    known_by: Annotated[
        Millis, Meta(description="When all of its data was known, UTC milliseconds.")
    ]


class ReferenceForecasts(msgspec.Struct, frozen=True):
    """Two forecasts that the served one is compared with later: quantiles at 10, 25, 50, 75 and
    90 %, in % by horizon.

    `rescaled` are those of the window in units of the volatility of the last 24h, None where the
    query's is unknown; `random` those of the forecast with random past states as its neighbours.
    """

    rescaled: list[list[float]] | None
    random: list[list[float]]


class Answer(msgspec.Struct, frozen=True):
    """What a query found and how. `warnings` name what could not be done.

    `index_end_ms` is the time of the newest state in the window, known at the query's time.
    `without_neighbours` are the quantiles at 10, 25, 50, 75 and 90 % of the forecast of the window
    alone, in % by horizon: what the forecast is compared with later. `references` are there where
    the query asked for them.
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
    without_neighbours: list[list[float]] | None = None
    references: ReferenceForecasts | None = None
