"""Served forecasts, kept until their horizons have passed, and then scored by what happened.

A forecast is scored by the numbers that its answer named, like the base rate beside it: by the
quantiles at 10, 25, 50, 75 and 90 %. Only forecasts of about now count, the first of each symbol
and quarter-hour, so that neither replays nor busy clients decide. Everything lies in bounded
memory: what waits in records, scores in sums by symbol and UTC day. Both come from the journal, so
a restart forgets nothing.
"""

from __future__ import annotations

from bisect import bisect
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import nan
from typing import Final, NamedTuple

import numpy as np

from llm_trader.arrays import Floats, Mask
from llm_trader.forecasts.numbers import QUARTER_HOUR_MS, Numbers, is_live
from llm_trader.retrieval.reference import QUANTILE_LEVELS
from llm_trader.retrieval.scores import quantile_scores
from llm_trader.snapshot.outcome import LONGEST_HORIZON_MS
from llm_trader.timeframe import DAY_MS, HORIZONS, HOUR_MS, Millis

# Of the metrics.
WINDOW_MS: Final = 7 * DAY_MS
# Some 1.7 KB for each symbol and day.
KEPT_DAYS: Final = 90
KEPT_MISSES: Final = 50
# Some 1.1 KB each; four days of 40 symbols.
_MAX_WAITING: Final = 16_384
# A candle that is not there by then, though later ones are, will not come soon.
_CANDLE_LATE_MS: Final = HOUR_MS
# Feeds that stand still for longer lose what waits.
_GIVE_UP_MS: Final = LONGEST_HORIZON_MS + DAY_MS

_NAMES: Final = tuple(HORIZONS)
_HORIZON_MS: Final = np.array(list(HORIZONS.values()))
# The numbers of a waiting forecast at one horizon.
_FORECAST: Final = slice(0, 5)
# Quantiles of the forecast, the base rate, the volatility model, `rescaled` and `random`; the last
# two may be NaN.
_FORECASTS: Final = 5
_QUANTILES: Final = slice(0, 5 * _FORECASTS)
_UNKNOWN: Final = [nan] * 5
_CALIBRATED, _P_UP, _NUMBERS = slice(25, 27), 27, 28

# Sums over scored forecasts: how many, how many with the outcome in their bands, rises, and CRPS of
# the forecast, the base rate and the volatility model.
SCORED, IN_50, IN_80, CALIBRATED, IN_CALIBRATED, UPS = range(6)
CRPS, BASE_CRPS, _MODEL_CRPS = range(6, 9)
# Of those that have `rescaled`, and of those that have `random`: how many, CRPS of the forecast and
# of the reference.
_RESCALED, _RANDOM = range(9, 12), range(12, 15)
# P(up) is mostly near a half. Of each bin: how many, the sum of P(up), rises.
_EDGES: Final = (0.3, 0.4, 0.44, 0.46, 0.48, 0.5, 0.52, 0.54, 0.56, 0.6, 0.7)
P_UP_BINS: Final = len(_EDGES) + 1
_FIRST_BIN: Final = 15
_SUMS: Final = _FIRST_BIN + 3 * P_UP_BINS


class ComparedSums(NamedTuple):
    """The sums that compare forecasts with a reference: how many forecasts have it, their CRPS, and
    its CRPS.
    """

    scored: int
    forecast: int
    reference: int


COMPARED: Final = {
    "base_rate": ComparedSums(SCORED, CRPS, BASE_CRPS),
    "rescaled": ComparedSums(*_RESCALED),
    "volatility": ComparedSums(SCORED, CRPS, _MODEL_CRPS),
    "random": ComparedSums(*_RANDOM),
}


class HorizonScores(NamedTuple):
    """Over the last 7 days; None where nothing is known."""

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


class Scored(NamedTuple):
    """A forecast at one horizon, in % change; the band is the calibrated one where there is one."""

    symbol: str
    as_of_ms: Millis
    served_ms: Millis
    horizon: str
    low: float
    high: float
    p_up: float
    outcome: float
    crps: float
    base_crps: float

    @property
    def is_miss(self) -> bool:
        return not self.low <= self.outcome <= self.high


class _Known(NamedTuple):
    """The numbers of a forecast at the horizon of a row, and what followed."""

    as_of_ms: Millis
    served_ms: Millis
    row: int
    numbers: Floats
    outcome: float


class _Waiting:
    """(horizons, numbers), NaN for a horizon that is not to be scored any more."""

    __slots__ = ("next_ms", "numbers", "served_ms")

    def __init__(self, numbers: Floats, served_ms: Millis, as_of_ms: Millis) -> None:
        self.numbers, self.served_ms = numbers, served_ms
        self.next_ms = 0
        self.look_ahead(as_of_ms)

    @property
    def unscored(self) -> Mask:
        return ~np.isnan(self.numbers[:, 0])

    def look_ahead(self, as_of_ms: Millis) -> None:
        """Notes when the next horizon ends."""
        if (unscored := self.unscored).any():
            self.next_ms = as_of_ms + int(_HORIZON_MS[unscored][0])


class ForecastScores:
    """`on_scored` is called with each score, when it is made."""

    def __init__(
        self,
        max_waiting: int = _MAX_WAITING,
        on_scored: Callable[[Scored], None] | None = None,
    ) -> None:
        self._waiting: dict[tuple[str, Millis], _Waiting] = {}
        # Of the last hours, also after they are scored.
        self._keys: dict[tuple[str, int], Millis] = {}
        self._max_waiting = max_waiting
        self._on_scored = on_scored
        # By symbol and the day in which the horizon ended, (horizons, sums).
        self._sums: dict[tuple[str, int], Floats] = {}
        self._last_day = 0
        self._misses: dict[str, deque[Scored]] = {}
        self.unscored = {"memory": 0, "no_outcome": 0}

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def waiting_of(self, symbol: str | None) -> list[tuple[str, Millis]]:
        """Symbols and times of what waits."""
        return [key for key in self._waiting if symbol in (None, key[0])]

    def add(self, symbol: str, as_of_ms: Millis, horizons: Numbers, served_ms: Millis) -> None:
        """Keeps forecasts that were served then, if they are to be scored.

        A horizon that had passed by then is left out: its outcome was known.
        """
        if not is_live(as_of_ms, served_ms):
            return
        key = symbol, as_of_ms // QUARTER_HOUR_MS
        if key in self._keys:
            return
        numbers = _numbers(horizons)
        numbers[as_of_ms + _HORIZON_MS <= served_ms] = np.nan
        if np.isnan(numbers[:, 0]).all():
            return
        if len(self._waiting) >= self._max_waiting:
            del self._waiting[next(iter(self._waiting))]
            self.unscored["memory"] += 1
        self._keys[key] = as_of_ms
        if len(self._keys) > 2 * self._max_waiting:
            self._keys = {
                known: stamp
                for known, stamp in self._keys.items()
                if served_ms - stamp <= 2 * HOUR_MS
            }
        self._waiting[symbol, as_of_ms] = _Waiting(numbers, served_ms, as_of_ms)

    def due(self, newest_ms: Mapping[str, Millis], now_ms: Millis) -> list[Due]:
        """What can be scored, as the newest candles of the symbols closed at `newest_ms`."""
        times: dict[str, list[Millis]] = {}
        until_ms: dict[str, Millis] = {}
        for (symbol, as_of_ms), waiting in list(self._waiting.items()):
            end_ms = newest_ms.get(symbol, 0)
            if waiting.next_ms <= end_ms:
                ends = as_of_ms + _HORIZON_MS[waiting.unscored]
                times.setdefault(symbol, []).append(as_of_ms)
                last_ms = int(ends[ends <= end_ms].max())
                until_ms[symbol] = max(until_ms.get(symbol, 0), last_ms)
            elif now_ms - as_of_ms > _GIVE_UP_MS:
                del self._waiting[symbol, as_of_ms]
                self.unscored["no_outcome"] += 1
        return [Due(symbol, stamps, until_ms[symbol]) for symbol, stamps in times.items()]

    def resolve(self, due: Due, outcomes: Floats, newest_ms: Millis) -> None:
        """Scores by the % changes (horizons, times) that followed; NaN is unknown."""
        known: list[_Known] = []
        by_time = outcomes.T.tolist()
        for as_of_ms, changes in zip(due.times_ms, by_time, strict=True):
            waiting = self._waiting[due.symbol, as_of_ms]
            for row in np.flatnonzero(waiting.unscored).tolist():
                ended_ms = as_of_ms + int(_HORIZON_MS[row])
                if ended_ms > newest_ms:
                    continue
                outcome = changes[row]
                if outcome == outcome:
                    numbers = waiting.numbers[row].copy()
                    known.append(_Known(as_of_ms, waiting.served_ms, row, numbers, outcome))
                elif newest_ms - ended_ms <= _CANDLE_LATE_MS:
                    continue
                else:
                    self.unscored["no_outcome"] += 1
                waiting.numbers[row] = np.nan
            waiting.look_ahead(as_of_ms)
            if not waiting.unscored.any():
                del self._waiting[due.symbol, as_of_ms]
        if known:
            self._score(due.symbol, known)

    def summary(self, now_ms: Millis) -> dict[str, HorizonScores]:
        """By horizon, of the 7 days before `now_ms`."""
        first_day = (now_ms - WINDOW_MS) // DAY_MS + 1
        total = self.by_day(None, first_day, max(now_ms // DAY_MS, first_day)).sum(axis=0)
        return {name: _scores(sums) for name, sums in zip(_NAMES, total, strict=True)}

    def by_day(self, symbol: str | None, first_day: int, last_day: int) -> Floats:
        """Sums of scored forecasts (days, horizons, sums), of one symbol or of all."""
        totals = np.zeros((last_day - first_day + 1, len(HORIZONS), _SUMS))
        for (scored_symbol, day), sums in self._sums.items():
            if first_day <= day <= last_day and symbol in (None, scored_symbol):
                totals[day - first_day] += sums
        return totals

    def misses(self, symbol: str | None) -> list[Scored]:
        """Scores outside their 80 % band, the newest first."""
        if symbol is not None:
            return [*self._misses.get(symbol, ())][::-1]
        every = [miss for misses in self._misses.values() for miss in misses]
        return sorted(every, key=_ended_ms, reverse=True)[:KEPT_MISSES]

    def _score(self, symbol: str, known: Sequence[_Known]) -> None:
        """All at once, as small arrays cost more than what they hold."""
        numbers = np.array([one.numbers for one in known])
        outcomes = np.repeat([one.outcome for one in known], _FORECASTS)
        quantiles = numbers[:, _QUANTILES].reshape(len(outcomes), -1)
        scores_of_all = quantile_scores(quantiles, QUANTILE_LEVELS, outcomes)
        losses = scores_of_all.reshape(-1, _FORECASTS).tolist()
        for one, row, scores in zip(known, numbers.tolist(), losses, strict=True):
            self._add(symbol, one, row, scores)

    def _add(self, symbol: str, one: _Known, numbers: list[float], losses: list[float]) -> None:
        outcome, p_up, horizon = one.outcome, numbers[_P_UP], _NAMES[one.row]
        low, least, _, most, high = numbers[_FORECAST]
        band = calibrated_low, calibrated_high = numbers[_CALIBRATED]
        is_calibrated, rises = calibrated_low == calibrated_low, outcome > 0
        sums = self._sums_at(symbol, (one.as_of_ms + HORIZONS[horizon]) // DAY_MS)[one.row]
        sums[:_FIRST_BIN] += (
            *(1, least <= outcome <= most, low <= outcome <= high),
            *(is_calibrated, is_calibrated and calibrated_low <= outcome <= calibrated_high),
            *(rises, *losses[:3]),
            *_compared(losses[0], losses[3]),
            *_compared(losses[0], losses[4]),
        )
        place = _FIRST_BIN + 3 * bisect(_EDGES, p_up)
        sums[place : place + 3] += 1, p_up, rises
        low, high = band if is_calibrated else (low, high)
        scored = Scored(
            *(symbol, one.as_of_ms, one.served_ms, horizon, low, high, p_up, outcome),
            *losses[:2],
        )
        if scored.is_miss:
            self._misses.setdefault(symbol, deque(maxlen=KEPT_MISSES)).append(scored)
        if self._on_scored is not None:
            self._on_scored(scored)

    def _sums_at(self, symbol: str, day: int) -> Floats:
        if day > self._last_day:
            self._last_day = day
            first_day = day - KEPT_DAYS
            self._sums = {key: sums for key, sums in self._sums.items() if key[1] > first_day}
        return self._sums.setdefault((symbol, day), np.zeros((len(HORIZONS), _SUMS)))


def _compared(crps: float, reference: float) -> tuple[float, float, float]:
    """What a score adds to `ComparedSums`; nothing where that of the reference is NaN."""
    return (1, crps, reference) if reference == reference else (0, 0.0, 0.0)


def p_up_bins(sums: Floats) -> Floats:
    """The bins of P(up) of sums (..., sums), (..., bins, 3)."""
    return sums[..., _FIRST_BIN:].reshape(*sums.shape[:-1], P_UP_BINS, 3)


def _ended_ms(scored: Scored) -> Millis:
    return scored.as_of_ms + HORIZONS[scored.horizon]


def in_order_of_misses(scored: Iterable[Scored]) -> list[Scored]:
    """Misses first, in each group the newest first."""
    return sorted(scored, key=lambda one: (not one.is_miss, -_ended_ms(one), one.symbol))


def _numbers(horizons: Numbers) -> Floats:
    numbers = np.full((len(HORIZONS), _NUMBERS), np.nan)
    for row, name in enumerate(HORIZONS):
        if name in horizons:
            horizon = horizons[name]
            quantiles = horizon.forecast, horizon.base_rate, horizon.volatility_model
            references = (named or _UNKNOWN for named in (horizon.rescaled, horizon.random))
            numbers[row, _QUANTILES] = np.concatenate([*quantiles, *references])
            if horizon.band_80 is not None:
                numbers[row, _CALIBRATED] = horizon.band_80
            numbers[row, _P_UP] = horizon.p_up
    return numbers


def _scores(sums: Floats) -> HorizonScores:
    numbers = sums[:_FIRST_BIN].tolist()
    scored, calibrated = numbers[SCORED], numbers[CALIBRATED]
    if not scored:
        return HorizonScores(0, 0, None, None, None, None)
    return HorizonScores(
        round(scored),
        round(calibrated),
        numbers[IN_80] / scored,
        numbers[IN_CALIBRATED] / calibrated if calibrated else None,
        numbers[CRPS] / scored,
        numbers[BASE_CRPS] / scored,
    )
