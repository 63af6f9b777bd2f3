"""`llm-trader calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llm_trader.cli import options, show_calibration
from llm_trader.cli.output import present, progress_bar
from llm_trader.cli.setting_flags import with_settings
from llm_trader.timeframe import parse_end, parse_start

if TYPE_CHECKING:
    from llm_trader.settings.tree import Settings


@with_settings("store", "vector", "interval")
def calibrate(
    settings: Settings,
    symbols: options.StoreSymbols = "",
    start: options.Start = "270",
    end: options.End = "now",
    out: Annotated[
        Path, typer.Option("--out", "-o", help="File to write, for retrieval.calibration.")
    ] = Path("calibration.json"),
    holdout: Annotated[
        float,
        typer.Option(
            "--holdout",
            min=0.05,
            max=0.8,
            help="Share of the time range to measure on, 0.05 to 0.8.",
        ),
    ] = 0.3,
    report: Annotated[
        Path,
        typer.Option(
            "--report",
            help="Folder for metrics.json, steps.csv and report.html, which needs the extra eval.",
        ),
    ] = Path("reports/calibrate"),
    no_report: Annotated[
        bool, typer.Option("--no-report", help="Write the calibration without a report.")
    ] = False,
    seed: options.Seed = 0,
    json: options.Json = False,
) -> None:
    """Measure on the past how far evidence can be trusted, and write a calibration for a server.

    Queries every quarter-hour like a server, and compares the answers with the outcomes: how much
    the 80 % bands must be widened, and at which horizons similar states forecast better than the
    base rate. A server loads the file with the setting retrieval.calibration. It uses the file for
    queries with the same settings, symbols and version, after --end. Markets drift, so run it
    again about every week. Start and end are the times of the queries; the store must reach back
    one lookback further.
    """
    from llm_trader.app.calibration_fit import calibrate as fit_calibration

    now_ms = options.now_ms()
    with progress_bar("states") as progress:
        calibration = fit_calibration(
            settings,
            options.symbol_list(symbols),
            parse_start(start, now_ms),
            parse_end(end, now_ms),
            now_ms,
            progress,
            holdout=holdout,
            seed=seed,
            out=out,
            report=None if no_report else report,
        )
    present(
        calibration, json, lambda console, value: show_calibration.calibration(console, value, out)
    )
