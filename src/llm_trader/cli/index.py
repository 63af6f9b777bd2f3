"""`llm-trader index`: describes an index, moves it, rebuilds it, and measures its search."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer
from rich.text import Text
from typer import Option

from llm_trader.app.job import Job
from llm_trader.cli import options
from llm_trader.cli.options import with_job
from llm_trader.cli.output import Description, Result, heading, line, minute, table
from llm_trader.cli.pipeline import describe_ingestion
from llm_trader.timeframe import iso8601

if TYPE_CHECKING:
    from llm_trader.app.index_checks import IndexCheck
    from llm_trader.app.index_versions import IndexState, Migration, Rebuild
    from llm_trader.checks.recall import RecallReport
    from llm_trader.checks.vector_comparison import VectorComparison

app = typer.Typer(
    no_args_is_help=True,
    help="Look after an index: see what it holds, move it, rebuild it, compare its vectors.",
)

Backend = Literal["embedded", "qdrant"]
Nearest = Annotated[int, Option("--k", min=1, max=1000, help="Number of nearest states.")]
LookbackDays = Annotated[int, Option(min=1, max=365, help="Days that a query looks back.")]

# The first few name the cause; all are in --json.
_DISAGREEMENTS_SHOWN: Final = 10


@app.command()
@with_job("index", "qdrant_url")
def info(job: Job) -> Result:
    """Show the contents of an index: symbols, ranges, vector spaces, runs, versions."""
    from llm_trader.app.index_versions import index_state

    state = index_state(job.settings, job.environ)
    return Result(state, _describe_index(state))


@app.command()
@with_job("index", "qdrant_url", unit="points")
def migrate(
    source: Annotated[
        Backend, Option("--from", help="Backend that holds the points.", show_default=False)
    ],
    target: Annotated[Backend, Option("--to", help="Backend to copy them to.", show_default=False)],
    job: Job,
    samples: options.Samples = 50,
    seed: options.Seed = 0,
) -> Result:
    """Copy an index to another backend, and prove that the copy is equal.

    Points, vectors and the record of runs are copied in batches. An interrupted copy resumes at
    the next run, and a repeated run copies only new points. Then counts, times, contents and the
    answers to sampled queries are compared. Exits with 1 if anything differs.
    """
    from llm_trader.app.index_versions import migrate_index

    migration = migrate_index(job, source, target, samples=samples, seed=seed)
    description = _describe_migration(migration, source, target)
    return Result(migration, description, not migration.true_copy)


@app.command()
@with_job("store", "index", "qdrant_url", "text", unit="snapshots")
def rebuild(job: Job) -> Result:
    """Build an index again beside the live one, then swap them.

    Use it for a version with other features, for another text model, or where the index is damaged;
    corrections of market data need no more than `rag-ingest`. The symbols and the time range are
    those of the live index, the data is that of the market store. If the live index is damaged, or
    another version of this program wrote it, all of the store is built. The live index answers
    queries until the swap; servers follow it within a second if the vector spaces are the same,
    others must be restarted. The old version stays until `llm-trader index prune`.
    """
    from llm_trader.app.index_versions import rebuild_index

    rebuilt = rebuild_index(job)
    return Result(rebuilt, _describe_rebuild(rebuilt))


@app.command()
@with_job("index")
def check(job: Job) -> Result:
    """Compare every record of an embedded index with its checksum.

    Also walks through all pages of the file. Exits with 1 if anything differs: the index is then
    refused by all commands, and `llm-trader index rebuild` builds it again from the market store.
    """
    from llm_trader.app.index_checks import check_index

    report = check_index(job)
    return Result(report, _describe_check(report), bool(report.problems))


@app.command()
@with_job("index", "qdrant_url")
def prune(
    job: Job,
    also_building: Annotated[
        bool, Option("--also-building", help="Also delete the versions of unfinished rebuilds.")
    ] = False,
    yes: Annotated[bool, Option("--yes", "-y", help="Delete without asking.")] = False,
) -> Result:
    """Delete old versions of an index.

    An interrupted rebuild resumes at the next run; with --also-building its version is deleted,
    and the next run starts over. Never use it while a rebuild is at work.
    """
    from llm_trader.app.index_versions import prune_index, versions_to_prune

    if not yes:
        names = versions_to_prune(job.settings, job.environ, also_building=also_building)
        if names:
            typer.confirm(f"Delete {', '.join(names)}?", abort=True, err=True)
    deleted = prune_index(job.settings, job.environ, also_building=also_building)
    text = f"deleted {', '.join(deleted)}" if deleted else "nothing to delete"
    return Result(deleted, [Text(text)])


@app.command()
@with_job("qdrant_url", unit="queries")
def recall(
    job: Job,
    symbols: options.IndexSymbols = "",
    k: Nearest = 50,
    samples: options.Samples = 200,
    lookback_days: LookbackDays = 90,
    seed: options.Seed = 0,
) -> Result:
    """Measure how much of the exact nearest an approximate search on Qdrant finds.

    Run it before you set index.qdrant.approximate.
    """
    from llm_trader.app.index_checks import measure_recall
    from llm_trader.checks.sampling import Sampling

    sampling = Sampling(k=k, samples=samples, lookback_days=lookback_days, seed=seed)
    reports = measure_recall(job, options.symbol_list(symbols), sampling)
    return Result(reports, _describe_recall(reports))


@app.command("compare-vectors")
@with_job("index", "qdrant_url", unit="queries")
def compare_vectors(
    job: Job,
    symbols: options.IndexSymbols = "",
    k: Nearest = 50,
    samples: options.Samples = 500,
    lookback_days: LookbackDays = 90,
    seed: options.Seed = 0,
) -> Result:
    """Compare the state and the text vectors of an index that has both.

    Shows how similar random pairs of states are, how closely similarity follows the distance of
    the features, and how many of the nearest states both vectors find.
    """
    from llm_trader.app.index_checks import compare_index_vectors
    from llm_trader.checks.sampling import Sampling

    sampling = Sampling(k=k, samples=samples, lookback_days=lookback_days, seed=seed)
    comparisons = compare_index_vectors(job, options.symbol_list(symbols), sampling)
    return Result(comparisons, _describe_vectors(comparisons))


def _describe_index(state: IndexState) -> Description:
    info, collection = state.info, state.info.collection
    yield heading(f"{info.backend} index, {info.location}")
    spaces = ", ".join(filter(None, (collection.state_space_id, collection.text_space_id)))
    exchange = collection.exchange or "unknown exchange"
    yield line(f"{exchange}, {collection.feature_version}, vectors {spaces}")
    if collection.text_model:
        yield line(f"text model {collection.text_model}")
    rows = (
        (
            points.symbol,
            points.points,
            minute(iso8601(points.first_timestamp_ms)),
            minute(iso8601(points.last_timestamp_ms)),
        )
        for points in info.symbols
    )
    yield table("", "symbol", "states", "first", "last", rows=rows)
    if info.runs:
        last = info.runs[-1]
        runs = f"{len(info.runs)} ingestion runs"
        yield line(f"{runs}, the last at {last.started_at} by {last.build_id}")
    for version in state.versions:
        kind = "live" if version.live else "being built" if version.building else "old"
        yield line(f"version {version.name}: {kind}")


def _describe_check(check: IndexCheck) -> Description:
    yield heading(f"{check.location}, compared with its checksums")
    yield table("", "symbol", "states", rows=((s.symbol, s.points) for s in check.symbols))
    for problem in check.problems:
        yield line(f"PROBLEM {problem}")
    yield line("whole" if check.remedy is None else check.remedy)


def _describe_migration(migration: Migration, source: str, target: str) -> Description:
    yield heading(f"Copied from {source} to {target}")
    rows = ((c.symbol, c.points, c.already_there, c.added, c.replaced) for c in migration.copied)
    yield table("", "symbol", "states", "there already", "added", "replaced", rows=rows)
    for copy in migration.copied:
        if copy.removed:
            yield line(f"{copy.symbol}: {copy.removed} removed that {source} no longer has")
    for problem in migration.problems:
        symbol = f"{problem.symbol}: " if problem.symbol else ""
        yield line(f"PROBLEM {symbol}{problem.problem}")
    agreement = migration.agreement
    counts = f"{agreement.identical} of {agreement.questions}"
    yield line(f"{counts} sampled queries are answered identically")
    for difference in agreement.disagreements[:_DISAGREEMENTS_SHOWN]:
        size = "rounding only" if difference.of_rounding else "DIFFERENT"
        first = difference.differences[0]
        yield line(f"{difference.symbol} at {difference.at}, {size}: {first}")


def _describe_rebuild(rebuild: Rebuild) -> Description:
    yield from describe_ingestion(rebuild.reports, rebuild.live)
    if rebuild.before:
        before = f"before it, {rebuild.before} was live"
        yield line(f"{before}; it stays until: llm-trader index prune")


def _describe_recall(reports: list[RecallReport]) -> Description:
    yield heading("Share of the exact nearest that an approximate search finds")
    rows = (
        (
            *(report.symbol, report.name, report.points, report.k),
            *(f"{report.mean:.2%}", f"{report.least:.0%}"),
            f"{report.complete:.0%} of {report.samples}",
            *(f"{report.approximate_ms:.1f}", f"{report.exact_ms:.1f}"),
        )
        for report in reports
    )
    columns = ("symbol", "vector", "of", "k", "mean", "worst", "all found", "ms", "exact ms")
    yield table("", *columns, rows=rows, right_from=2)


def _describe_vectors(comparisons: list[VectorComparison]) -> Description:
    yield heading("State and text vectors compared")
    rows = (
        (
            comparison.symbol,
            space.vector,
            *(f"{value:.3f}" for value in space.pair_similarity),
            f"{space.rank_correlation:.2f}",
            f"{space.nearest_similarity:.3f}",
            f"{space.nearest_feature_distance:.2f}",
        )
        for comparison in comparisons
        for space in comparison.spaces
    )
    yield table(
        "",
        *("symbol", "vector", "pairs: least", "1 %", "median", "99 %", "greatest"),
        *("rank correlation", "nearest similarity", "nearest distance"),
        rows=rows,
        right_from=2,
    )
    for comparison in comparisons:
        yield line(
            f"{comparison.symbol}: of the {comparison.k} nearest in {comparison.lookback_days} "
            f"days both find {comparison.shared_nearest:.0%}, by chance "
            f"{comparison.by_chance:.1%}; the usual distance of random pairs is "
            f"{comparison.usual_feature_distance:.2f} ({comparison.points} states, "
            f"{comparison.queries} queries)"
        )
    yield line(
        "pairs: similarity of random pairs; rank correlation: Spearman's, with the distance of the "
        "features; distance: root mean square of the differences of standardised features"
    )
