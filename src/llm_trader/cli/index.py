"""`llm-trader index`: describes an index, moves it, rebuilds it, and measures its search."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from llm_trader.cli import options, show_index
from llm_trader.cli.output import present, progress_bar
from llm_trader.cli.setting_flags import with_settings

if TYPE_CHECKING:
    from llm_trader.settings.tree import Settings

app = typer.Typer(
    no_args_is_help=True,
    help="Look after an index: see what it holds, move it, rebuild it, compare its vectors.",
)

Backend = Literal["embedded", "qdrant"]
Nearest = Annotated[int, typer.Option("--k", min=1, max=1000, help="Number of nearest states.")]
LookbackDays = Annotated[
    int, typer.Option("--lookback-days", min=1, max=365, help="Days that a query looks back.")
]


@app.command()
@with_settings("index", "qdrant_url")
def info(settings: Settings, json: options.Json = False) -> None:
    """Show the contents of an index: symbols, ranges, vector spaces, runs, versions."""
    from llm_trader.app.index_versions import index_state

    present(index_state(settings, os.environ), json, show_index.index_state)


@app.command()
@with_settings("index", "qdrant_url")
def migrate(
    source: Annotated[
        Backend, typer.Option("--from", help="Backend that holds the points.", show_default=False)
    ],
    target: Annotated[
        Backend, typer.Option("--to", help="Backend to copy them to.", show_default=False)
    ],
    settings: Settings,
    samples: options.Samples = 50,
    seed: options.Seed = 0,
    json: options.Json = False,
) -> None:
    """Copy an index to another backend, and prove that the copy is equal.

    Points, vectors and the record of runs are copied in batches. An interrupted copy resumes at
    the next run, and a repeated run copies only new points. Then counts, times, contents and the
    answers to sampled queries are compared. Exits with 1 if anything differs.
    """
    from llm_trader.app.index_migration import migrate_index

    with progress_bar("points") as progress:
        migration = migrate_index(
            settings, os.environ, source, target, progress, samples=samples, seed=seed
        )
    present(
        migration,
        json,
        lambda console, value: show_index.migration(console, value, source, target),
    )
    if not migration.true_copy:
        raise typer.Exit(1)


@app.command()
@with_settings("store", "index", "qdrant_url", "text")
def rebuild(settings: Settings, json: options.Json = False) -> None:
    """Build an index again beside the live one, then swap them.

    Use it for a version with other features, for another text model, or after market data was
    corrected. The symbols and the time range are those of the live index, the data is that of the
    market store. The live index answers queries until the swap; servers on Qdrant follow it by
    themselves if the vector spaces are the same, other servers must be restarted. The old version
    stays until `llm-trader index prune`.
    """
    from llm_trader.app.index_versions import rebuild_index

    with progress_bar("snapshots") as progress:
        rebuilt = rebuild_index(settings, os.environ, options.now_ms(), progress)
    present(rebuilt, json, show_index.rebuild)


@app.command()
@with_settings("index", "qdrant_url")
def prune(
    settings: Settings,
    also_building: Annotated[
        bool,
        typer.Option("--also-building", help="Also delete the versions of unfinished rebuilds."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking.")] = False,
    json: options.Json = False,
) -> None:
    """Delete old versions of an index.

    An interrupted rebuild resumes at the next run; with --also-building its version is deleted,
    and the next run starts over. Never use it while a rebuild is at work.
    """
    from llm_trader.app.index_versions import prune_index, versions_to_prune

    if not yes:
        names = versions_to_prune(settings, os.environ, also_building=also_building)
        if names:
            typer.confirm(f"Delete {', '.join(names)}?", abort=True, err=True)
    deleted = prune_index(settings, os.environ, also_building=also_building)
    present(deleted, json, show_index.pruned)


@app.command()
@with_settings("qdrant_url")
def recall(
    settings: Settings,
    symbols: options.IndexSymbols = "",
    k: Nearest = 50,
    samples: options.Samples = 200,
    lookback_days: LookbackDays = 90,
    seed: options.Seed = 0,
    json: options.Json = False,
) -> None:
    """Measure how much of the exact nearest an approximate search on Qdrant finds.

    Run it before you set index.qdrant.approximate.
    """
    from llm_trader.app.index_checks import Sampling, measure_recall

    sampling = Sampling(options.symbol_list(symbols), k, samples, lookback_days, seed)
    with progress_bar("queries") as progress:
        reports = measure_recall(settings, os.environ, sampling, progress)
    present(reports, json, show_index.recall)


@app.command("compare-vectors")
@with_settings("index", "qdrant_url")
def compare_vectors(
    settings: Settings,
    symbols: options.IndexSymbols = "",
    k: Nearest = 50,
    samples: options.Samples = 500,
    lookback_days: LookbackDays = 90,
    seed: options.Seed = 0,
    json: options.Json = False,
) -> None:
    """Compare the state and the text vectors of an index that has both.

    Shows how similar random pairs of states are, how closely similarity follows the distance of
    the features, and how many of the nearest states both vectors find.
    """
    from llm_trader.app.index_checks import Sampling, compare_index_vectors

    sampling = Sampling(options.symbol_list(symbols), k, samples, lookback_days, seed)
    with progress_bar("queries") as progress:
        comparisons = compare_index_vectors(settings, os.environ, sampling, progress)
    present(comparisons, json, show_index.vector_comparisons)
