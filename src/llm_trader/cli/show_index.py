"""What the `index` commands found, as readable tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

from llm_trader.cli.show import heading, ingest_reports, minute, table
from llm_trader.timeframe import iso8601

if TYPE_CHECKING:
    from llm_trader.app.backups import IndexState, Migration, Rebuild
    from llm_trader.checks.recall import RecallReport
    from llm_trader.checks.vector_comparison import VectorComparison


def index_state(console: Console, state: IndexState) -> None:
    info, held = state.info, state.info.collection
    heading(console, f"{info.backend} index, {info.location}")
    spaces = held.state_space_id + (f", {held.text_space_id}" if held.text_space_id else "")
    told = f"{held.exchange or 'unknown exchange'}, {held.feature_version}, vectors {spaces}"
    console.print(f"  {told}", highlight=False)
    if held.text_model:
        console.print(f"  text model {held.text_model}", highlight=False)
    symbols = table("", "symbol", "states", "first", "last")
    for of in info.symbols:
        span = (of.first_timestamp_ms, of.last_timestamp_ms)
        symbols.add_row(of.symbol, str(of.points), *(minute(iso8601(at)) for at in span))
    console.print(symbols)
    if info.runs:
        last = info.runs[-1]
        told = f"{len(info.runs)} ingestion runs, the last at {last.started_at} by {last.build_id}"
        console.print(f"  {told}", highlight=False)
    for version in state.versions:
        what = "live" if version.live else "being built" if version.building else "old"
        console.print(f"  version {version.name}: {what}", highlight=False, soft_wrap=True)


def migration(console: Console, done: Migration, source: str, target: str) -> None:
    heading(console, f"Copied from {source} to {target}")
    copied = table("", "symbol", "states", "there already", "added", "replaced")
    for of in done.copied:
        numbers = (of.points, of.already_there, of.added, of.replaced)
        copied.add_row(of.symbol, *map(str, numbers))
    console.print(copied)
    for problem in done.problems:
        where = f"{problem.symbol}: " if problem.symbol else ""
        console.print(f"  PROBLEM {where}{problem.problem}", highlight=False)
    asked = done.agreement
    told = f"{asked.identical} of {asked.questions} sampled queries are answered identically"
    console.print(f"  {told}", highlight=False)
    for of_question in asked.disagreements[:10]:
        size = "rounding only" if of_question.of_rounding else "DIFFERENT"
        told = f"{of_question.symbol} at {of_question.at}, {size}: {of_question.differences[0]}"
        console.print(f"  {told}", highlight=False)


def rebuild(console: Console, done: Rebuild) -> None:
    ingest_reports(console, done.reports, done.live)
    if done.before:
        console.print(
            f"  before it, {done.before} was live; it stays until: llm-trader index prune",
            highlight=False,
            soft_wrap=True,
        )


def recall(console: Console, reports: list[RecallReport]) -> None:
    heading(console, "Of the exact nearest, an approximate search finds")
    found = table(
        "",
        *("symbol", "vector", "of", "k", "mean", "worst", "all found", "ms", "exact ms"),
        right_from=2,
    )
    for of in reports:
        shares = (f"{of.mean:.2%}", f"{of.least:.0%}", f"{of.complete:.0%} of {of.samples}")
        times = (f"{of.approximate_ms:.1f}", f"{of.exact_ms:.1f}")
        found.add_row(of.symbol, of.name, str(of.points), str(of.k), *shares, *times)
    console.print(found)


def vector_comparisons(console: Console, found: list[VectorComparison]) -> None:
    heading(console, "State and text vectors compared")
    pairs = table(
        "",
        *("symbol", "vector", "pairs: least", "1 %", "median", "99 %", "greatest"),
        *("rank correlation", "nearest alike", "nearest apart"),
        right_from=2,
    )
    for one in found:
        for of in one.spaces:
            levels = [f"{value:.3f}" for value in of.pair_similarity]
            nearest = (f"{of.nearest_similarity:.3f}", f"{of.nearest_feature_distance:.2f}")
            pairs.add_row(one.symbol, of.vector, *levels, f"{of.rank_correlation:.2f}", *nearest)
    console.print(pairs)
    for one in found:
        told = (
            f"{one.symbol}: of the {one.k} nearest in {one.lookback_days} days both find "
            f"{one.shared_nearest:.0%}, by chance {one.by_chance:.1%}; random pairs are "
            f"{one.usual_feature_distance:.2f} apart ({one.points} states, {one.queries} queries)"
        )
        console.print(f"  {told}", highlight=False)
    console.print(
        "  pairs: similarity of random pairs; rank correlation: Spearman's, with the distance of "
        "the features; apart: root mean square of their standardised differences",
        highlight=False,
    )
