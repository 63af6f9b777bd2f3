"""Which features make past states like another one: the terms that their similarity sums up."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
import numpy as np
from msgspec import Meta

from llm_trader.embedding.state import StateSpace
from llm_trader.errors import InvalidInputError
from llm_trader.rpc.params import Timeout
from llm_trader.serving.wire import Moment, Timestamp
from llm_trader.snapshot.model import EXPECTED_VOLATILITY
from llm_trader.snapshot.table import SnapshotTable
from llm_trader.timeframe import Millis

_MOST: Final = 50


class CompareStatesParams(Moment, frozen=True, forbid_unknown_fields=True):
    """`others` are times of past states, such as those of matches."""

    others: Annotated[list[Timestamp], Meta(min_length=1, max_length=_MOST)]
    timeout_ms: Timeout | None = None


class ComparedFeature(msgspec.Struct, frozen=True):
    name: Annotated[str, Meta(description="Name of the feature; docs/state.md has its formula.")]
    share: Annotated[float, Meta(description="Share of its weight in all features, 0 to 1.")]
    value: Annotated[
        float | None,
        Meta(description="The feature now, in units of its usual spread; null where unknown."),
    ]


class ComparedState(msgspec.Struct, frozen=True):
    """`values` and `similarities` are in the order of the features; null where one is unknown."""

    timestamp: Annotated[Millis, Meta(description="Time of the past state, UTC milliseconds.")]
    expected_volatility_pct: Annotated[
        dict[str, float | None],
        Meta(description="How far the price was expected to move then, by horizon, %."),
    ]
    values: Annotated[
        list[float | None], Meta(description="The features then, in units of their usual spread.")
    ]
    similarities: Annotated[
        list[float | None],
        Meta(description="How alike each feature is, -1 to 1; their weighted mean is the whole."),
    ]


class CompareStatesResult(msgspec.Struct, frozen=True):
    state_as_of: Annotated[Millis, Meta(description="Time of the state, UTC milliseconds.")]
    expected_volatility_pct: Annotated[
        dict[str, float | None],
        Meta(description="How far the price is expected to move, by horizon, %."),
    ]
    features: Annotated[list[ComparedFeature], Meta(description="The features, with their values.")]
    states: Annotated[list[ComparedState], Meta(description="The past states, as asked for.")]


def refuse_later(params: CompareStatesParams) -> None:
    """Raises `InvalidInputError` for a state after the time that is asked about."""
    for position, other_ms in enumerate(params.others):
        if other_ms > params.timestamp:
            raise InvalidInputError(f"others[{position}]: must not be after timestamp")


def compare_states(
    space: StateSpace, current: SnapshotTable, past: list[SnapshotTable]
) -> CompareStatesResult:
    """The tables have one row each."""
    z = np.concatenate([space.standardise(table) for table in (current, *past)], axis=1)
    known = np.isfinite(z)
    theta = np.pi / 2 * np.tanh(np.where(known, z, 0.0))
    alike = np.where(known & known[:, :1], np.cos(theta - theta[:, :1]), np.nan)
    shares = space.weights / space.weights.sum()
    features = [
        ComparedFeature(feature.name, float(share), value)
        for feature, share, value in zip(
            space.features, shares, _numbers(np.where(known, z, np.nan)[:, 0]), strict=True
        )
    ]
    states = [
        ComparedState(
            int(table.as_of_ms[0]),
            _expected(table),
            _numbers(np.where(known, z, np.nan)[:, column]),
            _numbers(alike[:, column]),
        )
        for column, table in enumerate(past, 1)
    ]
    return CompareStatesResult(int(current.as_of_ms[0]), _expected(current), features, states)


def _expected(table: SnapshotTable) -> dict[str, float | None]:
    return {
        name: _number(float(table.column(field)[0])) for name, field in EXPECTED_VOLATILITY.items()
    }


def _numbers(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> list[float | None]:
    return [_number(value) for value in values.tolist()]


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None
