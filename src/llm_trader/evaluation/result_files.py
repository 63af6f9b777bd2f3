"""Rows and curves of an evaluation, and its files that hold them.

The files are `metrics.json`, `steps.csv`, `trades.csv` and `report.html`; of a study of reading
`reads.json` and `report.html`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np
import polars as pl

from llm_trader.arrays import Floats, Times
from llm_trader.errors import ConfigurationError
from llm_trader.evaluation.backtest.simulator import Simulation, Trade
from llm_trader.evaluation.backtest.strategies import Backtest
from llm_trader.evaluation.conformal.bands import BandCoverage
from llm_trader.evaluation.decisions.results import ReadsMetrics
from llm_trader.evaluation.forecast.skills import ScoredForecasts, WalkForward
from llm_trader.evaluation.report.page import write_reads_report, write_report
from llm_trader.evaluation.results import Curve, CurveKind, Histogram, Metrics
from llm_trader.snapshot.model import EXPECTED_VOLATILITY
from llm_trader.storage.files import write_all_atomically
from llm_trader.timeframe import DAY_MS, SECOND_MS, iso8601

METRICS: Final = "metrics.json"
READS: Final = "reads.json"
STEPS: Final = "steps.csv"
TRADES: Final = "trades.csv"
REPORT: Final = "report.html"
# Files of earlier runs lie here, in a folder named by the time at which each was made.
EARLIER: Final = "earlier"

# Losses are of some hundredths of a percent: four decimals would hide how they differ.
_DIGITS: Final = 6
_BINS: Final = 40
# One day holds few outcomes that do not overlap.
_COVERAGE_DAYS: Final = 7


class _Created(msgspec.Struct):
    created_at: str


class Steps(NamedTuple):
    """One symbol, variant and horizon: columns of one value for each query; NaN is unknown."""

    variant: str
    symbol: str
    horizon: str
    time_ms: Times
    columns: dict[str, Floats]


@dataclass(frozen=True, slots=True)
class Study:
    """The results, and the rows they are made from; a backtest goes with its symbol."""

    metrics: Metrics
    steps: Sequence[Steps]
    backtests: Sequence[tuple[str, Backtest]]


def write_study(study: Study, folder: Path) -> list[Path]:
    """Write the files and return their paths; those of an earlier run are kept in `earlier`.

    Raises `ConfigurationError` where the folder cannot be written to.
    """
    files: dict[str, Callable[[Path], None]] = {
        METRICS: partial(_write_metrics, study.metrics),
        STEPS: partial(write_steps, study.steps),
        TRADES: partial(write_trades, study.backtests),
        REPORT: partial(write_report, study.metrics),
    }
    return _write_files(files, folder, METRICS)


def write_reads(metrics: ReadsMetrics, folder: Path) -> list[Path]:
    """Like `write_study`, of a study of reading: `reads.json` and `report.html`."""
    files: dict[str, Callable[[Path], None]] = {
        READS: partial(_write_metrics, metrics),
        REPORT: partial(write_reads_report, metrics),
    }
    return _write_files(files, folder, READS)


def _write_files(
    files: Mapping[str, Callable[[Path], None]], folder: Path, dated: str
) -> list[Path]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _keep_earlier(folder, dated)
        write_all_atomically(folder, files)
    except OSError as error:
        raise ConfigurationError(f"cannot write to {folder}: {error.strerror}") from None
    return [folder / name for name in files]


def _keep_earlier(folder: Path, dated: str) -> None:
    """Copies, so that the old files stand whole until the new ones replace them; the file `dated`
    says when they were made.
    """
    metrics = folder / dated
    if not metrics.is_file():
        return
    try:
        created_at = msgspec.json.decode(metrics.read_bytes(), type=_Created).created_at
    except msgspec.MsgspecError:
        created_at = iso8601(int(metrics.stat().st_mtime) * SECOND_MS)
    kept = folder / EARLIER / created_at.replace(":", "-")
    kept.mkdir(parents=True, exist_ok=True)
    for name in (METRICS, READS, STEPS, TRADES, REPORT):
        if (folder / name).is_file():
            shutil.copy2(folder / name, kept / name)


def refuse_unwritable(folder: Path) -> None:
    """Raises `ConfigurationError` before minutes of work are lost."""
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not (nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)):
        raise ConfigurationError(f"cannot write to {folder}: {nearest} is no writable folder")


def _write_metrics(metrics: Metrics | ReadsMetrics, path: Path) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(metrics), indent=1) + b"\n")


def forecast_steps(variant: str, scored: ScoredForecasts) -> Steps:
    """Forecast, outcome, and the losses (CRPS) of the forecast and the references, in %."""
    walk, forecasts, losses = scored.walk, scored.forecasts, scored.losses
    columns = {
        "mean_similarity": walk.mean_similarity,
        "expected_volatility_pct": walk.queries.column(EXPECTED_VOLATILITY[scored.horizon]),
        "p10_pct": forecasts.p10,
        "median_pct": forecasts.median,
        "p90_pct": forecasts.p90,
        "p_up": forecasts.p_up,
        "observed_pct": forecasts.observed,
        "crps_forecast": losses.forecast,
        "crps_forecast_potential": losses.potential,
        "crps_random_neighbours": losses.random,
        "crps_volatility_model": losses.volatility_model,
        "crps_rescaled_base_rate": losses.rescaled_base,
        "crps_base_rate": losses.base,
    }
    return Steps(variant, scored.symbol, scored.horizon, walk.queries.timestamp_ms, columns)


def write_steps(steps: Sequence[Steps], path: Path) -> None:
    """A row for each query and horizon; an empty cell is unknown."""
    tables = [
        pl.DataFrame(
            {
                "variant": part.variant,
                "symbol": part.symbol,
                "time": _times(part.time_ms),
                "horizon": part.horizon,
                **part.columns,
            }
        )
        for part in steps
    ]
    numbers = pl.col(pl.Float64).fill_nan(None)
    pl.concat(tables).with_columns(numbers).write_csv(path, float_precision=_DIGITS)


def write_trades(backtests: Sequence[tuple[str, Backtest]], path: Path) -> None:
    """A row for each trade of every symbol and arm."""
    rows = [
        {"symbol": symbol, "arm": backtest.name, **msgspec.structs.asdict(trade)}
        for symbol, backtest in backtests
        for trade in backtest.simulation.trades
    ]
    names = ["symbol", "arm", *Trade.__struct_fields__]
    table = pl.DataFrame(schema=dict.fromkeys(names, pl.String))
    if rows:
        table = pl.DataFrame(rows, infer_schema_length=None)
        for name in ("entry_ms", "exit_ms"):
            table = table.with_columns(_times(table[name].to_numpy()).alias(name))
    table = table.rename({"entry_ms": "entry_time", "exit_ms": "exit_time"})
    table.write_csv(path, float_precision=_DIGITS)


def _times(time_ms: Times) -> pl.Series:
    times = pl.Series(time_ms).cast(pl.Datetime("ms"))
    return times.dt.to_string("%Y-%m-%dT%H:%M:%SZ")


def drift_curves(
    walk: WalkForward, coverages: Mapping[str, BandCoverage], horizon: str
) -> list[Curve]:
    """Daily curves of one symbol; the corrected band's coverage is the mean of a week."""
    times_ms, symbol = walk.queries.timestamp_ms, walk.points.symbol
    episodes = walk.effective_episodes(horizon, walk.neighbours)
    return [
        _daily(symbol, "mean of the neighbours", "similarity", times_ms, walk.mean_similarity),
        _daily(symbol, f"over {horizon}", "effective episodes", times_ms, episodes),
        *(
            _daily(symbol, f"over {name}", "coverage", times_ms, coverage.after, _COVERAGE_DAYS)
            for name, coverage in coverages.items()
        ),
    ]


def equity_curve(symbol: str, arm: str, simulation: Simulation) -> Curve:
    """The first value, which is 1, and the last value of each day."""
    last = np.unique([0, *np.flatnonzero(np.diff(simulation.time_ms // DAY_MS, append=-1))])
    return Curve(
        symbol=symbol,
        name=arm,
        kind="equity",
        time_ms=simulation.time_ms[last].tolist(),
        value=simulation.equity[last].tolist(),
    )


def similarity_histogram(walk: WalkForward) -> Histogram:
    similarity = walk.mean_similarity
    counts, edges = np.histogram(similarity[np.isfinite(similarity)], bins=_BINS)
    return Histogram(symbol=walk.points.symbol, edges=edges.tolist(), counts=counts.tolist())


def _daily(
    symbol: str, name: str, kind: CurveKind, time_ms: Times, values: Floats, days: int = 1
) -> Curve:
    """Means of the `days` days that end with each day; None where all values are unknown."""
    finite = np.isfinite(values)
    first_ms = int(time_ms[0] - time_ms[0] % DAY_MS)
    day = (time_ms - first_ms) // DAY_MS
    total, count = (
        np.convolve(np.bincount(day, weights), np.ones(days))[: day[-1] + 1]
        for weights in (np.where(finite, values, 0.0), finite.astype(np.float64))
    )
    means = [float(t / c) if c >= 1 else None for t, c in zip(total, count, strict=True)]
    days_ms = (first_ms + DAY_MS * np.arange(len(means))).tolist()
    return Curve(symbol=symbol, name=name, kind=kind, time_ms=days_ms, value=means)
