"""`llm-trader evaluate`: is it better than nothing?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Option

from llm_trader.app.job import Job
from llm_trader.cli import options
from llm_trader.cli.options import with_job
from llm_trader.cli.output import Result
from llm_trader.timeframe import MINUTE_MS, Timeframe

if TYPE_CHECKING:
    from llm_trader.app.evaluation import StudyInputs
    from llm_trader.evaluation.plan import StudyPlan
    from llm_trader.evaluation.results import Metrics

app = typer.Typer(invoke_without_command=True, subcommand_metavar="[COMMAND] [ARGS]...")

Vector = Annotated[
    Literal["state", "text", "hybrid", "random"] | None,
    Option(help="Vectors to compare; random is a control."),
]
Lookback = Annotated[int | None, Option(help="Days before a query that are searched.")]
Out = Annotated[Path, Option("--out", "-o", help="Folder for the results and the trials.")]
Index = Annotated[
    Path | None, Option(help="Take vectors from this index; needed for text and hybrid.")
]
Jobs = Annotated[int | None, Option(min=1, help="Number of processes; one per core by default.")]


@dataclass(frozen=True)
class StudyOptions:
    """The options that all studies share."""

    index: Index = None
    symbols: options.StoreSymbols = ""
    start: Annotated[
        str | None,
        Option(
            "--start",
            "-s",
            help="Time of the first query: a number of days before the last one, or RFC 3339; by "
            "default one lookback after the start of the data.",
        ),
    ] = None
    end: Annotated[
        str | None,
        Option(
            "--end",
            "-e",
            help="Time of the last query: latest (the end of the data, the default), or RFC 3339.",
        ),
    ] = None
    step: Annotated[
        str | None,
        Option(help="Time between queries, such as 15m; by default that of the snapshots."),
    ] = None
    plan: Annotated[
        Path | None, Option(help="TOML file of the evaluation's plan; see config/evaluation/.")
    ] = None
    seed: Annotated[int | None, Option(help="Equal seeds give equal numbers.")] = None
    jobs: Jobs = None


@app.callback()
@with_job("store", "index", unit="")
def evaluate(
    context: typer.Context,
    job: Job,
    study: StudyOptions,
    vector: Vector = None,
    lookback_days: Lookback = None,
    embargo_hours: Annotated[
        float | None, Option(help="Hours for which a point must have been known.")
    ] = None,
    sweep: Annotated[
        bool, Option("--sweep", help="Also try other numbers of neighbours, gaps, lookbacks.")
    ] = False,
    out: Out = Path("reports"),
) -> Result | None:
    """Walk through the past and judge every forecast: is it better than a volatility model?

    At each step the search finds the neighbours that a server would have found then, and compares
    their forecast with what followed. Controls with a known answer run every time; if one fails,
    or a trace of the future is found, nothing counts and the exit code is 1.

    Writes metrics.json, steps.csv, trades.csv and report.html, which needs no network. Every
    configuration tried is kept in the folder trials beside them, and counted.
    """
    if context.invoked_subcommand is not None:
        _refuse_options_before(context, context.invoked_subcommand)
        return None
    from llm_trader.app import evaluation
    from llm_trader.evaluation.plan import DEFAULT_SWEEP

    search = {"vector": vector, "lookback_days": lookback_days, "embargo_hours": embargo_hours}
    plan = _plan(job, study, search, sweep=DEFAULT_SWEEP if sweep else None)
    return _result(evaluation.evaluate(_inputs(job, study, out), plan), out)


@app.command()
@with_job("store", "index", unit="")
def compare(
    job: Job,
    study: StudyOptions,
    vectors: Annotated[
        str, Option(help="Separated by commas: none, random, state, text, hybrid, prototype.")
    ] = "none,random,state,text,hybrid",
    lookback_days: Lookback = None,
    out: Out = Path("reports/compare"),
) -> Result:
    """Compare ways to search for neighbours on the same queries: the ablation.

    none is the volatility model alone; random draws neighbours by chance; prototype is five
    neighbours by text that may overlap, as the prototype searched. Text vectors come from an index
    that has them: llm-trader ingest --text.
    """
    from llm_trader.app import evaluation

    names = [name.strip() for name in vectors.split(",") if name.strip()]
    plan = _plan(job, study, {"lookback_days": lookback_days})
    return _result(evaluation.compare(_inputs(job, study, out), plan, names), out)


@app.command()
@with_job("store", "index", unit="")
def ab(
    job: Job,
    study: StudyOptions,
    arm_a: Annotated[str, Option(help="The reference arm, such as baseline.")] = "baseline",
    arm_b: Annotated[str, Option(help="The arm to compare, such as rag.")] = "rag",
    decider: Annotated[
        Literal["aggregator"], Option(help="Decides in the arms baseline and rag.")
    ] = "aggregator",
    vector: Vector = None,
    out: Out = Path("reports/ab"),
) -> Result:
    """Trade two ways to decide on the same snapshots, and compare what they earn.

    baseline is the decider with the base rate of the window alone, rag adds what similar states
    say; the others are hold, random, rsi-7 and macd-sign.
    """
    from llm_trader.app import evaluation

    plan = _plan(job, study, {"vector": vector}, decider=decider)
    return _result(evaluation.compare_arms(_inputs(job, study, out), plan, arm_a, arm_b), out)


@app.command()
@with_job("store", unit="")
def judge(
    job: Job,
    forecasts: Annotated[
        Path,
        Option(
            help="CSV or Parquet file with symbol, time, horizon, and quantiles q10, q50, q90, ... "
            "or samples s1, s2, ... in % change.",
            show_default=False,
        ),
    ],
    lookback_days: Lookback = None,
    seed: Annotated[int | None, Option(help="Equal seeds give equal numbers.")] = None,
    jobs: Jobs = None,
    out: Out = Path("reports/judge"),
) -> Result:
    """Judge anybody's forecasts: a model of your own, a foundation model, a signal.

    The same references, scores, controls and verdict as of this program's own forecast, which
    stands beside them. A row holds what was forecast at its time for one symbol and horizon (15m,
    1h, 4h or 24h), such as: BTCUSDT,2026-03-20T12:00:00Z,1h,-0.5,0.0,0.6 under
    symbol,time,horizon,q10,q50,q90. The store holds the candles, one lookback before the first
    forecast included.
    """
    from llm_trader.app import evaluation
    from llm_trader.app.evaluation import StudyInputs

    flags = {"search": {"lookback_days": lookback_days}, "seed": seed}
    return _result(evaluation.judge(StudyInputs(job, out, False, jobs), forecasts, flags), out)


@app.command()
@with_job("store", "index", unit="")
def gate(
    job: Job,
    baseline: Annotated[
        Path, Option(help="metrics.json of an earlier evaluation.", show_default=False)
    ],
    metrics: Annotated[
        Path | None, Option(help="Judge this metrics.json instead of evaluating anew.")
    ] = None,
    # Rounding of another machine or library moves a skill by less; a lost feature costs more.
    tolerance: Annotated[
        float, Option(min=0, max=100, help="Percentage points of skill that may be lost.")
    ] = 0.2,
    index: Index = None,
    out: Out = Path("reports/gate"),
    jobs: Jobs = None,
) -> Result:
    """Evaluate again what a baseline evaluated, and exit with 1 if it got worse, or leaks.

    Same plan, symbols and time. A regression is a skill that fell by more than the tolerance, or
    a verdict that got worse; a control or a leak probe that fails stops the gate as well.
    """
    from llm_trader.app.evaluation import StudyInputs, pass_gate
    from llm_trader.cli.show_evaluation import describe_gate

    inputs = StudyInputs(job, out, index is not None, jobs)
    report = pass_gate(inputs, baseline, metrics, tolerance)
    return Result(report, describe_gate(report), not report.passed)


def _refuse_options_before(context: typer.Context, command: str) -> None:
    """Options before the name of a subcommand would have no effect."""
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        if source is not None and source.name == "COMMANDLINE":
            hint = f"'{option.opts[0]}'"
            raise typer.BadParameter(f"give it after `{command}`", context, param_hint=hint)


def _plan(job: Job, study: StudyOptions, search: dict[str, Any], **flags: Any) -> StudyPlan:
    from llm_trader.app.evaluation import make_plan

    flags |= {"search": search, "start": study.start, "end": study.end, "seed": study.seed}
    flags["symbols"] = options.symbol_list(study.symbols) or None
    if study.step is not None:
        flags["step_minutes"] = Timeframe.parse(study.step).ms // MINUTE_MS
    return make_plan(job.settings, study.plan, flags)


def _inputs(job: Job, study: StudyOptions, out: Path) -> StudyInputs:
    from llm_trader.app.evaluation import StudyInputs

    return StudyInputs(job, out, study.index is not None, study.jobs)


def _result(metrics: Metrics, out: Path) -> Result:
    from llm_trader.cli.show_evaluation import describe_study
    from llm_trader.evaluation.verdict.verdicts import assess_trust

    return Result(metrics, describe_study(metrics, out), assess_trust(metrics).lost)
