"""Tables of market stores, imports, ingestions and leak checks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from llm_trader.checks.leak_check import LeakReport
    from llm_trader.index.ingestion import IngestReport
    from llm_trader.market.file_import import ImportReport
    from llm_trader.market.store_check import StoreCheck
    from llm_trader.market.store_info import StoreInfo


def table(title: str, *columns: str, right_from: int = 1) -> Table:
    rows = Table(
        title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0)
    )
    for position, column in enumerate(columns):
        justify: Literal["left", "right"] = "right" if position >= right_from else "left"
        rows.add_column(column, justify=justify, no_wrap=True)
    return rows


def store_info(console: Console, info: StoreInfo) -> None:
    heading(console, f"{info.path}, exchange {info.exchange or 'unknown'}")
    rows = table("", "symbol", "series", "rows", "first", "last", "missing", "from", right_from=2)
    for series in info.series:
        sources = list(dict.fromkeys(source.source for source in series.provenance))
        rows.add_row(
            series.symbol,
            f"{series.kind} {series.timeframe or ''}".strip(),
            str(series.rows),
            minute(series.first),
            minute(series.last),
            str(series.missing) if series.kind == "candles" else "-",
            _first_of(sources),
        )
    rows.columns[-1].justify = "left"
    rows.columns[-1].ratio = 1  # this column shrinks first
    rows.expand = True
    console.print(rows)
    for series in info.series:
        for gap in series.gaps[:5]:
            name = f"{series.symbol} {series.timeframe}"
            line(console, f"gap in {name}: {gap.missing} candles from {gap.start}")
        if len(series.gaps) > 5:
            line(console, f"and {len(series.gaps) - 5} more gaps; all are in --json")


def store_check(console: Console, check: StoreCheck) -> None:
    heading(console, f"{check.path}, counted")
    rows = table("", "symbol", "series", "rows", "problems", right_from=2)
    for series in check.series:
        name = f"{series.kind} {series.timeframe or ''}".strip()
        rows.add_row(series.symbol, name, str(series.rows), str(len(series.problems)))
    console.print(rows)
    for series in check.series:
        for problem in series.problems:
            name = f"{series.symbol} {series.kind} {series.timeframe or ''}".strip()
            line(console, f"{name}: {problem}")
    if check.remedy is not None:
        line(console, check.remedy)


def import_report(console: Console, report: ImportReport, store: Path) -> None:
    heading(console, f"Imported into {store}")
    rows = table("", "file", "rows", "added", "replaced", "unchanged")
    written = [(file.file, file.rows, file.write) for file in report.files]
    for derived in report.derived:
        name = f"{derived.symbol} {derived.timeframe}, {derived.source}"
        written.append((name, derived.rows, derived.write))
    for name, count, write in written:
        rows.add_row(name, *map(str, (count, write.added, write.replaced, write.unchanged)))
    console.print(rows)
    for skipped in report.skipped:
        line(console, f"skipped {skipped.file}: {skipped.reason}")


def ingest_reports(console: Console, reports: list[IngestReport], index: str) -> None:
    heading(console, f"States in {index}")
    rows = table("", "symbol", "asked for", "outside the data", "there already", "added")
    for report in reports:
        counts = (report.requested, report.outside_stored_data, report.already_there, report.added)
        rows.add_row(report.symbol, *map(str, counts))
    console.print(rows)
    for report in reports:
        for reason, count in report.refused.items():
            line(console, f"{report.symbol}: {count} refused, {reason}")
    if reports and all(report.requested == report.outside_stored_data for report in reports):
        line(console, "the store holds nothing of that time; see: llm-trader data info")


def leak_report(console: Console, report: LeakReport) -> None:
    console.print(
        f"{report.queries} queries, {report.matches_checked} matches and "
        f"{report.states_rebuilt} states checked: "
        + (f"[bold]{len(report.leaks)} LEAKS[/]" if report.leaks else "no leak"),
        highlight=False,
    )
    for leak in report.leaks[:20]:
        match = f", match of {leak.match_at}" if leak.match_at else ""
        line(console, f"{leak.symbol} at {leak.query_at}{match}: {leak.problem}")
    if len(report.leaks) > 20:
        line(console, f"and {len(report.leaks) - 20} more; all are in --json")


def heading(console: Console, text: str) -> None:
    """Prints in bold and without line breaks, so that a path in it can be copied."""
    console.print(Text(text, style="bold"), soft_wrap=True)


def line(console: Console, text: str) -> None:
    """Prints without line breaks, so that a path or a command in it can be copied."""
    console.print(f"  {text}", highlight=False, markup=False, soft_wrap=True)


def _first_of(sources: list[str]) -> str:
    if not sources:
        return "-"
    return sources[0] + (f" and {len(sources) - 1} more" if len(sources) > 1 else "")


def minute(iso8601: str) -> str:
    return iso8601.replace("T", " ").removesuffix(":00Z")


def number(value: float | None, spec: str) -> str:
    return "-" if value is None else format(value, spec)
