"""Calibrations as a fit would have made them, of the made-up market of `builders`."""

from __future__ import annotations

from typing import Any

import msgspec

from llm_trader.retrieval.calibration import (
    SCHEMA_VERSION,
    Calibration,
    Coverage,
    HorizonCalibration,
    scope_of,
)
from llm_trader.retrieval.intervals import Interval
from llm_trader.retrieval.search_spec import SearchSpec
from llm_trader.timeframe import DAY_MS, HORIZONS, Millis
from tests.index.builders import SYMBOL
from tests.retrieval.builders import COLLECTION

KNOWN_BY_MS: Millis = 1_735_689_600_000  # 2025-01-01
CONFIG = SearchSpec()
ASKED = scope_of(COLLECTION, SYMBOL, CONFIG)


def of_horizon(
    margin: float = 0.1, skill: tuple[float | None, float | None] = (-0.01, 0.03)
) -> Any:
    coverage = Interval(value=0.8, low=0.77, high=0.83)
    return HorizonCalibration(
        margin=margin,
        effective_scores=60.0,
        coverage_before=coverage,
        coverage_after=coverage,
        after_kept_days={1: 0.8, 7: 0.79},
        by_month={"2024-12": Coverage(before=0.75, after=0.8, queries=2900)},
        by_symbol={SYMBOL: Coverage(before=0.75, after=0.8, queries=2900)},
        rescale=1.0,
        neighbour_share=1.0,
        skill=Interval(value=0.01, low=skill[0], high=skill[1]),
    )


def calibration(*skilled: str, **changes: Any) -> Calibration:
    """With skill beyond chance at the named horizons."""
    plain = Calibration(
        schema_version=SCHEMA_VERSION,
        package_version="0",
        created_at="2025-01-02T00:00:00Z",
        scope=ASKED,
        fitted_from_ms=KNOWN_BY_MS - 200 * DAY_MS,
        held_out_from_ms=KNOWN_BY_MS - 60 * DAY_MS,
        known_by_ms=KNOWN_BY_MS,
        window_days=60,
        step_minutes=15,
        interval_level=0.9875,
        data_digest="0" * 12,
        seed=0,
        horizons={
            name: of_horizon(skill=(0.004, 0.03) if name in skilled else (-0.01, 0.03))
            for name in HORIZONS
        },
    )
    return msgspec.structs.replace(plain, **changes)
