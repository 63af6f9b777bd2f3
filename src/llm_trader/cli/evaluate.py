"""`llm-trader evaluate`: is it better than nothing?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from llm_trader.cli import options
from llm_trader.cli.output import present, progress_bar
from llm_trader.cli.setting_flags import with_settings
from llm_trader.timeframe import MINUTE_MS, Timeframe

if TYPE_CHECKING:
    from llm_trader.app.evaluation import StudyRun
    from llm_trader.evaluation.plan import StudyPlan
    from llm_trader.evaluation.results import Metrics
    from llm_trader.progress import Progress
    from llm_trader.settings.tree import Settings

app = typer.Typer(
    invoke_without_command=True,
    subcommand_metavar="[COMMAND] [ARGS]...",
)

Plan = Annotated[
    Path | None,
    typer.Option("--plan", help="TOML file of the evaluation's plan; see config/evaluation/."),
]
Start = Annotated[
    str | None,
    typer.Option(
        "--start",
        "-s",
        help="Time of the first query: a number of days ago, or RFC 3339; by default as soon as a "
        "whole lookback is stored.",
    ),
]
End = Annotated[
    str | None,
    typer.Option("--end", "-e", help="Time of the last query: now, or RFC 3339; by default now."),
]
Step = Annotated[
    str | None, typer.Option("--step", help="Time from one query to the next, such as 15m.")
]
Vector = Annotated[
    Literal["state", "text", "hybrid", "random"] | None,
    typer.Option("--vector", help="Vectors to compare; random is a control."),
]
Lookback = Annotated[
    int | None, typer.Option("--lookback-days", help="Days before a query that are searched.")
]
Embargo = Annotated[
    float | None,
    typer.Option("--embargo-hours", help="Hours for which a point must have been known."),
]
Index = Annotated[
    Path | None,
    typer.Option("--index", help="Take vectors from this index; needed for text and hybrid."),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for the results and the trials.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Equal seeds give equal numbers.")]
Jobs = Annotated[
    int | None,
    typer.Option("--jobs", min=1, help="Number of processes; one per core by default."),
]


@app.callback()
@with_settings("store", "index")
def evaluate(
    context: typer.Context,
    settings: Settings,
    index: Index = None,
    symbols: options.StoreSymbols = "",
    start: Start = None,
    end: End = None,
    step: Step = None,
    vector: Vector = None,
    lookback_days: Lookback = None,
    embargo_hours: Embargo = None,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Also try other numbers of neighbours, gaps, lookbacks.")
    ] = False,
    plan: Plan = None,
    out: Out = Path("reports"),
    seed: Seed = None,
    jobs: Jobs = None,
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

    study_plan = _plan(
        settings,
        plan,
        symbols,
        step,
        {"vector": vector, "lookback_days": lookback_days, "embargo_hours": embargo_hours},
        start=start,
        end=end,
        seed=seed,
        sweep=DEFAULT_SWEEP if sweep else None,
    )
    with progress_bar("") as progress:
        run = _run(settings, index, out, jobs, progress)
        metrics = evaluation.evaluate(run, study_plan)
    _present(metrics, out, json)


@app.command()
@with_settings("store", "index")
def compare(
    settings: Settings,
    vectors: Annotated[
        str,
        typer.Option(
            "--vectors",
            help="Separated by commas: none, random, state, text, hybrid, prototype.",
        ),
    ] = "none,random,state,text,hybrid",
    index: Index = None,
    symbols: options.StoreSymbols = "",
    start: Start = None,
    end: End = None,
    step: Step = None,
    lookback_days: Lookback = None,
    plan: Plan = None,
    out: Out = Path("reports/compare"),
    seed: Seed = None,
    jobs: Jobs = None,
    json: options.Json = False,
) -> None:
    """Compare ways to search for neighbours on the same queries: the ablation.

    none is the volatility-rescaled base rate; random draws neighbours by chance; prototype is five
    neighbours by text that may overlap, as the prototype searched. Text vectors come from an index
    that has them: llm-trader ingest --text.
    """
    from llm_trader.app import evaluation

    names = [name.strip() for name in vectors.split(",") if name.strip()]
    search = {"lookback_days": lookback_days}
    study_plan = _plan(settings, plan, symbols, step, search, start=start, end=end, seed=seed)
    with progress_bar("") as progress:
        run = _run(settings, index, out, jobs, progress)
        metrics = evaluation.compare(run, study_plan, names)
    _present(metrics, out, json)


@app.command()
@with_settings("store", "index")
def ab(
    settings: Settings,
    arm_a: Annotated[
        str, typer.Option("--arm-a", help="The arm to compare with, such as baseline.")
    ] = "baseline",
    arm_b: Annotated[str, typer.Option("--arm-b", help="The arm to judge.")] = "rag",
    decider: Annotated[
        Literal["aggregator"],
        typer.Option("--decider", help="Decides in the arms baseline and rag."),
    ] = "aggregator",
    index: Index = None,
    symbols: options.StoreSymbols = "",
    start: Start = None,
    end: End = None,
    step: Step = None,
    vector: Vector = None,
    plan: Plan = None,
    out: Out = Path("reports/ab"),
    seed: Seed = None,
    jobs: Jobs = None,
    json: options.Json = False,
) -> None:
    """Trade two ways to decide on the same snapshots, and compare what they earn.

    baseline is the decider with the base rate of the window alone, rag adds what similar states
    say; the others are hold, random, rsi-7 and macd-sign.
    """
    from llm_trader.app import evaluation

    study_plan = _plan(
        settings,
        plan,
        symbols,
        step,
        {"vector": vector},
        start=start,
        end=end,
        seed=seed,
        decider=decider,
    )
    with progress_bar("") as progress:
        run = _run(settings, index, out, jobs, progress)
        metrics = evaluation.compare_arms(run, study_plan, arm_a, arm_b)
    _present(metrics, out, json)


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
    """They would be options of `evaluate` alone, and have no effect."""
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        if source is not None and source.name == "COMMANDLINE":
            hint = f"'{option.opts[0]}'"
            raise typer.BadParameter(f"give it after `{command}`", context, param_hint=hint)


def _plan(
    settings: Settings,
    path: Path | None,
    symbols: str,
    step: str | None,
    search: dict[str, Any],
    **flags: Any,
) -> StudyPlan:
    from llm_trader.app.evaluation import make_plan

    flags["search"] = search
    flags["symbols"] = options.symbol_list(symbols) or None
    flags["step_minutes"] = None if step is None else Timeframe.parse(step).ms // MINUTE_MS
    return make_plan(settings, path, flags)


def _run(
    settings: Settings, index: Path | None, out: Path, jobs: int | None, progress: Progress
) -> StudyRun:
    from llm_trader.app.evaluation import StudyRun

    now_ms = options.now_ms()
    return StudyRun(settings, os.environ, out, index is not None, jobs, now_ms, progress)


def _present(metrics: Metrics, out: Path, json: bool) -> None:
    from llm_trader.app.evaluation import is_trusted
    from llm_trader.cli import show_evaluation

    present(metrics, json, lambda console, value: show_evaluation.study(console, value, out))
    if not is_trusted(metrics):
        raise typer.Exit(1)
