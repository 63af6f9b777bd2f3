"""How good past evidence was, measured, and what that says about the evidence of now.

A calibration is a file that `llm-trader calibrate` fits and a server loads. It widens or narrows
the band between the rescaled p10 and p90 so that 8 in 10 outcomes fall inside, and it names the
horizons at which neighbours forecast better than the base rate when that was measured. It applies
only to queries like those it was fitted on, and only after all of its outcomes were known.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import msgspec

from llm_trader.embedding.features import VOLATILITY_FLOOR
from llm_trader.errors import ConfigurationError
from llm_trader.index.points import STATE
from llm_trader.index.protocol import Collection
from llm_trader.retrieval.answer import CalibrationUsed
from llm_trader.retrieval.intervals import Interval
from llm_trader.retrieval.search_spec import EpisodeSearch
from llm_trader.storage.files import write_atomically
from llm_trader.timeframe import DAY_MS, HORIZONS, Millis, iso8601

SCHEMA_VERSION: Final = 1
BAND_LEVEL: Final = 0.8

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Coverage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The share of outcomes inside the band, before and after the correction."""

    before: Share
    after: Share
    queries: Annotated[int, msgspec.Meta(ge=1)]


class HorizonCalibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was fitted and measured for one horizon.

    `margin` widens the band on either side, in units of the realised volatility over 24h; below 0
    it narrows the band. `effective_scores` counts the outcomes without overlap that it is fitted
    on. Coverages and `skill` cover the held-out part: `before` is the uncorrected band, `after`
    has a new margin each day, `after_kept_days` keeps each margin for that many days. `by_month`
    and `by_symbol` cover all queries that had a margin at their time. `skill` is 1 - CRPS / CRPS
    of the volatility-rescaled base rate, for a forecast with `neighbour_share` and the power
    `rescale` of the volatility ratio.
    """

    margin: float
    effective_scores: float
    coverage_before: Interval
    coverage_after: Interval
    after_kept_days: dict[int, Share]
    by_month: dict[str, Coverage]
    by_symbol: dict[str, Coverage]
    rescale: Share
    neighbour_share: Share
    skill: Interval


class Scope(EpisodeSearch, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The evidence that a calibration is about: its markets, its vectors, its search."""

    exchange: str | None
    symbols: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    feature_version: str
    state_space_id: str
    text_space_id: str | None

    def differences(self, query: Scope) -> list[str]:
        """How a query's evidence differs from this; its symbols must be among these."""
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


def scope_of(collection: Collection, symbol: str, spec: EpisodeSearch) -> Scope:
    """The evidence that a query of a collection gets."""
    return Scope(
        exchange=collection.exchange,
        symbols=(symbol,),
        feature_version=collection.feature_version,
        state_space_id=collection.state_space_id,
        text_space_id=None if spec.vector == STATE else collection.text_space_id,
        **spec.episode_fields(),
    )


class Calibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A fitted calibration, as it is written to its file.

    The last of its outcomes was known at `known_by_ms`, so no earlier query may use it. It covers
    states from `fitted_from_ms` on; those from `held_out_from_ms` on were held out for measuring.
    Each margin is fitted on the last `window_days` of scores. `interval_level` is the level of
    every interval in it.
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

    @property
    def digest(self) -> str:
        """12 hex digits of the SHA-256 of the file that `write_calibration` writes."""
        return hashlib.sha256(_encoded(self)).hexdigest()[:12]

    @property
    def skilled_horizons(self) -> frozenset[str]:
        """Horizons at which neighbours forecast better than the base rate, beyond chance."""
        return frozenset(name for name, horizon in self.horizons.items() if horizon.skill.above(0))


class LoadedCalibration:
    """A calibration that applies to queries for `max_age_days` after all of it was known."""

    def __init__(self, calibration: Calibration, max_age_days: int) -> None:
        self.calibration = calibration
        self.used = CalibrationUsed(calibration.digest, calibration.known_by_ms)
        self._max_age_days = max_age_days

    def objections(
        self, query: Scope, as_of_ms: Millis, episodes: int, features_missing: Sequence[str]
    ) -> list[str]:
        """Why it does not apply to a query that found `episodes`; empty where it does."""
        objections = self.calibration.scope.differences(query) + self._time_objections(as_of_ms)
        if features_missing:
            objections.append("it was fitted on whole states, and this one lacks features")
        if episodes < query.evidence_k:
            objections.append(
                f"it was fitted on {query.evidence_k} episodes, and {episodes} were found"
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


def band(
    calibration: Calibration, horizon: str, low: float, high: float, current_volatility_pct: float
) -> tuple[float, float]:
    """The calibrated 80 % band in % change, from the rescaled p10 and p90 of the episodes.

    Where a negative margin exceeds half the band, only the middle of the band is left.
    """
    margin_pct = calibration.horizons[horizon].margin * max(
        current_volatility_pct, VOLATILITY_FLOOR
    )
    if high - low + 2 * margin_pct < 0:
        return (low + high) / 2, (low + high) / 2
    return low - margin_pct, high + margin_pct


def read_calibration(path: Path) -> Calibration:
    """Raises `ConfigurationError` where the file is missing or is not a calibration."""
    try:
        calibration = msgspec.json.decode(path.read_bytes(), type=Calibration)
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
    document = msgspec.to_builtins(calibration)
    # The digest is of these bytes, and files have always named the index before the search.
    scope = sorted(
        document["scope"].items(), key=lambda item: item[0] in EpisodeSearch.__struct_fields__
    )
    document["scope"] = dict(scope)
    return msgspec.json.format(msgspec.json.encode(document)) + b"\n"


def _shown(value: object) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
