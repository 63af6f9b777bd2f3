"""`llm-trader evaluate`: is it better than nothing?"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from llm_trader.cli import options

if TYPE_CHECKING:
    from llm_trader.app.evaluation import Ask
    from llm_trader.evaluation.plan import StudyPlan
    from llm_trader.evaluation.study import Study
    from llm_trader.settings.tree import Settings

app = typer.Typer(
    invoke_without_command=True,
    subcommand_metavar="[COMMAND] [ARGS]...",
)

Plan = Annotated[
    Path | None,
    typer.Option("--config", help="TOML file of the evaluation; see config/evaluation/."),
]
Symbols = Annotated[
    str, typer.Option("--symbols", help="Separated by commas; all of the store if left out.")
]
Start = Annotated[
    str | None,
    typer.Option(
        "--start",
        "-s",
        help="First time asked about: days ago, or RFC 3339; if left out, as soon as a whole "
        "lookback is known.",
    ),
]
End = Annotated[
    str | None, typer.Option("--end", "-e", help="Last time asked about: now, or RFC 3339.")
]
Step = Annotated[str | None, typer.Option("--step", help="From one query to the next, as in 15m.")]
Vector = Annotated[
    Literal["state", "text", "hybrid", "random"] | None,
    typer.Option("--vector", help="What is compared: state, text, hybrid, or random as a control."),
]
Lookback = Annotated[
    int | None, typer.Option("--lookback-days", help="Days before a query that are searched.")
]
Embargo = Annotated[
    float | None,
    typer.Option("--embargo-hours", help="Hours that a point must have been known for."),
]
Index = Annotated[
    Path | None,
    typer.Option("--index", help="Take vectors from this index; needed for text and hybrid."),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder of the results and of the trials.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Equal seeds give equal numbers.")]
Jobs = Annotated[
    int | None, typer.Option("--jobs", min=1, help="Processes; as many as cores if left out.")
]


@app.callback()
def evaluate(
    context: typer.Context,
    store: options.Store = None,
    index: Index = None,
    symbols: Symbols = "",
    start: Start = None,
    end: End = None,
    step: Step = None,
    vector: Vector = None,
    lookback_days: Lookback = None,
    embargo_hours: Embargo = None,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Also try other numbers of neighbours, gaps, lookbacks.")
    ] = False,
    config: Plan = None,
    out: Out = Path("reports"),
    seed: Seed = None,
    jobs: Jobs = None,
    json: options.Json = False,
) -> None:
    """Walk through the past and judge every forecast: is it better than the base rate?

    At each step the neighbours are found that a server would have found then, and what followed
    is compared with what they said. Controls of which the answer is known run every time; with
    one that fails, or a trace of the future, nothing counts and the exit code is 1.

    Writes metrics.json, steps.csv, trades.csv and report.html, which needs no network. Every
    configuration tried is kept in the folder trials beside them, and counted.
    """
    if context.invoked_subcommand is not None:
        _refuse_options_before(context, context.invoked_subcommand)
        return
    from llm_trader.evaluation import study
    from llm_trader.evaluation.plan import DEFAULT_SWEEP

    settings = _settings(store, index)
    plan = _plan(
        settings,
        config,
        symbols=symbols,
        start=start,
        end=end,
        step=step,
        vector=vector,
        lookback_days=lookback_days,
        embargo_hours=embargo_hours,
        seed=seed,
        sweep=DEFAULT_SWEEP if sweep else None,
    )
    made = _made(
        settings,
        plan,
        lambda subject, running: study.evaluate(subject, plan, running),
        out=out,
        indexed=index is not None,
        jobs=jobs,
    )
    _tell(made, out, json)


@app.command()
def compare(
    vectors: Annotated[
        str,
        typer.Option(
            "--vectors",
            help="Separated by commas: none, random, state, text, hybrid, prototype.",
        ),
    ] = "none,random,state,text,hybrid",
    store: options.Store = None,
    index: Index = None,
    symbols: Symbols = "",
    start: Start = None,
    end: End = None,
    step: Step = None,
    lookback_days: Lookback = None,
    config: Plan = None,
    out: Out = Path("reports/compare"),
    seed: Seed = None,
    jobs: Jobs = None,
    json: options.Json = False,
) -> None:
    """Compare ways to look for neighbours on the same queries: the ablation.

    none is the base rate, treated alike; random are neighbours drawn by chance; prototype is five
    neighbours by text, overlapping ones too, as they were. Text vectors come from an index that
    has them: llm-trader ingest --text.
    """
    from llm_trader.evaluation import study

    names = [name.strip() for name in vectors.split(",") if name.strip()]
    settings = _settings(store, index)
    plan = _plan(
        settings,
        config,
        symbols=symbols,
        start=start,
        end=end,
        step=step,
        lookback_days=lookback_days,
        seed=seed,
    )
    made = _made(
        settings,
        plan,
        lambda subject, running: study.compare(subject, plan, names, running),
        vectors=names,
        out=out,
        indexed=index is not None,
        jobs=jobs,
    )
    _tell(made, out, json)


@app.command()
def ab(
    arm_a: Annotated[
        str, typer.Option("--arm-a", help="The one that is compared with, such as baseline.")
    ] = "baseline",
    arm_b: Annotated[str, typer.Option("--arm-b", help="The one that is judged.")] = "rag",
    decider: Annotated[
        Literal["aggregator"],
        typer.Option("--decider", help="Who decides in the arms baseline and rag."),
    ] = "aggregator",
    store: options.Store = None,
    index: Index = None,
    symbols: Symbols = "",
    start: Start = None,
    end: End = None,
    step: Step = None,
    vector: Vector = None,
    config: Plan = None,
    out: Out = Path("reports/ab"),
    seed: Seed = None,
    jobs: Jobs = None,
    json: options.Json = False,
) -> None:
    """Trade two ways to decide on the same snapshots, and compare what they earn.

    baseline is the decider with the base rate of the window alone, rag with what similar states
    say; others are hold, random, rsi-7 and macd-sign.
    """
    from llm_trader.evaluation import study

    study.refuse_arms(arm_a, arm_b)
    settings = _settings(store, index)
    plan = _plan(
        settings,
        config,
        symbols=symbols,
        start=start,
        end=end,
        step=step,
        vector=vector,
        seed=seed,
        decider=decider,
    )
    made = _made(
        settings,
        plan,
        lambda subject, running: study.ab(subject, plan, arm_a, arm_b, running),
        out=out,
        indexed=index is not None,
        jobs=jobs,
    )
    _tell(made, out, json)


@app.command()
def gate(
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
    store: options.Store = None,
    index: Index = None,
    out: Out = Path("reports/gate"),
    jobs: Jobs = None,
    json: options.Json = False,
) -> None:
    """Evaluate again what a baseline evaluated, and exit with 1 if it got worse, or leaks.

    Same plan, symbols and time. A regression is a skill that fell by more than the tolerance, or
    a verdict that got worse; a control or a leak probe that fails stops the gate as well.
    """
    from llm_trader.cli import show_evaluation
    from llm_trader.evaluation import study
    from llm_trader.evaluation.verdict.gate import (
        compare_with_baseline,
        plan_of_same_queries,
        read_metrics,
    )

    then = read_metrics(baseline)
    if metrics is None:
        settings, plan = _settings(store, index), plan_of_same_queries(then)
        made = _made(
            settings,
            plan,
            lambda subject, running: study.evaluate(subject, plan, running),
            out=out,
            indexed=index is not None,
            jobs=jobs,
        )
        now = made.metrics
    else:
        now = read_metrics(metrics)
    report = compare_with_baseline(then, now, tolerance / 100)
    if json:
        options.print_json(report)
    else:
        show_evaluation.gate_report(options.tables(), report)
    if not report.passed:
        raise typer.Exit(1)


def _refuse_options_before(context: typer.Context, command: str) -> None:
    """They would be options of `evaluate` alone, and go unheard."""
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        if source is not None and source.name == "COMMANDLINE":
            hint = f"'{option.opts[0]}'"
            raise typer.BadParameter(f"give it after `{command}`", context, param_hint=hint)


def _settings(store: Path | None, index: Path | None) -> Settings:
    return options.settings_of(None, market__store=store, index__path=index, logging__level="warn")


def _plan(
    settings: Settings,
    config: Path | None,
    *,
    symbols: str,
    step: str | None,
    vector: str | None = None,
    lookback_days: int | None = None,
    embargo_hours: float | None = None,
    decider: str | None = None,
    **given: Any,
) -> StudyPlan:
    from llm_trader.app.evaluation import plan_of
    from llm_trader.timeframe import MINUTE_MS, Timeframe

    search = {
        "vector": vector,
        "lookback_days": lookback_days,
        "embargo_hours": embargo_hours,
    }
    step_minutes = None if step is None else Timeframe.parse(step).ms // MINUTE_MS
    named = options.symbol_list(symbols) or None
    return plan_of(
        settings,
        config,
        {
            "symbols": named,
            "search": search,
            "step_minutes": step_minutes,
            "decider": decider,
            **given,
        },
    )


def _made(
    settings: Settings,
    plan: StudyPlan,
    ask: Ask,
    *,
    vectors: Sequence[str] = (),
    out: Path,
    indexed: bool,
    jobs: int | None,
) -> Study:
    from llm_trader.app.evaluation import study_of
    from llm_trader.evaluation.result_files import refuse_unwritable, write_study

    refuse_unwritable(out)
    with options.progress_bar("") as bar:
        reading, working = options.PerSymbol(bar), options.PerSymbol(bar)
        made = study_of(
            settings,
            os.environ,
            plan,
            ask,
            vectors=vectors,
            out=out,
            indexed=indexed,
            jobs=jobs,
            now_ms=options.now_ms(),
            reading=lambda symbol, *of: reading(f"{symbol}, reading", *of),
            working=working,
        )
    write_study(made, out)
    return made


def _tell(made: Study, out: Path, json: bool) -> None:
    from llm_trader.cli import show_evaluation
    from llm_trader.evaluation.verdict.trust import assess_trust

    if json:
        options.print_json(made.metrics)
    else:
        show_evaluation.study(options.tables(), made.metrics, out)
    if assess_trust(made.metrics).lost:
        raise typer.Exit(1)
