"""Every metric with its name, type, labels and meaning. Labels take few values, whoever asks.

Names follow Prometheus: base units, `_total` for counters. The page docs/metrics.md is made of
these definitions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["counter", "histogram", "gauge"]

# A query takes milliseconds, a ping some 50 µs, and the deadline is seconds.
_DURATION_S: Final = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075),
    *(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0),
)
_STAGE_S: Final = (
    *(0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001),
    *(0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5),
)


@dataclass(frozen=True, slots=True)
class Definition:
    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


REQUESTS: Final = Definition(
    "llm_trader_requests_total",
    "counter",
    "Requests by method; refused ones, notifications, members of batches and the queries of "
    "subscriptions included. `unknown` is any method that the server does not have, `none` a "
    "document that is not a call.",
    ("method",),
)
ERRORS: Final = Definition(
    "llm_trader_errors_total",
    "counter",
    "Requests that were answered with an error, by method and JSON-RPC code; `other` is a code "
    "that docs/rpc.md does not list.",
    ("method", "code"),
)
DURATION: Final = Definition(
    "llm_trader_request_duration_seconds",
    "histogram",
    "Time from the last byte of a request to its reply, waits included.",
    ("method",),
    _DURATION_S,
)
STAGE_DURATION: Final = Definition(
    "llm_trader_stage_duration_seconds",
    "histogram",
    "Time by stage, of methods that compute. `queue`: waits for a turn; `decode`: parameters; "
    "`state`: the state from the market store; `embed`: its vectors; `search`: the index or "
    "Qdrant; `select`: matches and episodes; `evidence`; `handle`: the rest; `encode`.",
    ("method", "stage"),
    _STAGE_S,
)
MATCHES: Final = Definition(
    "llm_trader_matches",
    "histogram",
    "Matches found by a query, also by one that is refused because they are too few.",
    buckets=(0, 1, 2, 3, 5, 7, 10, 15, 20, 30, 50),
)
SIMILARITY: Final = Definition(
    "llm_trader_similarity_percentile",
    "histogram",
    "Percentage of random pairs of past states that are less similar than a query and its best "
    "match.",
    buckets=(25, 50, 75, 90, 95, 98, 99, 99.5, 99.9, 100),
)
EPISODES: Final = Definition(
    "llm_trader_effective_episodes",
    "histogram",
    "Independent observations that the evidence of an answer amounts to.",
    ("horizon",),
    (1, 2, 5, 10, 15, 20, 30, 50, 100),
)
VERDICTS: Final = Definition(
    "llm_trader_verdicts_total",
    "counter",
    "Answers by verdict; `none` is an abstention.",
    ("verdict",),
)
STATES_REFUSED: Final = Definition(
    "llm_trader_states_refused_total",
    "counter",
    "Queries whose data were refused: `stale` where the store's newest candle is too old or the "
    "feed seems frozen, `says_too_little` where the state lacks too much, `unknown_symbol`, "
    "`insufficient_matches`.",
    ("reason",),
)
FORECASTS_UNSCORED: Final = Definition(
    "llm_trader_forecasts_unscored",
    "gauge",
    "Served forecasts that are not scored: `memory` where too many wait, `no_outcome` where the "
    "store has no candle at their horizon.",
    ("reason",),
)
# What is counted while requests are served; all others are read at a scrape.
COUNTED: Final = (
    *(REQUESTS, ERRORS, DURATION, STAGE_DURATION),
    *(MATCHES, SIMILARITY, EPISODES, VERDICTS, STATES_REFUSED),
)

FRESHNESS: Final = Definition(
    "llm_trader_snapshot_freshness_seconds",
    "gauge",
    "Age of the newest row of a series of the market store: of a candle since its close.",
    ("symbol", "series"),
)
GAPS: Final = Definition(
    "llm_trader_store_gaps",
    "gauge",
    "Stretches of missing candles in a series (missing windows).",
    ("symbol", "series"),
)
MISSING: Final = Definition(
    "llm_trader_store_missing_candles",
    "gauge",
    "Candles missing in these stretches.",
    ("symbol", "series"),
)
REFUSED: Final = Definition(
    "llm_trader_store_rejections",
    "gauge",
    "Stretches of rows that the exchange sent and that were refused (data rejections), as the "
    "store notes them; at most 1000 of a series, and fewer after right rows arrived.",
    ("symbol", "series"),
)
SYMBOLS_LEFT_OUT: Final = Definition(
    "llm_trader_symbols_left_out",
    "gauge",
    "Symbols that have no metrics of their own, because only the first 200 by name have some.",
)
STORE_UP: Final = Definition(
    "llm_trader_store_up", "gauge", "1 if the market store can be read; absent without a store."
)
INDEX_UP: Final = Definition("llm_trader_index_up", "gauge", "1 if the index answers, else 0.")
INDEX_POINTS: Final = Definition(
    "llm_trader_index_points", "gauge", "States in the index.", ("symbol",)
)
INDEX_NEWEST: Final = Definition(
    "llm_trader_index_age_seconds",
    "gauge",
    "Age of the newest state in the index; a day is normal, as outcomes must be known.",
    ("symbol",),
)
INDEX_BYTES: Final = Definition(
    "llm_trader_index_bytes", "gauge", "Size of the embedded index's file; absent with Qdrant."
)
CACHE: Final = Definition(
    "llm_trader_cache_requests_total",
    "counter",
    "Look-ups by cache and result (`hit`, `miss`). `days`: states of a day; `base_rates`, "
    "`forecast_bases`, `similarity_references`: windows; `text_vectors` and `shared_text_vectors`; "
    "with Qdrant `columns` (of a symbol) and `heads` (a hit shares one read with other queries).",
    ("cache", "result"),
)
CONNECTIONS: Final = Definition("llm_trader_connections", "gauge", "Open connections.")
WAITING: Final = Definition(
    "llm_trader_queue_requests", "gauge", "Requests that wait for their turn."
)
IN_FLIGHT: Final = Definition("llm_trader_in_flight_requests", "gauge", "Requests at work.")
RECEIVED: Final = Definition(
    "llm_trader_received_bytes", "gauge", "Memory of requests that are not answered yet."
)
UNSENT: Final = Definition(
    "llm_trader_unsent_bytes", "gauge", "Memory of replies that clients have not read yet."
)
CALIBRATION_AGE: Final = Definition(
    "llm_trader_calibration_age_seconds",
    "gauge",
    "Time since the last outcome in the calibration was known; absent without a calibration.",
)
FORECASTS_WAITING: Final = Definition(
    "llm_trader_forecasts_waiting",
    "gauge",
    "Served forecasts whose horizon has not passed, or whose outcome is not in the store yet.",
)
FORECASTS_SCORED: Final = Definition(
    "llm_trader_forecasts_scored",
    "gauge",
    "Served forecasts of the last 7 days whose outcome is known: the number behind coverage and "
    "CRPS. One of each symbol and quarter-hour counts, if it was asked for within the hour.",
    ("horizon",),
)
CALIBRATED_SCORED: Final = Definition(
    "llm_trader_calibrated_forecasts_scored",
    "gauge",
    "Scored forecasts whose answer had a calibrated band: the number behind its coverage.",
    ("horizon",),
)
COVERAGE: Final = Definition(
    "llm_trader_band_coverage_ratio",
    "gauge",
    "Share of the scored forecasts whose outcome fell into the served 80 % band; 0.8 is "
    "right. `forecast`: from 10 to 90 % of the forecast; `calibrated`: `band_80`, of answers that "
    "had one.",
    ("horizon", "band"),
)
CRPS: Final = Definition(
    "llm_trader_crps_percent",
    "gauge",
    "Mean CRPS in % of the price, less is better, by the quantiles at 10, 25, 50, 75 and 90 % that "
    "the answers named: of the `forecast`, and of the `base_rate` of the window.",
    ("horizon", "forecast"),
)
CRPS_SKILL: Final = Definition(
    "llm_trader_crps_skill_ratio",
    "gauge",
    "1 - CRPS of the forecasts / CRPS of the base rates; above 0 the forecasts were better.",
    ("horizon",),
)
BUILD: Final = Definition(
    "llm_trader_build_info",
    "gauge",
    "Always 1; the labels say which program, Python, features and kind of index are in use.",
    ("version", "python", "feature_version", "index"),
)
WORKERS: Final = Definition(
    "llm_trader_workers", "gauge", "Processes that answer queries; absent without `--workers`."
)
WORKER_RESTARTS: Final = Definition(
    "llm_trader_worker_restarts_total",
    "counter",
    "Workers that were started again because they had died; absent without `--workers`.",
)
OF_WORKERS: Final = (WORKERS, WORKER_RESTARTS)
READ_AT_SCRAPE: Final = (
    *(FRESHNESS, GAPS, MISSING, REFUSED, SYMBOLS_LEFT_OUT, STORE_UP),
    *(INDEX_UP, INDEX_POINTS, INDEX_NEWEST, INDEX_BYTES, CACHE),
    *(CONNECTIONS, WAITING, IN_FLIGHT, RECEIVED, UNSENT, CALIBRATION_AGE),
    *(FORECASTS_WAITING, FORECASTS_UNSCORED, FORECASTS_SCORED, CALIBRATED_SCORED),
    *(COVERAGE, CRPS, CRPS_SKILL, BUILD),
)
DEFINITIONS: Final = (*COUNTED, *READ_AT_SCRAPE, *OF_WORKERS)

# The metrics of the prototype that this system replaces, as PromQL.
PROTOTYPE_METRICS: Final = {
    "query latency p50, p90, p99": "histogram_quantile(0.99, sum by (le) (rate("
    'llm_trader_request_duration_seconds_bucket{method="rag.query_patterns"}[5m])))',
    "embedding time": 'rate(llm_trader_stage_duration_seconds_sum{stage="embed"}[5m]) / '
    'rate(llm_trader_stage_duration_seconds_count{stage="embed"}[5m])',
    "Qdrant search time": 'rate(llm_trader_stage_duration_seconds_sum{stage="search"}[5m]) / '
    'rate(llm_trader_stage_duration_seconds_count{stage="search"}[5m])',
    "request rate": "sum(rate(llm_trader_requests_total[5m]))",
    "error rate": "sum(rate(llm_trader_errors_total[5m])) / "
    "sum(rate(llm_trader_requests_total[5m]))",
    "match count distribution": "sum by (le) (rate(llm_trader_matches_bucket[5m]))",
}
