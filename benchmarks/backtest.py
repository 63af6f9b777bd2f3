"""A year of one symbol traded by the shipped graph: `python -m benchmarks --only backtest`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from benchmarks.timing import Figure
from benchmarks.workload import START_MS, write_market
from llm_trader.app.job import Job
from llm_trader.app.workflow.backtest import backtest as run_backtest
from llm_trader.app.workflow.backtest_report import Backtested
from llm_trader.llm.aggregator import Aggregator, AggregatorConfig
from llm_trader.settings.loading import load_settings
from llm_trader.timeframe import DAY_MS, Millis

_SYMBOL: Final = "BTCUSDT"
_YEAR_DAYS: Final = 365
# The lookback of the graph's query, and the candles before its first state.
_BEFORE_DAYS: Final = 90 + 21
_FIRST_MS: Final[Millis] = START_MS + _BEFORE_DAYS * DAY_MS
_END_MS: Final[Millis] = _FIRST_MS + _YEAR_DAYS * DAY_MS
_GRAPH: Final = Path(__file__).parents[1] / "workflows" / "llm-trader" / "main.yml"
# The shipped thresholds hardly ever trade in a random walk, and trades are work too.
_EAGER: Final = Aggregator(AggregatorConfig(least_mean_bp=5, least_similarity=None))


def backtest(folder: Path) -> list[Figure]:
    """Reading, making the points, queries, prompts, guards, orders and books; on one core."""
    store = folder / "traded"
    write_market(store, (_SYMBOL,), _BEFORE_DAYS + _YEAR_DAYS)
    settings = load_settings(environ={}, overrides={"market.store": store})
    started, cpu_started = time.perf_counter(), time.process_time()
    done = run_backtest(Job(settings, {}, _END_MS), _GRAPH, _SYMBOL, _FIRST_MS, _END_MS, _EAGER)
    took_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu_started
    return [_figure(done, took_s, cpu_s)]


def _figure(done: Backtested, took_s: float, cpu_s: float) -> Figure:
    states = done.report.states
    return Figure(
        f"backtest of the shipped graph with the aggregator: {states:,} states, "
        f"{len(done.trades):,} trades",
        f"{took_s:.0f} s ({cpu_s:.0f} s of CPU)",
        "120 s",
        took_s <= 120 and states == _YEAR_DAYS * 96,
    )
