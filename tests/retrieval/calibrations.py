"""Calibrations as a fit would have made them, of the made-up market of `builders`."""

from __future__ import annotations

from typing import Any

import msgspec

from llm_trader.retrieval.calibration import (
    SCHEMA_VERSION,
    Calibration,
    Coverage,
    HorizonCalibration,
    Margins,
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


def margins(base: float = 0.1, symbols: tuple[str, ...] = (SYMBOL,)) -> Margins:
    """Those of each condition differ by another digit, so that a sum tells which were added."""
    return Margins(
        base=base,
        ratio_edges=(0.1, 0.15, 0.2, 0.3),
        by_ratio=(-0.02, -0.01, 0.0, 0.01, 0.02),
        by_hours=(-0.003, -0.002, -0.001, 0.001, 0.002, 0.003),
        by_symbol={symbol: number * 0.0001 for number, symbol in enumerate(symbols)},
    )


def of_horizon(
    margin: float = 0.1,
    skill: tuple[float | None, float | None] = (-0.01, 0.03),
) -> HorizonCalibration:
    coverage, cell = Interval(value=0.8, low=0.77, high=0.83), _cell(2900)
    return HorizonCalibration(
        margins=margins(margin),
        effective_scores=60.0,
        coverage_before=coverage,
        coverage_after=coverage,
        after_kept_days={1: 0.8, 7: 0.79},
        by_month={"2024-12": cell},
        by_symbol={SYMBOL: cell},
        by_volatility_ratio={f"fifth {number} of 5": _cell(580) for number in range(1, 6)},
        by_hours={f"{hour:02d}-{hour + 4:02d}": _cell(484) for hour in range(0, 24, 4)},
        weight_of_neighbours=0.25,
        skill=Interval(value=0.01, low=skill[0], high=skill[1]),
    )


def _cell(queries: int) -> Coverage:
    return Coverage(before=0.75, after=0.8, queries=queries)


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
