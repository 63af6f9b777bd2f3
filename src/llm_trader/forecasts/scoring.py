"""Served forecasts, kept until their horizon has passed, and then scored by what happened.

A forecast is scored by the numbers that its answer named, like the base rate beside it: by the
quantiles at 10, 25, 50, 75 and 90 %. Only forecasts of about now count, one of each symbol and
quarter-hour, so that neither replays nor busy clients decide. Everything lies in bounded memory:
what waits in records, scores in sums by the hour. A restart forgets both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np

from llm_trader.arrays import Floats
from llm_trader.retrieval.answer import Answer, HorizonEvidence
from llm_trader.retrieval.forecast import BAND_ENDS
from llm_trader.retrieval.reference import QUANTILE_LEVELS
from llm_trader.retrieval.scores import quantile_scores
from llm_trader.snapshot.outcome import LONGEST_HORIZON_MS
from llm_trader.timeframe import DAY_MS, HORIZONS, HOUR_MS, MINUTE_MS, Millis

WINDOW_MS: Final = 7 * DAY_MS
# Some 300 bytes each; a day of 40 symbols.
_MAX_WAITING: Final = 4096
_LIVE_WITHIN_MS: Final = HOUR_MS
_QUARTER_HOUR_MS: Final = 15 * MINUTE_MS
# A candle that is not there by then, though later ones are, will not come soon.
_CANDLE_LATE_MS: Final = HOUR_MS
# Feeds that stand still for longer lose what waits.
_GIVE_UP_MS: Final = LONGEST_HORIZON_MS + DAY_MS

_LEVEL_PLACES: Final = [round(level * 100) - 1 for level in QUANTILE_LEVELS]
_HORIZON_MS: Final = np.array(list(HORIZONS.values()))
# The numbers of a waiting forecast at one horizon: quantiles of both, both bands.
_FORECAST, _BASE = slice(0, 5), slice(5, 10)
_BAND, _CALIBRATED = slice(10, 12), slice(12, 14)
_NUMBERS: Final = 14


class HorizonScores(NamedTuple):
    """Over the last 7 days; None where nothing is known. `calibrated` of the `scored` had a
    calibrated band.
    """

    scored: int
    calibrated: int
    coverage: float | None
    calibrated_coverage: float | None
    crps: float | None
    base_crps: float | None

    @property
    def skill(self) -> float | None:
        return 1 - self.crps / self.base_crps if self.crps is not None and self.base_crps else None


class Due(NamedTuple):
    """The forecasts of a symbol whose outcome may be known: their times, and the last horizon."""

    symbol: str
    times_ms: list[Millis]
    until_ms: Millis


class ForecastScores:
    def __init__(self, max_waiting: int = _MAX_WAITING) -> None:
        # By symbol and time: (horizons, numbers), NaN for a horizon without a forecast.
        self._waiting: dict[tuple[str, Millis], Floats] = {}
        # Of the last hours, also after they are scored.
        self._keys: dict[tuple[str, int], Millis] = {}
        self._max_waiting = max_waiting
        # By the hour in which the horizon ended, (horizons, sums): forecasts, in their band,
        # calibrated, in their calibrated band, CRPS, CRPS of the base rate.
        self._sums: dict[int, Floats] = {}
        self.unscored = {"memory": 0, "no_outcome": 0}

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def add(self, symbol: str, as_of_ms: Millis, answer: Answer, now_ms: Millis) -> None:
        """Keeps the forecasts of an answer, if they are to be scored."""
        if abs(now_ms - as_of_ms) > _LIVE_WITHIN_MS:
            return
        key = symbol, as_of_ms // _QUARTER_HOUR_MS
        if key in self._keys:
            return
        numbers = _numbers(answer.evidence.horizons)
        if np.isnan(numbers).all():
            return
        if len(self._waiting) >= self._max_waiting:
            del self._waiting[next(iter(self._waiting))]
            self.unscored["memory"] += 1
        self._keys[key] = as_of_ms
        if len(self._keys) > 2 * self._max_waiting:
            self._keys = {
                known: stamp
                for known, stamp in self._keys.items()
                if now_ms - stamp <= 2 * _LIVE_WITHIN_MS
            }
        self._waiting[symbol, as_of_ms] = numbers

    def due(self, newest_ms: Mapping[str, Millis], now_ms: Millis) -> list[Due]:
        """What can be scored, as the newest candles of the symbols closed at `newest_ms`."""
        times: dict[str, list[Millis]] = {}
        until_ms: dict[str, Millis] = {}
        for (symbol, as_of_ms), numbers in list(self._waiting.items()):
            if now_ms - as_of_ms > _GIVE_UP_MS:
                del self._waiting[symbol, as_of_ms]
                self.unscored["no_outcome"] += 1
                continue
            passed = as_of_ms + _HORIZON_MS[_unscored(numbers)]
            passed = passed[passed <= newest_ms.get(symbol, 0)]
            if len(passed):
                times.setdefault(symbol, []).append(as_of_ms)
                until_ms[symbol] = max(until_ms.get(symbol, 0), int(passed.max()))
        return [Due(symbol, stamps, until_ms[symbol]) for symbol, stamps in times.items()]

    def resolve(self, due: Due, outcomes: Floats, newest_ms: Millis) -> None:
        """Scores by the % changes (horizons, times) that followed; NaN is unknown."""
        for column, as_of_ms in enumerate(due.times_ms):
            numbers = self._waiting[due.symbol, as_of_ms]
            for row in np.flatnonzero(_unscored(numbers)):
                ended_ms = as_of_ms + int(_HORIZON_MS[row])
                if ended_ms > newest_ms:
                    continue
                outcome = float(outcomes[row, column])
                if outcome == outcome:
                    self._score(int(row), ended_ms, numbers[row], outcome)
                elif newest_ms - ended_ms <= _CANDLE_LATE_MS:
                    continue
                else:
                    self.unscored["no_outcome"] += 1
                numbers[row] = np.nan
            if not _unscored(numbers).any():
                del self._waiting[due.symbol, as_of_ms]

    def summary(self, now_ms: Millis) -> dict[str, HorizonScores]:
        """The scores by horizon, over the 7 days before `now_ms`."""
        first_hour = (now_ms - WINDOW_MS) // HOUR_MS
        self._sums = {hour: sums for hour, sums in self._sums.items() if hour > first_hour}
        total = np.sum(list(self._sums.values()), axis=0) if self._sums else _no_sums()
        return {name: _scores(sums) for name, sums in zip(HORIZONS, total, strict=True)}

    def _score(self, row: int, ended_ms: Millis, numbers: Floats, outcome: float) -> None:
        quantiles = np.stack([numbers[_FORECAST], numbers[_BASE]])
        crps, base_crps = quantile_scores(quantiles, QUANTILE_LEVELS, np.array([outcome] * 2))
        low, high = numbers[_BAND]
        least, most = numbers[_CALIBRATED]
        sums = self._sums.setdefault(ended_ms // HOUR_MS, _no_sums())
        is_calibrated = least == least
        sums[row] += (
            *(1, low <= outcome <= high),
            *(is_calibrated, is_calibrated and least <= outcome <= most),
            *(crps, base_crps),
        )


def _numbers(horizons: Mapping[str, HorizonEvidence]) -> Floats:
    numbers = np.full((len(HORIZONS), _NUMBERS), np.nan)
    for row, name in enumerate(HORIZONS):
        evidence = horizons.get(name)
        if evidence is None or evidence.forecast is None:
            continue
        quantiles = evidence.forecast.quantiles
        estimates = evidence.p10, evidence.p25, evidence.p50, evidence.p75, evidence.p90
        numbers[row, _FORECAST] = [quantiles[place] for place in _LEVEL_PLACES]
        numbers[row, _BASE] = [estimate.base_rate for estimate in estimates]
        numbers[row, _BAND] = [quantiles[place] for place in BAND_ENDS]
        if evidence.band_80 is not None:
            numbers[row, _CALIBRATED] = evidence.band_80
    return numbers


def _unscored(numbers: Floats) -> np.ndarray:
    return ~np.isnan(numbers[:, 0])


def _no_sums() -> Floats:
    return np.zeros((len(HORIZONS), 6))


def _scores(sums: Floats) -> HorizonScores:
    scored, in_band, calibrated, in_calibrated, crps, base_crps = sums.tolist()
    if not scored:
        return HorizonScores(0, 0, None, None, None, None)
    return HorizonScores(
        round(scored),
        round(calibrated),
        in_band / scored,
        in_calibrated / calibrated if calibrated else None,
        crps / scored,
        base_crps / scored,
    )
