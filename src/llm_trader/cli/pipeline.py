"""`llm-trader ingest`, `serve`, `query`, `leak-check`, `calibrate`: from data to answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from rich.text import Text
from typer import Option

from llm_trader.app.job import Job
from llm_trader.cli import options
from llm_trader.cli.options import with_job
from llm_trader.cli.output import Description, Result, Results, heading, line, minute, table
from llm_trader.cli.show_answer import describe_reply
from llm_trader.errors import InvalidInputError
from llm_trader.timeframe import LATEST, Millis, iso8601, parse_end

if TYPE_CHECKING:
    from llm_trader.app.following import FollowReport
    from llm_trader.checks.leak_check import LeakReport
    from llm_trader.checks.stored_points import StoredPoints
    from llm_trader.index.ingestion import IngestReport
    from llm_trader.retrieval.calibration import Calibration
    from llm_trader.retrieval.intervals import Interval

# One screen; a tampered index can have thousands.
_LEAKS_SHOWN: Final = 20
_DIFFERENCES_SHOWN: Final = 5


@with_job(
    *("interval", "store", "index", "qdrant_url", "text", "intraday", "log_level"),
    unit="snapshots",
    quiet=False,
)
def ingest(
    job: Job,
    symbols: options.StoreSymbols = "",
    start: options.Start = "90",
    end: options.End = "latest",
    rebuild: Annotated[
        bool, Option("--rebuild", help="Also make the states again that the index already holds.")
    ] = False,
    follow: Annotated[
        bool, Option("--follow", "-f", help="Stay, and ingest what is written to the store.")
    ] = False,
) -> Result | Results:
    """Turn stored market data into labelled, searchable states.

    Every quarter-hour becomes a snapshot of the data known at that time, with its outcomes over the
    next 24 hours. An interrupted run resumes at the next one, and a repeated run adds only new
    states. States whose market data was corrected since are made again, of whatever time; what can
    no longer be made is removed. A running server sees all of it at once. Exits with 1 if the index
    holds no state of that time in the end.

    --follow goes on until SIGTERM or Ctrl-C: it looks at the store every second, and prints a line,
    or with --json a document, for each ingestion that changed the index.
    """
    from llm_trader.app.indexes import location_of
    from llm_trader.app.ingestion import ingest_from_store
    from llm_trader.app.time_range import newest_close_ms, time_range

    names = options.symbol_list(symbols)
    if follow:
        return _following(job, names, start, end, rebuild=rebuild)
    times = time_range(job, names, start, end)
    reports = ingest_from_store(job, names, *times, rebuild=rebuild)
    description = [*describe_ingestion(reports, location_of(job.settings))]
    if nothing_there := not any(report.added + report.already_there for report in reports):
        newest = iso8601(newest_close_ms(job.settings, names))
        description.append(line(_why_nothing(reports, times, newest)))
    return Result(reports, description, nothing_there)


@with_job(
    *("host", "port", "http_port", "no_http", "graphql", "mcp", "workers"),
    *("store", "index", "qdrant_url", "vector"),
    *("lookback_days", "calibration"),
    *("min_matches", "keys_file", "auth_tokens_env", "tls_certificate", "tls_key"),
    "audit_folder",
    "forecasts_folder",
    *("allow_unauthenticated_remote", "log_level"),
    quiet=False,
)
def serve(job: Job) -> None:
    """Answer queries over JSON-RPC 2.0 until SIGTERM or Ctrl-C.

    Two ports: one document per line over TCP; and HTTP with POST /rpc, GET /livez, /readyz and
    /openrpc.json, WebSocket at /ws, and with --graphql, which needs the extra graphql, POST
    /graphql, with --mcp, which needs the extra mcp, POST /mcp. Methods: rag.query_patterns,
    rag.cohort_open, rag.get_snapshot, rag.get_candles, rag.get_funding, rag.get_open_interest,
    rag.forecast_quality, rag.stats, rag.subscribe (over WebSocket), rpc.ping, rpc.discover, which
    lists all of them. Answers include new states as soon as they are ingested. With a market store,
    queries may leave out their state, and the server completes partial states.
    """
    serving = job.settings, job.environ, options.now_ms, job.read_settings
    if job.settings.serving.workers > 1:
        from llm_trader.app.workers.parent import serve_with_workers

        serve_with_workers(*serving)
    else:
        from llm_trader.app.server import serve_forever

        serve_forever(*serving)


@dataclass(frozen=True)
class QueryOptions:
    """The query's configuration, by the names of `query_config`."""

    top_k: Annotated[
        int | None, Option(help="Number of matches, 1 to 50; the server's default if absent.")
    ] = None
    lookback_days: Annotated[
        int | None, Option(help="Days to look back, 1 to 365; the server's default if absent.")
    ] = None
    min_similarity: Annotated[
        float | None,
        Option(help="Least similarity of a match, 0 to 1; the server's default if absent."),
    ] = None
    include_regime_filters: Annotated[
        bool | None,
        Option(
            "--regime-filters/--no-regime-filters",
            help="Search only states of the same open-interest and funding regime.",
        ),
    ] = None
    vector: Annotated[str | None, Option(help="Vectors to compare: state, text or hybrid.")] = None
    stop_pct: Annotated[
        float | None, Option(help="Distance of a stop below the price in %; needs a target.")
    ] = None
    target_pct: Annotated[
        float | None, Option(help="Distance of a target above the price in %; needs a stop.")
    ] = None
    stop_moves: Annotated[
        float | None, Option(help="Distance of a stop in moves that are expected of 24h.")
    ] = None
    target_moves: Annotated[
        float | None, Option(help="Distance of a target in moves that are expected of 24h.")
    ] = None
    detail: Annotated[
        str | None,
        Option(help="full adds the past states behind the numbers, with --json; else normal."),
    ] = None


@with_job("host", "port", "auth_tokens_env", "tls_certificate")
def query(
    symbol: options.OneSymbol,
    job: Job,
    choices: QueryOptions,
    as_of: Annotated[
        str,
        Option("--at", help="Time of the query: latest (the end of the data), now, or RFC 3339."),
    ] = "latest",
    state: Annotated[
        Path | None, Option(help="JSON file of the state; by default the server's store gives it.")
    ] = None,
    verbose: Annotated[
        bool, Option("--verbose", "-v", help="Also show the state, the evidence and the search.")
    ] = False,
    plot: Annotated[
        Path | None,
        Option(
            help="File for a picture of the answer: .svg, .html, or .png, which needs the extra "
            "plot."
        ),
    ] = None,
    open_picture: Annotated[
        bool, Option("--open", help="Show the picture in a browser; without --plot a new file.")
    ] = False,
) -> Result:
    """Ask a running server: when the market looked like this before, what followed?

    It uses only states whose outcome was known at the query's time. Start the server first, with
    rag-rpc-server.
    """
    from llm_trader.app.queries import query_server
    from llm_trader.cli.picture_file import check_picture, show_picture, write_picture

    if plot is not None:
        check_picture(plot)
    as_of_ms = None if as_of == LATEST else parse_end(as_of, job.now_ms)
    name = options.one_symbol(symbol)
    reply = query_server(job, name, as_of_ms, asdict(choices), state, with_series=True)
    description = list(describe_reply(reply, verbose=verbose))
    if plot is not None:
        write_picture(reply, plot)
    if open_picture:
        description.append(Text(show_picture(reply, plot)))
    elif plot is not None:
        description.append(Text(f"The picture is in {plot}."))
    return Result(reply.answer, description)


@with_job("store", "index", "qdrant_url", "vector", unit="queries")
def leak_check(
    job: Job,
    symbols: options.IndexSymbols = "",
    samples: options.Samples = 100,
    seed: options.Seed = 0,
) -> Result:
    """Prove for sampled queries that every match was known at the query's time.

    Computes states and outcomes again from the market data known at that time, and compares them
    with the answers of the index. All stored outcomes, and the states of ten sampled days of each
    symbol, are compared with the market data of now. Exits with 1 if anything came from the future,
    or differs. It proves how the data was handled, not that its times and prices are true.
    """
    from llm_trader.app.index_checks import check_index_for_leaks

    report = check_index_for_leaks(job, options.symbol_list(symbols), samples, seed)
    return Result(report, _describe_leaks(report), not report.passed)


@with_job("store", "vector", "lookback_days", "interval", unit="states")
def calibrate(
    job: Job,
    symbols: options.StoreSymbols = "",
    start: options.Start = "270",
    end: options.End = "latest",
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
    """Measure on the past how far forecasts can be trusted, and write a calibration for a server.

    Queries every quarter-hour like a server, and compares the answers with the outcomes: how much
    the 80 % bands must be widened, and at which horizons similar states made forecasts better than
    the volatility model. A server loads the file with the setting retrieval.calibration. It uses
    the file for queries with the same settings, symbols and version, after --end. Markets drift,
    so run it again about every week. Start and end are the times of the queries, by default the
    last 270 days of the data; the store must reach back one lookback further.
    """
    from llm_trader.app.calibration_fit import calibrate as fit_calibration
    from llm_trader.app.time_range import time_range

    names, folder = options.symbol_list(symbols), None if no_report else report
    times = time_range(job, names, start, end)
    calibration = fit_calibration(
        job, names, *times, holdout=holdout, seed=seed, out=out, report=folder
    )
    return Result(calibration, _describe_calibration(calibration, out))


def _following(job: Job, names: list[str], start: str, end: str, *, rebuild: bool) -> Results:
    from llm_trader.app.following import follow_store

    if end != LATEST:
        raise InvalidInputError("--follow goes on with the data; leave --end out")
    if rebuild:
        raise InvalidInputError("--follow would rebuild again and again; run --rebuild before it")

    def run(present: Callable[[Result], None]) -> None:
        def report(ingested: FollowReport) -> None:
            present(Result(ingested, [line(in_a_line(ingested))]))

        follow_store(job, names, start, options.now_ms, report)

    return Results(run)


def in_a_line(report: FollowReport) -> str:
    counts = [f"{report.added} added"]
    counts += [f"{report.remade} made again"] if report.remade else []
    counts += [f"{count} removed, {reason}" for reason, count in report.removed.items()]
    counts += [f"{count} refused, {reason}" for reason, count in report.refused.items()]
    return f"{minute(report.at)} {report.symbol}: {'; '.join(counts)}"


def describe_ingestion(reports: list[IngestReport], index: str) -> Description:
    yield heading(f"States in {index}")
    yield table(
        "",
        *("symbol", "asked for", "outside the data", "there already", "added", "made again"),
        rows=(
            (r.symbol, r.requested, r.outside_stored_data, r.already_there, r.added, r.remade)
            for r in reports
        ),
    )
    for report in reports:
        for missing in ("open interest", "funding"):
            if count := getattr(report, f"without_{missing.replace(' ', '_')}"):
                yield line(
                    f"{report.symbol}: {count} written without {missing}, compared over the rest"
                )
        for reason, count in report.removed.items():
            yield line(f"{report.symbol}: {count} removed that could not be made again, {reason}")
        for reason, count in report.refused.items():
            yield line(f"{report.symbol}: {count} refused, {reason}")


def _why_nothing(reports: list[IngestReport], times: tuple[Millis, Millis], newest: str) -> str:
    """Why no state of the time is in the index, and what to do."""
    if any(report.requested > report.outside_stored_data for report in reports):
        return "no state was added: all were refused, for the reasons above"
    start, end = map(iso8601, times)
    return (
        f"no state was added: the store holds nothing from {start} to {end}, its newest candle "
        f"closed at {newest}; leave --end out, or see: llm-trader data info"
    )


def _describe_leaks(report: LeakReport) -> Description:
    yield (
        f"{report.queries} queries, {report.matches_checked} matches and "
        f"{report.states_rebuilt} states checked: "
        + (f"[bold]{len(report.leaks)} LEAKS[/]" if report.leaks else "no leak")
    )
    for leak in report.leaks[:_LEAKS_SHOWN]:
        match = f", match of {leak.match_at}" if leak.match_at else ""
        yield line(f"{leak.symbol} at {leak.query_at}{match}: {leak.problem}")
    if len(report.leaks) > _LEAKS_SHOWN:
        yield line(f"and {len(report.leaks) - _LEAKS_SHOWN} more; all are in --json")
    yield from _describe_stored(report.stored)


def _describe_stored(stored: StoredPoints) -> Description:
    differing = f"[bold]{stored.differing} DIFFER[/]" if stored.differing else "all the same"
    yield (
        f"{stored.outcomes_compared} outcomes and {stored.states_compared} states compared with "
        f"the market data of now: {differing}"
    )
    for difference in stored.differences[:_DIFFERENCES_SHOWN]:
        numbers = (difference.stored, difference.now)
        held, now = ("unknown" if number is None else f"{number:.6g}" for number in numbers)
        place = f"{difference.symbol} at {difference.as_of}"
        yield line(f"{place}: {difference.field} is {held}, by the data of now {now}")
    if stored.without_candles:
        yield line(f"{stored.without_candles} outcomes not compared: the store lacks their candles")
    if stored.remedy:
        yield line(f"make them again with: {stored.remedy}")


def _describe_calibration(calibration: Calibration, out: Path) -> Description:
    yield heading(f"Calibration {calibration.digest} in {out}")
    rows = []
    for name, horizon in calibration.horizons.items():
        coverage = horizon.after_kept_days
        rows.append(
            (
                name,
                f"{horizon.margins.base:+.4f}",
                _interval(horizon.coverage_before, ".1%"),
                _interval(horizon.coverage_after, ".1%"),
                *(f"{coverage[days]:.1%}" if days in coverage else "-" for days in (7, 30)),
                # Without neighbours the forecast is the volatility model itself.
                _interval(horizon.skill, "+.2%") if horizon.weight_of_neighbours else "the same",
            )
        )
    yield table(
        f"Measured from {minute(iso8601(calibration.held_out_from_ms))} on, 80 % bands",
        *("over", "margin", "inside before", "inside after", "kept 7 days", "30 days"),
        "skill over the volatility model",
        rows=rows,
    )
    yield (
        f"  Margins are in units of the expected volatility and follow the last "
        f"{calibration.window_days} days,\n  renewed each day, or kept for 7 or 30 days; "
        f"intervals: {calibration.interval_level:.2%}"
    )
    skilled = [name for name in calibration.horizons if name in calibration.skilled_horizons]
    at_horizons = f"over {', '.join(skilled)}" if skilled else "at no horizon"
    yield (
        f"Beyond chance, such forecasts were better than the volatility model {at_horizons}.\n"
        f"Use it from {minute(iso8601(calibration.known_by_ms))} on, with the setting "
        "retrieval.calibration."
    )


def _interval(interval: Interval, spec: str) -> str:
    if interval.value is None:
        return "too little data"
    if interval.low is None or interval.high is None:
        return f"{interval.value:{spec}} (too little data)"
    return f"{interval.value:{spec}} [{interval.low:{spec}}, {interval.high:{spec}}]"
