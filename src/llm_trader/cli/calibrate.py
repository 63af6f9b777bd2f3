"""`llm-trader calibrate`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llm_trader.cli import options
from llm_trader.timeframe import iso8601, parse_end, parse_start

if TYPE_CHECKING:
    from rich.console import Console

    from llm_trader.retrieval.calibration import Calibration, HorizonCalibration
    from llm_trader.retrieval.intervals import Interval


def calibrate(
    store: options.Store = None,
    symbols: Annotated[
        str,
        typer.Option("--symbols", help="Separated by commas; all of the store if left out."),
    ] = "",
    start: Annotated[
        str, typer.Option("--start", "-s", help="Days ago, or an RFC 3339 time.")
    ] = "270",
    end: Annotated[str, typer.Option("--end", "-e", help="now, or an RFC 3339 time.")] = "now",
    out: Annotated[
        Path, typer.Option("--out", "-o", help="File to write; for retrieval.calibration.")
    ] = Path("calibration.json"),
    holdout: Annotated[
        float,
        typer.Option("--holdout", min=0.05, max=0.8, help="Share of the time to measure on."),
    ] = 0.3,
    report: Annotated[
        Path,
        typer.Option(
            "--report",
            help="Folder for metrics.json, steps.csv and report.html, which needs the extra eval.",
        ),
    ] = Path("reports/calibrate"),
    no_report: Annotated[
        bool, typer.Option("--no-report", help="Write the calibration alone.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", help="Of the intervals' resampling.")] = 0,
    vector: options.Vector = None,
    interval: Annotated[
        int | None,
        typer.Option("--interval", "-i", help="Minutes between queries; 15 if left out."),
    ] = None,
    config: options.Config = None,
    json: options.Json = False,
) -> None:
    """Measure on the past what evidence is worth, and write what a server loads.

    Asks about every quarter-hour as a server would have, and compares with what followed: how
    much the bands of 80 % must be widened, and at which horizons similar states forecast better
    than the base rate. The server takes the file as the setting retrieval.calibration, and uses
    it for queries that look like these: same settings, symbols and version, asked after --end.
    Markets drift: run it again every week or so. Start and end are those of the queries; the
    store holds a lookback more.
    """
    from llm_trader.app.calibration_fit import calibrate_from_store, write_calibration_report
    from llm_trader.app.evaluation import refuse_without_extra
    from llm_trader.evaluation.result_files import refuse_unwritable
    from llm_trader.retrieval.calibration import write_calibration

    settings = options.settings_of(
        config,
        market__store=store,
        retrieval__vector=vector,
        snapshot__interval_minutes=interval,
        logging__level="warn",
    )
    now, started = options.now_ms(), time.monotonic()
    if not no_report:
        refuse_without_extra("jinja2", "plotly", remedy=", or take --no-report")
        refuse_unwritable(report)
    refuse_unwritable(out.parent)
    with options.progress_bar("states") as bar:
        reading, searching = options.PerSymbol(bar), options.PerSymbol(bar)
        fitted = calibrate_from_store(
            settings,
            options.symbol_list(symbols),
            parse_start(start, now),
            parse_end(end, now),
            now,
            holdout=holdout,
            seed=seed,
            reading=lambda symbol, *of: reading(f"{symbol}, reading", *of),
            searching=lambda symbol, *of: searching(f"{symbol}, searching", *of),
        )
    made = fitted.calibration
    write_calibration(made, out)
    if not no_report:
        write_calibration_report(settings, fitted, report, time.monotonic() - started)
    if json:
        options.print_json(made)
    else:
        _show(options.tables(), made, out)


def _show(console: Console, made: Calibration, out: Path) -> None:
    from llm_trader.cli import show

    show.heading(console, f"Calibration {made.digest} in {out}")
    shown = show.table(
        f"Measured from {show.minute(iso8601(made.held_out_from_ms))} on, bands of 80 %",
        *("over", "margin", "inside before", "inside after", "kept 7 days", "30 days"),
        "skill, base rate treated alike",
    )
    for name, of in made.horizons.items():
        shown.add_row(name, *_cells(of))
    console.print(shown)
    console.print(
        f"  margins in units of the volatility over 24h, of the last {made.window_days} days, made "
        f"anew each day, or kept;\n  intervals: {made.interval_level:.2%}",
        highlight=False,
    )
    skilled = [name for name in made.horizons if name in made.skilled_horizons]
    told = f"over {', '.join(skilled)}" if skilled else "at no horizon"
    console.print(
        f"Beyond chance, such neighbours forecast better than the base rate {told}.\n"
        f"Use it from {show.minute(iso8601(made.known_by_ms))} on, with the setting "
        f"retrieval.calibration.",
        highlight=False,
    )


def _cells(of: HorizonCalibration) -> list[str]:
    known = of.after_kept_days
    kept = [f"{known[days]:.1%}" if days in known else "-" for days in (7, 30)]
    return [
        f"{of.margin:+.4f}",
        _measured(of.coverage_before, ".1%"),
        _measured(of.coverage_after, ".1%"),
        *kept,
        _measured(of.skill, "+.2%"),
    ]


def _measured(of: Interval, spec: str) -> str:
    if of.value is None:
        return "too little data"
    if of.low is None or of.high is None:
        return f"{of.value:{spec}} (too little data)"
    return f"{of.value:{spec}} [{of.low:{spec}}, {of.high:{spec}}]"
