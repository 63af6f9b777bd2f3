"""`llm-trader workflow`: graphs, and their runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Argument, Option

from llm_trader.app.job import Job
from llm_trader.cli import options
from llm_trader.cli.options import with_job
from llm_trader.cli.output import Result, line
from llm_trader.errors import InvalidInputError
from llm_trader.timeframe import LATEST, Millis, parse_end

app = typer.Typer(
    no_args_is_help=True, help="From a market snapshot to an order: graphs and their runs."
)

_RUNS = ("runs", "postgres_url")
_MODES = ("rag_url", "shadow", "ab")

GraphFile = Annotated[
    Path, Argument(metavar="GRAPH", help="Main file, such as workflows/llm-trader/main.yml.")
]
RunId = Annotated[str, Argument(metavar="RUN", help="Id of the run, as `workflow list` shows it.")]
Provider = Annotated[
    Literal["anthropic", "openai", "openai-compatible", "replay", "aggregator"] | None,
    Option(help="Who decides, as for `llm-trader decide`. [setting llm.provider]"),
]
Model = Annotated[str | None, Option(help="Model, by its provider's name. [setting llm.model]")]
Live = Annotated[
    bool,
    Option("--live", help="Trade real money; workflow.exchange.live must be true as well."),
]


@app.callback()
def _group() -> None:
    pass


@app.command()
@with_job(*_RUNS, *_MODES, "store", "record", "log_level", quiet=False)
def serve(
    graph: GraphFile,
    job: Job,
    host: Annotated[
        str | None, Option(help="Address of the intake. [setting intake.host, default 127.0.0.1]")
    ] = None,
    port: Annotated[
        int | None,
        Option("--port", "-p", help="Its TCP port. [setting intake.port, default 7878]"),
    ] = None,
    http_port: Annotated[
        int | None, Option(help="Its port for HTTP. [setting intake.http_port, default 7877]")
    ] = None,
    symbols: Annotated[
        str,
        Option(
            "--symbols",
            "--symbol",
            help="Symbols of the snapshots that it makes by itself; all of the store by default.",
        ),
    ] = "",
    provider: Provider = None,
    model: Model = None,
    live: Live = False,
) -> None:
    """Take snapshots and events, decide on each once, and execute, until SIGTERM or Ctrl-C.

    Two ports: one document per line over TCP; and HTTP with POST /rpc, GET /livez and /readyz.
    Methods: snapshot.post, which collectors send, and ingest.push for other events. An input with
    `every: 15m` makes snapshots of the local store as well. What was accepted is on disk, and is
    decided on whatever becomes of this process. Without a model's key the aggregator decides; the
    broker is paper unless the settings name another.
    """
    from llm_trader.app.llm_deciders import DeciderChoice
    from llm_trader.app.workflow.server import WorkflowChoice, serve_workflow

    job = _listening(job, host, port, http_port)
    choice = WorkflowChoice(
        DeciderChoice(provider, model), live=live, symbols=options.symbol_list(symbols)
    )
    serve_workflow(job, graph, choice, options.now_ms)


@app.command()
@with_job(*_RUNS, *_MODES, "store", "record")
def run(
    graph: GraphFile,
    symbol: options.OneSymbol,
    job: Job,
    at: Annotated[
        str,
        Option("--at", help="Time of the state: latest (the end of the data), now, or RFC 3339."),
    ] = LATEST,
    provider: Provider = None,
    model: Model = None,
) -> Result:
    """Decide on one state of the local store, and execute, as `serve` would.

    A state that was decided on before is shown, and not decided on again. Exits with 1 if the run
    failed.
    """
    from llm_trader.app.llm_deciders import DeciderChoice
    from llm_trader.app.workflow.runs import run_workflow
    from llm_trader.cli.show_workflow import describe_hand_run

    name = options.one_symbol(symbol)
    choice = DeciderChoice(provider, model)
    ran = run_workflow(job, graph, name, _time(at, job.now_ms), choice, options.now_ms)
    failed = ran.details.summary.state != "done"
    return Result(ran.details, describe_hand_run(ran), failed)


@app.command()
@with_job("shadow", "store", unit="")
def backtest(
    graph: GraphFile,
    symbol: options.OneSymbol,
    job: Job,
    start: options.Start = "30",
    end: options.End = LATEST,
) -> Result:
    """Run a graph over past states of the local store, and trade them on paper.

    Nodes, guards and broker are those of `serve`, with the settings of `workflow`; the aggregator
    decides, on what a server would have answered then. The books are kept in memory only. A
    language model's decisions on past states are tried by `evaluate ab --decider llm`. Exits with 1
    if a run failed.
    """
    from llm_trader.app.time_range import time_range
    from llm_trader.app.workflow.backtest import backtest as run_backtest
    from llm_trader.cli.show_backtest import describe_backtest

    name = options.one_symbol(symbol)
    report = run_backtest(job, graph, name, *time_range(job, [name], start, end)).report
    failed = bool(report.failures or report.book_problems)
    return Result(report, describe_backtest(report), failed)


@app.command("list")
@with_job(*_RUNS)
def list_all(
    job: Job,
    state: Annotated[
        Literal["queued", "running", "done", "failed", "cancelled"] | None,
        Option(help="Only runs in this state."),
    ] = None,
    limit: Annotated[int, Option("--limit", "-n", min=1, help="Most runs to list.")] = 20,
) -> Result:
    """List runs, the newest first."""
    from llm_trader.app.workflow.runs import list_runs
    from llm_trader.cli.show_workflow import describe_runs

    found = list_runs(job, limit, state)
    return Result(found, describe_runs(found))


@app.command()
@with_job(*_RUNS)
def show(run: RunId, job: Job) -> Result:
    """Show a run: each node with its outcome, and the decision."""
    from llm_trader.app.workflow.runs import show_run
    from llm_trader.cli.show_workflow import describe_run

    details = show_run(job, run)
    return Result(details, describe_run(details))


@app.command()
@with_job(*_RUNS)
def resume(run: RunId, job: Job) -> Result:
    """Go on with a cancelled run, or with a failed one at the node that failed.

    A process that serves carries it out. Runs of a process that died need no command.
    """
    from llm_trader.app.workflow.runs import resume_run

    resume_run(job, run)
    return Result({"resumed": run}, [line(f"{run} waits for a process that serves.")])


@app.command()
@with_job(*_RUNS)
def cancel(run: RunId, job: Job) -> Result:
    """Cancel a run: no further node of it begins. An order that was placed stays."""
    from llm_trader.app.workflow.runs import cancel_run

    cancel_run(job, run)
    return Result({"cancelled": run}, [line(f"{run} is cancelled.")])


@app.command()
@with_job()
def validate(graph: GraphFile, job: Job) -> Result:
    """Check a graph; every mistake is named with its file, line and column.

    An `every` of an input must also be a multiple of the snapshots' interval in the settings.
    """
    from llm_trader.app.workflow.timetable import intervals_of
    from llm_trader.workflow.graph.loading import load_graph
    from llm_trader.workflow.nodes.scripts import SCRIPTS

    checked = load_graph(graph, SCRIPTS)
    intervals_of(checked, job.settings)
    names = [node.name for node in checked.nodes]
    value = {"name": checked.name, "digest": checked.digest, "nodes": names}
    files = ", ".join(checked.text.files)
    described = f"{checked.name} ({checked.digest}) is sound: {len(names)} nodes in {files}."
    return Result(value, [line(described)])


@app.command("graph")
@with_job()
def draw(
    graph: GraphFile,
    job: Job,
    svg: Annotated[
        Path | None, Option(help="Write a drawing to this file instead; - is standard output.")
    ] = None,
) -> None:
    """Draw a graph as text, or as SVG."""
    from llm_trader.storage.files import write_atomically, write_errors
    from llm_trader.workflow.graph.drawing import svg_drawing, text_drawing
    from llm_trader.workflow.graph.loading import load_graph
    from llm_trader.workflow.nodes.scripts import SCRIPTS

    checked = load_graph(graph, SCRIPTS)
    if svg is None:
        sys.stdout.write(text_drawing(checked))
    elif str(svg) == "-":
        sys.stdout.write(svg_drawing(checked))
    else:
        with write_errors(svg.parent):
            write_atomically(svg, svg_drawing(checked).encode())


def _listening(job: Job, host: str | None, port: int | None, http_port: int | None) -> Job:
    """The job with the addresses of flags."""
    import msgspec

    given = {"host": host, "port": port, "http_port": http_port}
    changes = {name: value for name, value in given.items() if value is not None}
    for name in ("port", "http_port"):
        if name in changes and not 0 <= changes[name] <= 65535:  # type: ignore[operator]
            raise InvalidInputError(f"--{name.replace('_', '-')} should be from 0 to 65535")
    replace = msgspec.structs.replace
    intake = replace(job.settings.intake, **changes)
    return job._replace(settings=replace(job.settings, intake=intake))


def _time(text: str, now_ms: Millis) -> Millis | None:
    return None if text == LATEST else parse_end(text, now_ms)
