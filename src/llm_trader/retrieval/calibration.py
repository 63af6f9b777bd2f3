"""What was measured of past evidence, and what it says of the evidence of now.

A calibration is a file that `llm-trader calibrate` fits and a server loads. It widens, or narrows,
the band between the rescaled p10 and p90 so that 8 of 10 outcomes fall inside it, and it tells at
which horizons neighbours forecast better than the base rate when it was measured. It answers only
for queries like those it was fitted on, and only from when all of its outcomes were known.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import msgspec

from llm_trader.embedding.features import LEAST
from llm_trader.errors import ConfigurationError
from llm_trader.retrieval.answer import CalibrationUsed
from llm_trader.retrieval.intervals import Interval
from llm_trader.retrieval.search_spec import EpisodeSearch
from llm_trader.snapshot.outcome import HORIZONS
from llm_trader.timeframe import DAY_MS, Millis, iso8601

SCHEMA_VERSION: Final = 1
BAND_LEVEL: Final = 0.8

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Coverage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The share of outcomes inside the band, before and after the correction."""

    before: Share
    after: Share
    queries: Annotated[int, msgspec.Meta(ge=1)]


class HorizonCalibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of one horizon.

    `margin`: what the band is widened by on either side, in units of the realised volatility over
    24h; below 0 it is narrowed. `effective_scores`: how many outcomes that do not overlap it is
    fitted on. Coverages and `skill` are of the held-out part: `before` of the band as it was,
    `after` with the margin fitted anew each day, `after_kept_days` with each margin kept for that
    many days. `by_month` and `by_symbol` are of all queries for which a margin was known by then.
    `skill`: 1 - CRPS / CRPS of the base rate treated alike, of a forecast with `neighbour_share`
    and the power `rescale` of the volatility's ratio.
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

    def differences(self, asked: Scope) -> list[str]:
        """Where a query's evidence is other than this; its symbols must be among these."""
        told = [
            f"{name} is {_told(mine)} there, {_told(theirs)} here"
            for name in self.__struct_fields__
            if name != "symbols"
            and (mine := getattr(self, name)) != (theirs := getattr(asked, name))
        ]
        lacking = [symbol for symbol in asked.symbols if symbol not in self.symbols]
        if lacking:
            told.append(f"it is of {', '.join(self.symbols)}, not of {', '.join(lacking)}")
        return told


class Calibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`known_by_ms`: when the last outcome in it was known, so no earlier query may use it.

    Fitted on states from `fitted_from_ms` on, of which those from `held_out_from_ms` on were held
    out to measure; each margin on the last `window_days` of scores. `interval_level` is that of
    all intervals in it.
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
        """12 hex digits of the SHA-256 of the file that `write_calibration` makes."""
        return hashlib.sha256(_encoded(self)).hexdigest()[:12]

    @property
    def skilled(self) -> frozenset[str]:
        """Horizons at which neighbours forecast better than the base rate, beyond chance."""
        return frozenset(name for name, of in self.horizons.items() if of.skill.above(0))


class Use(NamedTuple):
    """A calibration as one query uses it: what the reply tells of it, and why it does not."""

    calibration: Calibration | None
    told: CalibrationUsed | None
    warnings: list[str]


UNCALIBRATED: Final = Use(None, None, [])


class LoadedCalibration:
    """A calibration that queries are answered with, for `max_age_days` after it was all known."""

    def __init__(self, calibration: Calibration, max_age_days: int) -> None:
        self.calibration = calibration
        self.told = CalibrationUsed(calibration.digest, calibration.known_by_ms)
        self._max_age_days = max_age_days

    def use(
        self, asked: Scope, as_of_ms: Millis, episodes: int, features_missing: Sequence[str]
    ) -> Use:
        """For a query whose evidence has so many episodes."""
        objections = [*self.scope_objections(asked), *self._time_objections(as_of_ms)]
        if features_missing:
            objections.append("it is of whole states, and this one lacks features")
        if episodes < asked.evidence_k:
            objections.append(f"it is of {asked.evidence_k} episodes, and {episodes} were found")
        if objections:
            return Use(None, None, [f"the calibration was not used: {'; '.join(objections)}"])
        return Use(self.calibration, self.told, [])

    def scope_objections(self, asked: Scope) -> list[str]:
        """What no time and no state will change; empty for a query like those it is of."""
        return self.calibration.scope.differences(asked)

    def _time_objections(self, as_of_ms: Millis) -> list[str]:
        age_ms = as_of_ms - self.calibration.known_by_ms
        known_by = iso8601(self.calibration.known_by_ms)
        if age_ms < 0:
            return [f"it knows outcomes up to {known_by}, after the query's time"]
        if age_ms > self._max_age_days * DAY_MS:
            return [
                f"it knows outcomes only up to {known_by}, more than {self._max_age_days} days "
                "before the query's time; make it anew with: llm-trader calibrate"
            ]
        return []


def band(
    calibration: Calibration, horizon: str, low: float, high: float, volatility_now_pct: float
) -> tuple[float, float]:
    """The calibrated 80 % band in % change, from the rescaled p10 and p90 of the neighbours.

    Where a margin below 0 is more than the band is wide, nothing is left of it but its middle.
    """
    by = calibration.horizons[horizon].margin * max(volatility_now_pct, LEAST)
    if high - low + 2 * by < 0:
        return (low + high) / 2, (low + high) / 2
    return low - by, high + by


def read_calibration(path: Path) -> Calibration:
    """Raises `ConfigurationError` where there is none, or what is there is no calibration."""
    try:
        read = msgspec.json.decode(path.read_bytes(), type=Calibration)
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    except msgspec.DecodeError as error:
        raise _unreadable(path, str(error)) from error
    if problem := _problem(read):
        raise _unreadable(path, problem)
    return read


def write_calibration(calibration: Calibration, path: Path) -> None:
    """Whole or not at all: a server that starts meanwhile reads the one before."""
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(_encoded(calibration))
        os.replace(part, path)
    except OSError as error:
        raise ConfigurationError(
            f"the calibration cannot be written to {path}: {error.strerror}; name a file that "
            "can be with --out"
        ) from error


def _problem(read: Calibration) -> str | None:
    if read.schema_version != SCHEMA_VERSION:
        return f"it is of schema {read.schema_version}, this version reads {SCHEMA_VERSION}"
    if set(read.horizons) != set(HORIZONS):
        return f"it has the horizons {', '.join(read.horizons)}, not {', '.join(HORIZONS)}"
    if not read.fitted_from_ms < read.held_out_from_ms < read.known_by_ms:
        return "its times are not in order"
    return None


def _unreadable(path: Path, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"no calibration can be read from {path}: {why}; make it anew with: llm-trader calibrate, "
        "or leave the setting retrieval.calibration out"
    )


def _encoded(calibration: Calibration) -> bytes:
    document = msgspec.to_builtins(calibration)
    # The digest is of these bytes, and files have always named the index before the search.
    scope = sorted(
        document["scope"].items(), key=lambda item: item[0] in EpisodeSearch.__struct_fields__
    )
    document["scope"] = dict(scope)
    return msgspec.json.format(msgspec.json.encode(document)) + b"\n"


def _told(value: object) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
