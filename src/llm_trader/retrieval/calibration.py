"""How good past forecasts were, measured, and what that says about the forecast of now.

A calibration is a file that `llm-trader calibrate` fits and a server loads. It widens or narrows
the band between the forecast's 10 and 90 % so that 8 in 10 outcomes fall inside, and it names the
horizons at which forecasts were better than the volatility model when that was measured. It applies
only to queries like those it was fitted on, and only after all of its outcomes were known.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import msgspec

from llm_trader.embedding.features import VOLATILITY_FLOOR
from llm_trader.errors import ConfigurationError
from llm_trader.index.points import STATE
from llm_trader.index.protocol import Collection
from llm_trader.retrieval.answer import CalibrationUsed
from llm_trader.retrieval.forecast import NEIGHBOURS
from llm_trader.retrieval.intervals import Interval
from llm_trader.retrieval.search_spec import NeighbourSearch
from llm_trader.storage.files import read_whole, write_atomically
from llm_trader.timeframe import DAY_MS, HORIZONS, HOUR_MS, Millis, iso8601

SCHEMA_VERSION: Final = 2
BAND_LEVEL: Final = 0.8
# Margins differ by fifths of the volatility ratio, and by these parts of a UTC day.
RATIO_CELLS: Final = 5
HOURS_PER_CELL: Final = 4
HOUR_CELLS: Final = 24 // HOURS_PER_CELL

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Coverage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The share of outcomes inside the band, before and after the correction."""

    before: Share
    after: Share
    queries: Annotated[int, msgspec.Meta(ge=1)]


class Margins(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What widens a band on either side, in units of expected volatility; below 0 it narrows it.

    To `base` is added what the query's conditions ask for: by the ratio of the expected volatility
    to that of the last 24h, whose fifths meet at `ratio_edges`, by the part of the UTC day, and by
    the symbol.
    """

    base: float
    ratio_edges: Annotated[
        tuple[float, ...], msgspec.Meta(min_length=RATIO_CELLS - 1, max_length=RATIO_CELLS - 1)
    ]
    by_ratio: Annotated[
        tuple[float, ...], msgspec.Meta(min_length=RATIO_CELLS, max_length=RATIO_CELLS)
    ]
    by_hours: Annotated[
        tuple[float, ...], msgspec.Meta(min_length=HOUR_CELLS, max_length=HOUR_CELLS)
    ]
    by_symbol: dict[str, float]

    def of(self, volatility_ratio: float, as_of_ms: Millis, symbol: str) -> float:
        return (
            self.base
            + self.by_ratio[bisect_right(self.ratio_edges, volatility_ratio)]
            + self.by_hours[as_of_ms % DAY_MS // (HOURS_PER_CELL * HOUR_MS)]
            + self.by_symbol[symbol]
        )


class HorizonCalibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was fitted and measured for one horizon.

    `effective_scores` counts the outcomes without overlap that the margins are fitted on. Coverages
    and `skill` cover the held-out part: `before` is the uncorrected band, `after` has new margins
    each day, `after_kept_days` keeps them for that many days. `by_month` covers all queries that
    had margins at their time. `skill` is 1 - CRPS / CRPS of the volatility model, both as issued,
    for a forecast with that `weight_of_neighbours`.
    """

    margins: Margins
    effective_scores: float
    coverage_before: Interval
    coverage_after: Interval
    after_kept_days: dict[int, Share]
    by_month: dict[str, Coverage]
    by_symbol: dict[str, Coverage]
    by_volatility_ratio: dict[str, Coverage]
    by_hours: dict[str, Coverage]
    weight_of_neighbours: Share
    skill: Interval


class Scope(NeighbourSearch, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The forecasts that a calibration is about: their markets, volatility model and search."""

    exchange: str | None
    symbols: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    feature_version: str
    state_space_id: str
    text_space_id: str | None
    volatility_model: str | None
    neighbours: int = NEIGHBOURS
    gap_hours: float = 0.0

    def differences(self, query: Scope) -> list[str]:
        """How a query's forecast differs from this; its symbols must be among these."""
        differences = [
            f"{name} is {_shown(fitted)} there, {_shown(requested)} here"
            for name in self.__struct_fields__
            if name != "symbols"
            and (fitted := getattr(self, name)) != (requested := getattr(query, name))
        ]
        lacking = [symbol for symbol in query.symbols if symbol not in self.symbols]
        if lacking:
            fitted_symbols = ", ".join(self.symbols)
            differences.append(f"it covers {fitted_symbols}, not {', '.join(lacking)}")
        return differences


def scope_of(collection: Collection, symbol: str, spec: NeighbourSearch) -> Scope:
    """The forecast that a query of a collection gets."""
    return Scope(
        exchange=collection.exchange,
        symbols=(symbol,),
        feature_version=collection.feature_version,
        state_space_id=collection.state_space_id,
        text_space_id=None if spec.vector == STATE else collection.text_space_id,
        volatility_model=collection.volatility_model,
        **spec.neighbour_fields(),
    )


class Calibration(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """A fitted calibration, as it is written to its file.

    The last of its outcomes was known at `known_by_ms`, so no earlier query may use it. It covers
    states from `fitted_from_ms` on; those from `held_out_from_ms` on were held out for measuring.
    Each margin is fitted on the last `window_days` of scores. `interval_level` is the level of
    every interval in it. `features_missing` are those that all of its states lack, as in a market
    without open interest; it applies to states that lack the same.
    """

    schema_version: int
    package_version: str
    created_at: str
    scope: Scope
    fitted_from_ms: Millis
    held_out_from_ms: Millis
    known_by_ms: Millis
    window_days: int
    step_minutes: int
    interval_level: Share
    data_digest: str
    seed: int
    horizons: dict[str, HorizonCalibration]
    features_missing: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """12 hex digits of the SHA-256 of the file that `write_calibration` writes."""
        return hashlib.sha256(_encoded(self)).hexdigest()[:12]

    @property
    def skilled_horizons(self) -> frozenset[str]:
        """Horizons at which forecasts were better than the volatility model, beyond chance."""
        return frozenset(name for name, horizon in self.horizons.items() if horizon.skill.above(0))

    def margins(
        self, expected_pct: Sequence[float], realized_pct: float, as_of_ms: Millis, symbol: str
    ) -> list[float]:
        """The margins of a query, by horizon, in units of the expected volatility.

        Expected are the volatilities of the horizons, realised is that of the last 24h, in %.
        """
        realized_pct = max(realized_pct, VOLATILITY_FLOOR)
        return [
            self.horizons[name].margins.of(volatility_pct / realized_pct, as_of_ms, symbol)
            for name, volatility_pct in zip(HORIZONS, expected_pct, strict=True)
        ]


class LoadedCalibration:
    """A calibration that applies to queries for `max_age_days` after all of it was known."""

    def __init__(self, calibration: Calibration, max_age_days: int) -> None:
        self.calibration = calibration
        self.used = CalibrationUsed(calibration.digest, calibration.known_by_ms)
        self._max_age_days = max_age_days

    def objections(
        self, query: Scope, as_of_ms: Millis, neighbours: int, features_missing: Sequence[str]
    ) -> list[str]:
        """Why it does not apply to a query that found `neighbours`; empty where it does."""
        objections = self.calibration.scope.differences(query) + self._time_objections(as_of_ms)
        fitted = self.calibration.features_missing
        if set(features_missing) != set(fitted):
            objections.append(
                f"it was fitted on states without {', '.join(fitted)}, and this one lacks "
                f"{', '.join(features_missing) or 'nothing'}"
                if fitted
                else "it was fitted on whole states, and this one lacks features"
            )
        if neighbours < query.neighbours:
            objections.append(
                f"it was fitted on {query.neighbours} neighbours, and {neighbours} were found"
            )
        return objections

    def _time_objections(self, as_of_ms: Millis) -> list[str]:
        age_ms = as_of_ms - self.calibration.known_by_ms
        known_by = iso8601(self.calibration.known_by_ms)
        if age_ms < 0:
            return [f"it contains outcomes up to {known_by}, after the query's time"]
        if age_ms > self._max_age_days * DAY_MS:
            return [
                f"its outcomes end at {known_by}, more than {self._max_age_days} days before the "
                "query's time; fit a new one with: llm-trader calibrate"
            ]
        return []


def band(low: float, high: float, margin_pct: float) -> tuple[float, float]:
    """The calibrated 80 % band in % change, from the 10 and the 90 % of the forecast.

    Where a negative margin exceeds half the band, only the middle of the band is left.
    """
    if high - low + 2 * margin_pct < 0:
        return (low + high) / 2, (low + high) / 2
    return low - margin_pct, high + margin_pct


def read_calibration(path: Path) -> Calibration:
    """Raises `ConfigurationError` where the file is missing or is not a calibration."""
    try:
        calibration = msgspec.json.decode(read_whole(path), type=Calibration)
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    except msgspec.DecodeError as error:
        raise _unreadable(path, str(error)) from error
    if problem := _problem(calibration):
        raise _unreadable(path, problem)
    return calibration


def write_calibration(calibration: Calibration, path: Path) -> None:
    """Replaces the file in one step, so a server that starts meanwhile reads a whole one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, _encoded(calibration))
    except OSError as error:
        raise ConfigurationError(
            f"the calibration cannot be written to {path}: {error.strerror}; name a writable file "
            "with --out"
        ) from error


def _problem(calibration: Calibration) -> str | None:
    version, names = calibration.schema_version, calibration.horizons
    if version != SCHEMA_VERSION:
        return f"it has schema {version}, and this version reads {SCHEMA_VERSION}"
    if set(names) != set(HORIZONS):
        return f"it has the horizons {', '.join(names)}, not {', '.join(HORIZONS)}"
    if not calibration.fitted_from_ms < calibration.held_out_from_ms < calibration.known_by_ms:
        return "fitted_from_ms, held_out_from_ms and known_by_ms are not in order"
    return None


def _unreadable(path: Path, problem: str) -> ConfigurationError:
    return ConfigurationError(
        f"no calibration can be read from {path}: {problem}; fit a new one with: llm-trader "
        "calibrate, or leave the setting retrieval.calibration out"
    )


def _encoded(calibration: Calibration) -> bytes:
    return msgspec.json.format(msgspec.json.encode(calibration)) + b"\n"


def _shown(value: object) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
