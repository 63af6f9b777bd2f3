"""Cuts the future off: what was known at a time, made again and compared with what is stored."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llm_trader.arrays import FIELD_ROUNDING, VECTOR_ROUNDING, Floats, Vectors
from llm_trader.market.history import MarketHistory
from llm_trader.market.store import MarketStore
from llm_trader.snapshot.source import read_history
from llm_trader.timeframe import DAY_MS, Millis, Timeframe


def history_with_future(
    store: MarketStore, symbol: str, intraday: Timeframe, first_ms: Millis, as_of_ms: Millis
) -> MarketHistory:
    """What snapshots from `first_ms` on are made of, and one day after `as_of_ms`.

    `known_at(as_of_ms)` cuts that day off; a snapshot that changes had looked into it.
    """
    return read_history(store, symbol, intraday, first_ms, as_of_ms + DAY_MS)


def changed_fields(
    names: Sequence[str], rebuilt: Floats, stored: Floats, *, relative: float = FIELD_ROUNDING
) -> list[str]:
    """Names of the rows (fields, n) that differ by more than rounding; NaN equals NaN.

    Fields rebuilt from the same first candle differ by less than `FIELD_ROUNDING` whatever their
    size, so callers that rebuild them so allow nothing `relative`.
    """
    same = np.isclose(rebuilt, stored, rtol=relative, atol=FIELD_ROUNDING, equal_nan=True)
    return [name for name, row in zip(names, same, strict=True) if not row.all()]


def same_vectors(rebuilt: Vectors, stored: Vectors) -> bool:
    return bool(np.allclose(rebuilt, stored, rtol=0, atol=VECTOR_ROUNDING))
