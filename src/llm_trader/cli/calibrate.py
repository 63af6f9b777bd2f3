"""`llm-trader calibrate`: fits a calibration, writes it and shows what it measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from llm_trader.app.job import Job
from llm_trader.cli import options
from llm_trader.cli.output import Description, Result, heading, minute, table
from llm_trader.cli.setting_flags import with_job
from llm_trader.timeframe import iso8601, parse_end, parse_start

if TYPE_CHECKING:
    from llm_trader.retrieval.calibration import Calibration
    from llm_trader.retrieval.intervals import Interval


@with_job("store", "vector", "interval", unit="states")
def calibrate(
    job: Job,
    symbols: options.StoreSymbols = "",
    start: options.Start = "270",
    end: options.End = "now",
    out: Annotated[
        Path, Option("--out", "-o", help="File to write, for retrieval.calibration.")
    ] = Path("calibration.json"),
    holdout: Annotated[
        float, Option(min=0.05, max=0.8, help="Share of the time range to measure on, 0.05 to 0.8.")
    ] = 0.3,
    report: Annotated[
        Path,
        Option(
            help="Folder for metrics.json, steps.csv and report.html, which needs the extra eval."
        ),
    ] = Path("reports/calibrate"),
    no_report: Annotated[
        bool, Option("--no-report", help="Write the calibration without a report.")
    ] = False,
    seed: options.Seed = 0,
) -> Result:
    """Measure on the past how far evidence can be trusted, and write a calibration for a server.

    Queries every quarter-hour like a server, and compares the answers with the outcomes: how much
    the 80 % bands must be widened, and at which horizons similar states forecast better than the
    base rate. A server loads the file with the setting retrieval.calibration. It uses the file for
    queries with the same settings, symbols and version, after --end. Markets drift, so run it
    again about every week. Start and end are the times of the queries; the store must reach back
    one lookback further.
    """
    from llm_trader.app.calibration_fit import calibrate as fit_calibration

    names, folder = options.symbol_list(symbols), None if no_report else report
    times = parse_start(start, job.now_ms), parse_end(end, job.now_ms)
    calibration = fit_calibration(
        job, names, *times, holdout=holdout, seed=seed, out=out, report=folder
    )
    return Result(calibration, _describe(calibration, out))


def _describe(calibration: Calibration, out: Path) -> Description:
    yield heading(f"Calibration {calibration.digest} in {out}")
    rows = []
    for name, horizon in calibration.horizons.items():
        coverage = horizon.after_kept_days
        rows.append(
            (
                name,
                f"{horizon.margin:+.4f}",
                _interval(horizon.coverage_before, ".1%"),
                _interval(horizon.coverage_after, ".1%"),
                *(f"{coverage[days]:.1%}" if days in coverage else "-" for days in (7, 30)),
                _interval(horizon.skill, "+.2%"),
            )
        )
    yield table(
        f"Measured from {minute(iso8601(calibration.held_out_from_ms))} on, 80 % bands",
        *("over", "margin", "inside before", "inside after", "kept 7 days", "30 days"),
        "skill over the volatility-rescaled base rate",
        rows=rows,
    )
    yield (
        f"  Margins are in units of the volatility over 24h and follow the last "
        f"{calibration.window_days} days,\n  renewed each day, or kept for 7 or 30 days; "
        f"intervals: {calibration.interval_level:.2%}"
    )
    skilled = [name for name in calibration.horizons if name in calibration.skilled_horizons]
    at_horizons = f"over {', '.join(skilled)}" if skilled else "at no horizon"
    yield (
        f"Beyond chance, such neighbours forecast better than the base rate {at_horizons}.\n"
        f"Use it from {minute(iso8601(calibration.known_by_ms))} on, with the setting "
        "retrieval.calibration."
    )


def _interval(interval: Interval, spec: str) -> str:
    if interval.value is None:
        return "too little data"
    if interval.low is None or interval.high is None:
        return f"{interval.value:{spec}} (too little data)"
    return f"{interval.value:{spec}} [{interval.low:{spec}}, {interval.high:{spec}}]"
