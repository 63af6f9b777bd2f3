"""Forecasts and trades row by row, for those who want to look for themselves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np
import polars as pl

from llm_trader.arrays import Floats, Times
from llm_trader.evaluation.backtest.simulator import Trade
from llm_trader.evaluation.backtest.strategies import Traded
from llm_trader.evaluation.forecast.skills import Scored
from llm_trader.retrieval.statistics import quantiles

_ENDS: Final = np.array([[0.1, 0.9]])
_DIGITS: Final = 6


class Steps(NamedTuple):
    """Of one symbol, variant and horizon, a column of one value a query each; NaN is not known."""

    variant: str
    symbol: str
    horizon: str
    time_ms: Times
    columns: dict[str, Floats]


def steps_of(variant: str, scored: Scored) -> Steps:
    """Forecast, what followed, and the losses (CRPS) of both and of the references, in %."""
    walk, made, lost = scored.walk, scored.forecasts, scored.losses
    whole = walk.neighbours.complete
    ends = quantiles(made.ensemble.outcomes, _ENDS).T
    low, high = (np.where(whole, of, np.nan) for of in ends)
    return Steps(
        variant,
        walk.points.symbol,
        scored.horizon,
        walk.queries.timestamp_ms,
        {
            "mean_similarity": walk.mean_similarity,
            "neighbours_p10_pct": low,
            "neighbours_median_pct": made.median,
            "neighbours_p90_pct": high,
            "p_up": made.p_up,
            "observed_pct": made.observed,
            "crps_forecast": lost.forecast,
            "crps_random_neighbours": lost.random,
            "crps_base_rate_treated_alike": lost.base_alike,
            "crps_base_rate": lost.base,
        },
    )


def write_steps(steps: Sequence[Steps], path: Path) -> None:
    """CSV, a row a query and horizon; an empty cell is not known."""
    tables = [
        pl.DataFrame(
            {
                "variant": pl.repeat(of.variant, len(of.time_ms), eager=True),
                "symbol": pl.repeat(of.symbol, len(of.time_ms), eager=True),
                "time": _times(of.time_ms),
                "horizon": pl.repeat(of.horizon, len(of.time_ms), eager=True),
                **of.columns,
            }
        )
        for of in steps
    ]
    columns = pl.col(pl.Float64).fill_nan(None)
    pl.concat(tables).with_columns(columns).write_csv(path, float_precision=_DIGITS)


def write_trades(traded: Sequence[tuple[str, Traded]], path: Path) -> None:
    """CSV, a row a trade, of every symbol and arm."""
    rows = [
        {"symbol": symbol, "arm": of.name, **msgspec.structs.asdict(trade)}
        for symbol, of in traded
        for trade in of.simulation.trades
    ]
    names = ["symbol", "arm", *Trade.__struct_fields__]
    table = (
        pl.DataFrame(rows, infer_schema_length=None)
        if rows
        else pl.DataFrame(schema=dict.fromkeys(names, pl.String))
    )
    for name in ("entry_ms", "exit_ms"):
        if rows:
            table = table.with_columns(_times(table[name].to_numpy()).alias(name))
    table.rename({"entry_ms": "entry_time", "exit_ms": "exit_time"}).write_csv(
        path, float_precision=_DIGITS
    )


def _times(time_ms: Times) -> pl.Series:
    moments = pl.Series(time_ms).cast(pl.Datetime("ms"))
    return moments.dt.to_string("%Y-%m-%dT%H:%M:%SZ")
