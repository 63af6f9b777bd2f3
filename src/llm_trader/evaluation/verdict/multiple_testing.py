"""Every configuration that was tried, kept beside the results, for the best of many looks good.

A trial is one file in the folder `trials`, named after the configuration and the queries it was
asked: what is tried again is no further trial. It holds by how much each day's loss was below the
base rate's, so that all configurations tried on the same queries are tested together, whenever
they were tried.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from llm_trader.arrays import Floats
from llm_trader.errors import ConfigurationError, InvalidInputError
from llm_trader.evaluation import significance
from llm_trader.evaluation.dataset import Dataset
from llm_trader.evaluation.forecast.skills import Scored
from llm_trader.storage.files import write_atomically
from llm_trader.timeframe import DAY_MS, Millis

FOLDER: Final = "trials"

_DAYS_A_BLOCK: Final = 5


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """`gains` by symbol and horizon, such as `BTCUSDT 1h`: of each day from `first_day_ms` on, by
    how much the mean loss was below that of the base rate treated alike; None where not known.
    """

    label: str
    configuration: str
    queries: str
    first_day_ms: Millis
    gains: dict[str, list[float | None]]


def queries_digest(dataset: Dataset, step_ms: Millis) -> str:
    """12 hex digits of the SHA-256 of all that is asked about and what followed."""
    digest = hashlib.sha256(str(step_ms).encode())
    for symbol in sorted(dataset.points):
        asked = dataset.queries(symbol, step_ms)
        digest.update(symbol.encode())
        digest.update(asked.timestamp_ms.tobytes())
        digest.update(np.ascontiguousarray(asked.values).tobytes())
    return digest.hexdigest()[:12]


def daily_gains(
    scored: Sequence[Scored], dataset: Dataset, step_ms: Millis
) -> dict[str, list[float | None]]:
    """What a trial keeps of one symbol's forecasts, from the first day of the data set on."""
    first = dataset.start_ms // DAY_MS
    days = dataset.end_ms // DAY_MS - first + 1
    found: dict[str, list[float | None]] = {}
    for one in scored:
        gain = one.losses.base_alike - one.losses.forecast
        stamps = one.walk.queries.timestamp_ms
        day = stamps // DAY_MS - first
        known = np.isfinite(gain) & (stamps % step_ms == 0)
        total = np.bincount(day[known], gain[known], days)
        count = np.bincount(day[known], minlength=days)
        means = [float(t / c) if c else None for t, c in zip(total, count, strict=True)]
        found[f"{one.walk.points.symbol} {one.horizon}"] = means
    return found


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
        """Raises `InvalidInputError` for a file that is no trial: a count without it would lie."""
        found = []
        for path in sorted(self._folder.glob("*.json")):
            try:
                found.append(msgspec.json.decode(path.read_bytes(), type=Trial))
            except msgspec.MsgspecError as error:
                raise InvalidInputError(
                    f"{path} is no record of a trial ({error}); restore it, or take another --out"
                ) from None
        return found

    def configurations(self) -> int:
        """How many different ones were tried in this folder, on whatever queries."""
        return len({trial.configuration for trial in self.trials()})


def superior_p_value(trials: Sequence[Trial], *, reps: int, seed: int) -> float | None:
    """Hansen's p-value that none of the trials beats the base rate treated alike.

    A model is one trial on one symbol and horizon. None where the days known to all are too few.
    """
    gains = [_known(gain) for trial in trials for _, gain in sorted(trial.gains.items())]
    if not gains or len({len(gain) for gain in gains}) != 1:
        return None
    losses = -np.column_stack(gains)
    benchmark = np.zeros(len(losses))
    found = significance.superior_predictive_ability(losses, benchmark, _DAYS_A_BLOCK, reps, seed)
    return found if np.isfinite(found) else None


def _known(gain: Sequence[float | None]) -> Floats:
    return np.array([np.nan if day is None else day for day in gain])


def tried_on(trials: Sequence[Trial], queries: str) -> Mapping[str, Trial]:
    """Those that were asked the same queries, by configuration."""
    return {trial.configuration: trial for trial in trials if trial.queries == queries}
