"""Tests that allow for how many were made, and the record of every configuration tried.

The best of many looks good by chance. A trial is one file in the folder `trials` beside the
results, named after the configuration and its queries, so that a repeated one is no further trial.
It holds by how much each day's loss was below the volatility model's: all configurations tried on
the same queries are tested together, whenever they were tried.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import msgspec
import numpy as np

from llm_trader.arrays import Floats
from llm_trader.errors import ConfigurationError, InvalidInputError
from llm_trader.evaluation.dataset import Dataset
from llm_trader.evaluation.forecast.skills import ScoredForecasts
from llm_trader.evaluation.significance import long_run_variance, too_few_rows
from llm_trader.storage.files import write_atomically
from llm_trader.timeframe import DAY_MS, Millis

FOLDER: Final = "trials"

# Gains of adjacent days depend on each other through outcomes of 24h and spells of calm.
_DAYS_PER_BLOCK: Final = 5

# By symbol and horizon, as in `BTCUSDT 1h`: of each day, by how much the mean loss was below that
# of the volatility model; None is unknown.
Gains: TypeAlias = dict[str, list[float | None]]


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One configuration tried on some queries; the days of `gains` begin at `first_day_ms`."""

    label: str
    configuration: str
    queries: str
    first_day_ms: Millis
    gains: Gains


class Ledger:
    """The trials of one folder of results. Any number of processes may add to it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER

    def add(self, trial: Trial) -> None:
        """Raises `ConfigurationError` where the folder cannot be written to."""
        path = self._folder / f"{trial.configuration}-{trial.queries}.json"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_atomically(path, msgspec.json.encode(trial) + b"\n")
        except OSError as error:
            raise ConfigurationError(f"cannot write to {self._folder}: {error.strerror}") from None

    def trials(self) -> list[Trial]:
        """Raises `InvalidInputError` for a damaged file, as a count without it would be wrong."""
        trials = []
        for path in sorted(self._folder.glob("*.json")):
            try:
                trials.append(msgspec.json.decode(path.read_bytes(), type=Trial))
            except msgspec.MsgspecError as error:
                raise InvalidInputError(
                    f"{path} is no record of a trial ({error}); restore it, or choose another --out"
                ) from None
        return trials

    def configurations(self) -> set[str]:
        """The different configurations tried in this folder, on whatever queries."""
        return {trial.configuration for trial in self.trials()}

    def trials_on(self, queries: str) -> list[Trial]:
        """The trials on these queries, one of each configuration."""
        same = (trial for trial in self.trials() if trial.queries == queries)
        return list({trial.configuration: trial for trial in same}.values())


def queries_digest(dataset: Dataset, step_ms: Millis) -> str:
    """12 hex digits of the SHA-256 of all queries and what followed them."""
    digest = hashlib.sha256(str(step_ms).encode())
    for symbol in sorted(dataset.points):
        queries = dataset.queries(symbol, step_ms)
        digest.update(symbol.encode())
        digest.update(queries.timestamp_ms.tobytes())
        digest.update(np.ascontiguousarray(queries.values).tobytes())
    return digest.hexdigest()[:12]


def daily_gains(scored: Sequence[ScoredForecasts], dataset: Dataset, step_ms: Millis) -> Gains:
    """The gains of one symbol's forecasts for a trial, from the data set's first day on."""
    first_day = dataset.start_ms // DAY_MS
    days = dataset.end_ms // DAY_MS - first_day + 1
    gains: Gains = {}
    for forecasts in scored:
        gain = forecasts.losses.volatility_model - forecasts.losses.forecast
        times_ms = forecasts.walk.queries.timestamp_ms
        day = times_ms // DAY_MS - first_day
        counted = np.isfinite(gain) & (times_ms % step_ms == 0)
        total = np.bincount(day[counted], gain[counted], days)
        count = np.bincount(day[counted], minlength=days)
        means = [float(t / c) if c else None for t, c in zip(total, count, strict=True)]
        gains[f"{forecasts.symbol} {forecasts.horizon}"] = means
    return gains


def superior_p_value(trials: Sequence[Trial], *, reps: int, seed: int) -> float | None:
    """Hansen's p-value that no trial beats the volatility model.

    A model is one trial on one symbol and horizon. None where all know too few days in common.
    """
    gains = [
        np.array([np.nan if day is None else day for day in days])
        for trial in trials
        for _, days in sorted(trial.gains.items())
    ]
    if not gains or len({len(days) for days in gains}) != 1:
        return None
    losses = -np.column_stack(gains)
    benchmark = np.zeros(len(losses))
    p_value = superior_predictive_ability(losses, benchmark, _DAYS_PER_BLOCK, reps, seed)
    return p_value if np.isfinite(p_value) else None


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """p-values adjusted for being several (Holm 1979), in the given order.

    Rejecting those of at most α makes any false rejection with a chance of at most α, whatever the
    dependence. A NaN stays one, and counts as a comparison that was made.
    """
    outside = [name for name, p in p_values.items() if p < 0 or p > 1]
    if outside:
        raise InvalidInputError(f"not a probability: the p-values of {', '.join(outside)}")
    ascending = sorted((p, name) for name, p in p_values.items() if p == p)
    adjusted, highest = dict(p_values), 0.0
    for rank, (p, name) in enumerate(ascending):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p))
        adjusted[name] = highest
    return adjusted


def superior_predictive_ability(
    losses: Floats, benchmark: Floats, block: int, reps: int = 1000, seed: int = 0
) -> float:
    """The p-value that none of the models, losses (n, models), beats the benchmark (n,).

    Hansen's consistent test (2005), by stationary bootstrap with blocks of `block` rows on
    average. 0 is a p-value below 1 / reps; it is 1 where no model has the lower mean, and NaN where
    there are too few rows. arch 8 does not scale the models by their deviations, whatever its
    `studentize` says, and a noisy model would drown the others: so it is given differences in
    standard errors. Time grows with n², to seconds a model at 35,000 rows.

    Raises `ConfigurationError` where the `eval` extra is not installed.
    """
    try:
        from arch.bootstrap import SPA
    except ImportError as error:
        raise ConfigurationError(
            f'testing many models at once needs arch ({error}): pip install "llm-trader-rag[eval]"'
        ) from error
    rows = np.column_stack([benchmark, losses])
    rows = rows[~np.isnan(rows).any(axis=1)]
    if too_few_rows(len(rows), block):
        return np.nan
    excess = rows[:, 1:] - rows[:, :1]
    if excess.mean(axis=0).min(initial=0.0) >= 0:  # arch lacks the floor of 0 of Hansen's statistic
        return 1.0
    scale = np.sqrt([long_run_variance(column, block) for column in excess.T])
    test = SPA(
        np.zeros(len(rows)),
        excess / np.where(scale > 0, scale, 1.0),
        block_size=block,
        reps=reps,
        seed=seed,
    )
    test.compute()
    return float(test.pvalues["consistent"])
