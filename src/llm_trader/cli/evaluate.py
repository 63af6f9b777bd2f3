"""`llm-trader evaluate`: is it better than nothing?"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from llm_trader.cli import options
from llm_trader.cli.output import present, progress_bar
from llm_trader.cli.setting_flags import with_settings
from llm_trader.timeframe import MINUTE_MS, Timeframe

if TYPE_CHECKING:
    from llm_trader.app.evaluation import StudyInputs
    from llm_trader.evaluation.plan import StudyPlan
    from llm_trader.evaluation.results import Metrics
    from llm_trader.progress import Progress
    from llm_trader.settings.tree import Settings

app = typer.Typer(invoke_without_command=True, subcommand_metavar="[COMMAND] [ARGS]...")

Vector = Annotated[
    Literal["state", "text", "hybrid", "random"] | None,
    typer.Option("--vector", help="Vectors to compare; random is a control."),
]
Lookback = Annotated[
    int | None, typer.Option("--lookback-days", help="Days before a query that are searched.")
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for the results and the trials.")]
Index = Annotated[
    Path | None,
    typer.Option("--index", help="Take vectors from this index; needed for text and hybrid."),
]
Jobs = Annotated[
    int | None,
    typer.Option("--jobs", min=1, help="Number of processes; one per core by default."),
]


@dataclass(frozen=True)
class StudyOptions:
    """The options that all studies share."""

    index: Index = None
    symbols: options.StoreSymbols = ""
    start: Annotated[
        str | None,
        typer.Option(
            "--start",
            "-s",
            help="Time of the first query: a number of days ago, or RFC 3339; by default one "
            "lookback after the start of the data.",
        ),
    ] = None
    end: Annotated[
        str | None,
        typer.Option(
            "--end", "-e", help="Time of the last query: now, or RFC 3339; by default now."
        ),
    ] = None
    step: Annotated[
        str | None,
        typer.Option(
            "--step", help="Time between queries, such as 15m; by default that of the snapshots."
        ),
    ] = None
    plan: Annotated[
        Path | None,
        typer.Option("--plan", help="TOML file of the evaluation's plan; see config/evaluation/."),
    ] = None
    seed: Annotated[int | None, typer.Option("--seed", help="Equal seeds give equal numbers.")] = (
        None
    )
    jobs: Jobs = None


@app.callback()
@with_settings("store", "index")
def evaluate(
    context: typer.Context,
    settings: Settings,
    study: StudyOptions,
    vector: Vector = None,
    lookback_days: Lookback = None,
    embargo_hours: Annotated[
        float | None,
        typer.Option("--embargo-hours", help="Hours for which a point must have been known."),
    ] = None,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Also try other numbers of neighbours, gaps, lookbacks.")
    ] = False,
    out: Out = Path("reports"),
    json: options.Json = False,
) -> None:
    """Walk through the past and judge every forecast: is it better than the base rate?

    At each step the search finds the neighbours that a server would have found then, and compares
    their forecast with what followed. Controls with a known answer run every time; if one fails,
    or a trace of the future is found, nothing counts and the exit code is 1.

    Writes metrics.json, steps.csv, trades.csv and report.html, which needs no network. Every
    configuration tried is kept in the folder trials beside them, and counted.
    """
    if context.invoked_subcommand is not None:
        _refuse_options_before(context, context.invoked_subcommand)
        return
    from llm_trader.app import evaluation
    from llm_trader.evaluation.plan import DEFAULT_SWEEP

    search = {"vector": vector, "lookback_days": lookback_days, "embargo_hours": embargo_hours}
    plan = _plan(settings, study, search, sweep=DEFAULT_SWEEP if sweep else None)
    _conduct(evaluation.evaluate, plan, settings, study, out, json)


@app.command()
@with_settings("store", "index")
def compare(
    settings: Settings,
    study: StudyOptions,
    vectors: Annotated[
        str,
        typer.Option(
            "--vectors",
            help="Separated by commas: none, random, state, text, hybrid, prototype.",
        ),
    ] = "none,random,state,text,hybrid",
    lookback_days: Lookback = None,
    out: Out = Path("reports/compare"),
    json: options.Json = False,
) -> None:
    """Compare ways to search for neighbours on the same queries: the ablation.

    none is the volatility-rescaled base rate; random draws neighbours by chance; prototype is five
    neighbours by text that may overlap, as the prototype searched. Text vectors come from an index
    that has them: llm-trader ingest --text.
    """
    from llm_trader.app import evaluation

    names = [name.strip() for name in vectors.split(",") if name.strip()]
    plan = _plan(settings, study, {"lookback_days": lookback_days})
    work = partial(evaluation.compare, vectors=names)
    _conduct(work, plan, settings, study, out, json)


@app.command()
@with_settings("store", "index")
def ab(
    settings: Settings,
    study: StudyOptions,
    arm_a: Annotated[
        str, typer.Option("--arm-a", help="The reference arm, such as baseline.")
    ] = "baseline",
    arm_b: Annotated[str, typer.Option("--arm-b", help="The arm to compare, such as rag.")] = "rag",
    decider: Annotated[
        Literal["aggregator"],
        typer.Option("--decider", help="Decides in the arms baseline and rag."),
    ] = "aggregator",
    vector: Vector = None,
    out: Out = Path("reports/ab"),
    json: options.Json = False,
) -> None:
    """Trade two ways to decide on the same snapshots, and compare what they earn.

    baseline is the decider with the base rate of the window alone, rag adds what similar states
    say; the others are hold, random, rsi-7 and macd-sign.
    """
    from llm_trader.app import evaluation

    plan = _plan(settings, study, {"vector": vector}, decider=decider)
    work = partial(evaluation.compare_arms, arm_a=arm_a, arm_b=arm_b)
    _conduct(work, plan, settings, study, out, json)


@app.command()
@with_settings("store", "index")
def gate(
    settings: Settings,
    baseline: Annotated[
        Path,
        typer.Option(
            "--baseline", help="metrics.json of an earlier evaluation.", show_default=False
        ),
    ],
    metrics: Annotated[
        Path | None,
        typer.Option("--metrics", help="Judge this metrics.json instead of evaluating anew."),
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option(
            "--tolerance", min=0, max=100, help="Percentage points of skill that may be lost."
        ),
    ] = 0.2,
    index: Index = None,
    out: Out = Path("reports/gate"),
    jobs: Jobs = None,
    json: options.Json = False,
) -> None:
    """Evaluate again what a baseline evaluated, and exit with 1 if it got worse, or leaks.

    Same plan, symbols and time. A regression is a skill that fell by more than the tolerance, or
    a verdict that got worse; a control or a leak probe that fails stops the gate as well.
    """
    from llm_trader.app import evaluation
    from llm_trader.cli import show_evaluation

    with progress_bar("") as progress:
        run = _run(settings, index, out, jobs, progress)
        report = evaluation.pass_gate(run, baseline, metrics, tolerance)
    present(report, json, show_evaluation.gate_report)
    if not report.passed:
        raise typer.Exit(1)


def _refuse_options_before(context: typer.Context, command: str) -> None:
    """Options before the name of a subcommand would have no effect."""
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        if source is not None and source.name == "COMMANDLINE":
            hint = f"'{option.opts[0]}'"
            raise typer.BadParameter(f"give it after `{command}`", context, param_hint=hint)


def _plan(
    settings: Settings, study: StudyOptions, search: dict[str, Any], **flags: Any
) -> StudyPlan:
    from llm_trader.app.evaluation import make_plan

    flags |= {"search": search, "start": study.start, "end": study.end, "seed": study.seed}
    flags["symbols"] = options.symbol_list(study.symbols) or None
    if study.step is not None:
        flags["step_minutes"] = Timeframe.parse(study.step).ms // MINUTE_MS
    return make_plan(settings, study.plan, flags)


def _run(
    settings: Settings, index: Path | None, out: Path, jobs: int | None, progress: Progress
) -> StudyInputs:
    from llm_trader.app.evaluation import StudyInputs

    now_ms = options.now_ms()
    return StudyInputs(settings, os.environ, out, index is not None, jobs, now_ms, progress)


def _conduct(
    work: Callable[[StudyInputs, StudyPlan], Metrics],
    plan: StudyPlan,
    settings: Settings,
    study: StudyOptions,
    out: Path,
    json: bool,
) -> None:
    """Run a study and print its result; exit with 1 if the result cannot be trusted."""
    from llm_trader.app.evaluation import is_trusted
    from llm_trader.cli import show_evaluation

    with progress_bar("") as progress:
        metrics = work(_run(settings, study.index, out, study.jobs, progress), plan)
    present(metrics, json, lambda console, value: show_evaluation.study(console, value, out))
    if not is_trusted(metrics):
        raise typer.Exit(1)
