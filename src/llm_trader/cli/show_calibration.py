"""Table of a calibration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from llm_trader.cli.show import heading, minute, table
from llm_trader.timeframe import iso8601

if TYPE_CHECKING:
    from llm_trader.retrieval.calibration import Calibration, HorizonCalibration
    from llm_trader.retrieval.intervals import Interval


def calibration(console: Console, calibration: Calibration, out: Path) -> None:
    heading(console, f"Calibration {calibration.digest} in {out}")
    horizons = table(
        f"Measured from {minute(iso8601(calibration.held_out_from_ms))} on, 80 % bands",
        *("over", "margin", "inside before", "inside after", "kept 7 days", "30 days"),
        "skill over the volatility-rescaled base rate",
    )
    for name, horizon in calibration.horizons.items():
        horizons.add_row(name, *_cells(horizon))
    console.print(horizons)
    console.print(
        f"  Margins are in units of the volatility over 24h and follow the last "
        f"{calibration.window_days} days,\n  renewed each day, or kept for 7 or 30 days; "
        f"intervals: {calibration.interval_level:.2%}",
        highlight=False,
    )
    skilled = [name for name in calibration.horizons if name in calibration.skilled_horizons]
    at_horizons = f"over {', '.join(skilled)}" if skilled else "at no horizon"
    console.print(
        f"Beyond chance, such neighbours forecast better than the base rate {at_horizons}.\n"
        f"Use it from {minute(iso8601(calibration.known_by_ms))} on, with the setting "
        "retrieval.calibration.",
        highlight=False,
    )


def _cells(horizon: HorizonCalibration) -> list[str]:
    coverage = horizon.after_kept_days
    kept = [f"{coverage[days]:.1%}" if days in coverage else "-" for days in (7, 30)]
    return [
        f"{horizon.margin:+.4f}",
        _interval(horizon.coverage_before, ".1%"),
        _interval(horizon.coverage_after, ".1%"),
        *kept,
        _interval(horizon.skill, "+.2%"),
    ]


def _interval(interval: Interval, spec: str) -> str:
    if interval.value is None:
        return "too little data"
    if interval.low is None or interval.high is None:
        return f"{interval.value:{spec}} (too little data)"
    return f"{interval.value:{spec}} [{interval.low:{spec}}, {interval.high:{spec}}]"
