"""`llm-trader index`: what an index holds, moving it, rebuilding it, and how well it searches."""

from __future__ import annotations

import os
from typing import Annotated, Literal

import typer

from llm_trader.cli import options

app = typer.Typer(
    no_args_is_help=True,
    help="Look after an index: see what it holds, move it, rebuild it, compare its vectors.",
)

Backend = Literal["embedded", "qdrant"]
Samples = Annotated[int, typer.Option("--samples", min=1, help="Queries to sample.")]
Seed = Annotated[int, typer.Option("--seed", help="Equal seeds sample equal queries.")]
Nearest = Annotated[int, typer.Option("--k", min=1, max=1000, help="Nearest states.")]
LookbackDays = Annotated[
    int, typer.Option("--lookback-days", min=1, max=365, help="Window of a query.")
]
AllSymbols = Annotated[
    str, typer.Option("--symbols", help="Separated by commas; all of the index if left out.")
]


@app.command()
def info(
    index: options.Index = None,
    qdrant_url: options.QdrantUrl = None,
    config: options.Config = None,
    json: options.Json = False,
) -> None:
    """Show what an index holds: symbols, ranges, vector spaces, runs, versions."""
    from llm_trader.app.backups import index_state
    from llm_trader.cli import show_index

    settings = options.settings_of(
        config, index__path=index, index__qdrant__url=qdrant_url, logging__level="warn"
    )
    state = index_state(settings, os.environ)
    if json:
        options.print_json(state)
    else:
        show_index.index_state(options.tables(), state)


@app.command()
def migrate(
    source: Annotated[
        Backend, typer.Option("--from", help="Where the points are.", show_default=False)
    ],
    target: Annotated[
        Backend, typer.Option("--to", help="Where they shall be.", show_default=False)
    ],
    index: options.Index = None,
    qdrant_url: options.QdrantUrl = None,
    samples: Samples = 50,
    seed: Seed = 0,
    config: options.Config = None,
    json: options.Json = False,
) -> None:
    """Copy an index to another backend, and prove that the copy is true.

    Points, vectors and the record of runs are copied in batches; a run that was interrupted goes
    on where it stopped, one that is repeated copies what is new. Then counts, times, contents and
    the answers to sampled queries are compared. Exits with 1 if anything differs.
    """
    from llm_trader.app.backups import migrate_index
    from llm_trader.cli import show_index

    settings = options.settings_of(
        config, index__path=index, index__qdrant__url=qdrant_url, logging__level="warn"
    )
    with options.progress_bar("points") as bar:
        line = bar.add_task("comparing answers", total=samples)
        done = migrate_index(
            settings,
            os.environ,
            source,
            target,
            samples=samples,
            seed=seed,
            progress=options.PerSymbol(bar),
            asked=lambda: bar.advance(line),
        )
    if json:
        options.print_json(done)
    else:
        show_index.migration(options.tables(), done, source, target)
    if not done.true_copy:
        raise typer.Exit(1)


@app.command()
def rebuild(
    store: options.Store = None,
    index: options.Index = None,
    qdrant_url: options.QdrantUrl = None,
    text: options.Text = None,
    config: options.Config = None,
    json: options.Json = False,
) -> None:
    """Make an index anew beside the live one, then swap them.

    For a new version with other features, another text model, or after market data was
    corrected. The symbols and the time range are those of the live index, the data is that of the
    market store. Queries are answered by the live one until the swap; servers on Qdrant follow it
    by themselves where the vector spaces are the same, others are restarted. The old one stays
    until `llm-trader index prune`.
    """
    from llm_trader.app.backups import rebuild_index
    from llm_trader.cli import show_index

    settings = options.settings_of(
        config,
        market__store=store,
        index__path=index,
        index__qdrant__url=qdrant_url,
        embedding__text__enabled=text,
        logging__level="warn",
    )
    with options.progress_bar("snapshots") as bar:
        done = rebuild_index(settings, os.environ, options.now_ms(), options.PerSymbol(bar))
    if json:
        options.print_json(done)
    else:
        show_index.rebuild(options.tables(), done)


@app.command()
def prune(
    index: options.Index = None,
    qdrant_url: options.QdrantUrl = None,
    also_building: Annotated[
        bool,
        typer.Option("--also-building", help="Those of rebuilds that did not end, too."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    config: options.Config = None,
    json: options.Json = False,
) -> None:
    """Delete the versions of an index that were live before the present one.

    A rebuild that did not end is gone on with by the next one; with --also-building that begins
    anew. Never give it while a rebuild is at work.
    """
    from llm_trader.app.backups import index_state, prune_index

    settings = options.settings_of(
        config, index__path=index, index__qdrant__url=qdrant_url, logging__level="warn"
    )
    if not yes:
        state = index_state(settings, os.environ)
        gone = [
            of.name for of in state.versions if not of.live and (also_building or not of.building)
        ]
        if gone:
            typer.confirm(f"Delete {', '.join(gone)}?", abort=True, err=True)
    names = prune_index(settings, os.environ, also_building=also_building)
    if json:
        options.print_json(names)
    else:
        typer.echo(f"deleted {', '.join(names)}" if names else "nothing to delete")


@app.command()
def recall(
    qdrant_url: options.QdrantUrl = None,
    symbols: AllSymbols = "",
    k: Nearest = 50,
    samples: Samples = 200,
    lookback_days: LookbackDays = 90,
    seed: Seed = 0,
    config: options.Config = None,
    json: options.Json = False,
) -> None:
    """Measure how much of the exact nearest an approximate search on Qdrant finds.

    Worth knowing before setting index.qdrant.approximate.
    """
    from llm_trader.app.checks import Sampling, measure_recall
    from llm_trader.cli import show_index

    settings = options.settings_of(config, index__qdrant__url=qdrant_url, logging__level="warn")
    named = options.symbol_list(symbols)
    sampling = Sampling(named, k, samples, lookback_days, seed)
    with options.progress_bar("queries") as bar:
        line = bar.add_task("comparing", total=None)
        reports = measure_recall(settings, os.environ, sampling, lambda: bar.advance(line))
    if json:
        options.print_json(reports)
    else:
        show_index.recall(options.tables(), reports)


@app.command("compare-vectors")
def compare_vectors(
    index: options.Index = None,
    qdrant_url: options.QdrantUrl = None,
    symbols: AllSymbols = "",
    k: Nearest = 50,
    samples: Samples = 500,
    lookback_days: LookbackDays = 90,
    seed: Seed = 0,
    config: options.Config = None,
    json: options.Json = False,
) -> None:
    """Compare the state and the text vectors of an index that has both.

    How similar random pairs of states are, how far similarity goes with the distance of the
    features, and how many of the nearest states both find.
    """
    from llm_trader.app.checks import Sampling, compare_index_vectors
    from llm_trader.cli import show_index

    settings = options.settings_of(
        config, index__path=index, index__qdrant__url=qdrant_url, logging__level="warn"
    )
    named = options.symbol_list(symbols)
    sampling = Sampling(named, k, samples, lookback_days, seed)
    with options.progress_bar("queries") as bar:
        line = bar.add_task("comparing", total=None)
        found = compare_index_vectors(settings, os.environ, sampling, lambda: bar.advance(line))
    if json:
        options.print_json(found)
    else:
        show_index.vector_comparisons(options.tables(), found)
