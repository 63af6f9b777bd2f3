"""Tables of the `index` commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

from llm_trader.cli.show import heading, ingest_reports, line, minute, table
from llm_trader.timeframe import iso8601

if TYPE_CHECKING:
    from llm_trader.app.index_migration import Migration
    from llm_trader.app.index_versions import IndexState, Rebuild
    from llm_trader.checks.recall import RecallReport
    from llm_trader.checks.vector_comparison import VectorComparison


def index_state(console: Console, state: IndexState) -> None:
    info, collection = state.info, state.info.collection
    heading(console, f"{info.backend} index, {info.location}")
    spaces = ", ".join(filter(None, (collection.state_space_id, collection.text_space_id)))
    exchange = collection.exchange or "unknown exchange"
    line(console, f"{exchange}, {collection.feature_version}, vectors {spaces}")
    if collection.text_model:
        line(console, f"text model {collection.text_model}")
    symbols = table("", "symbol", "states", "first", "last")
    for points in info.symbols:
        span = (points.first_timestamp_ms, points.last_timestamp_ms)
        times = (minute(iso8601(time_ms)) for time_ms in span)
        symbols.add_row(points.symbol, str(points.points), *times)
    console.print(symbols)
    if info.runs:
        last = info.runs[-1]
        line(
            console,
            f"{len(info.runs)} ingestion runs, the last at {last.started_at} by {last.build_id}",
        )
    for version in state.versions:
        kind = "live" if version.live else "being built" if version.building else "old"
        line(console, f"version {version.name}: {kind}")


def migration(console: Console, migration: Migration, source: str, target: str) -> None:
    heading(console, f"Copied from {source} to {target}")
    symbols = table("", "symbol", "states", "there already", "added", "replaced")
    for copy in migration.copied:
        counts = (copy.points, copy.already_there, copy.added, copy.replaced)
        symbols.add_row(copy.symbol, *map(str, counts))
    console.print(symbols)
    for problem in migration.problems:
        symbol = f"{problem.symbol}: " if problem.symbol else ""
        line(console, f"PROBLEM {symbol}{problem.problem}")
    agreement = migration.agreement
    line(
        console,
        f"{agreement.identical} of {agreement.questions} sampled queries are answered identically",
    )
    for difference in agreement.disagreements[:10]:
        size = "rounding only" if difference.of_rounding else "DIFFERENT"
        first = difference.differences[0]
        line(console, f"{difference.symbol} at {difference.at}, {size}: {first}")


def rebuild(console: Console, rebuild: Rebuild) -> None:
    ingest_reports(console, rebuild.reports, rebuild.live)
    if rebuild.before:
        line(
            console,
            f"before it, {rebuild.before} was live; it stays until: llm-trader index prune",
        )


def pruned(console: Console, names: list[str]) -> None:
    text = f"deleted {', '.join(names)}" if names else "nothing to delete"
    console.print(text, highlight=False, soft_wrap=True)


def recall(console: Console, reports: list[RecallReport]) -> None:
    heading(console, "Share of the exact nearest that an approximate search finds")
    rows = table(
        "",
        *("symbol", "vector", "of", "k", "mean", "worst", "all found", "ms", "exact ms"),
        right_from=2,
    )
    for report in reports:
        complete = f"{report.complete:.0%} of {report.samples}"
        shares = (f"{report.mean:.2%}", f"{report.least:.0%}", complete)
        times = (f"{report.approximate_ms:.1f}", f"{report.exact_ms:.1f}")
        counts = (str(report.points), str(report.k))
        rows.add_row(report.symbol, report.name, *counts, *shares, *times)
    console.print(rows)


def vector_comparisons(console: Console, comparisons: list[VectorComparison]) -> None:
    heading(console, "State and text vectors compared")
    rows = table(
        "",
        *("symbol", "vector", "pairs: least", "1 %", "median", "99 %", "greatest"),
        *("rank correlation", "nearest similarity", "nearest distance"),
        right_from=2,
    )
    for comparison in comparisons:
        for space in comparison.spaces:
            rows.add_row(
                comparison.symbol,
                space.vector,
                *(f"{value:.3f}" for value in space.pair_similarity),
                f"{space.rank_correlation:.2f}",
                f"{space.nearest_similarity:.3f}",
                f"{space.nearest_feature_distance:.2f}",
            )
    console.print(rows)
    for comparison in comparisons:
        line(
            console,
            f"{comparison.symbol}: of the {comparison.k} nearest in {comparison.lookback_days} "
            f"days both find {comparison.shared_nearest:.0%}, by chance "
            f"{comparison.by_chance:.1%}; the usual distance of random pairs is "
            f"{comparison.usual_feature_distance:.2f} ({comparison.points} states, "
            f"{comparison.queries} queries)",
        )
    line(
        console,
        "pairs: similarity of random pairs; rank correlation: Spearman's, with the distance of the "
        "features; distance: root mean square of the differences of standardised features",
    )
