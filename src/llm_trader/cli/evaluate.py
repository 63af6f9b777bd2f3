"""`llm-trader evaluate`: is it better than nothing?"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Option

from llm_trader.app.job import Job
from llm_trader.cli import options
from llm_trader.cli.options import with_job
from llm_trader.cli.output import Result, progress_bar
from llm_trader.errors import ConfigurationError
from llm_trader.timeframe import MINUTE_MS, Timeframe

if TYPE_CHECKING:
    from llm_trader.app.decider_studies import Estimate, Model
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


@dataclass(frozen=True)
class ModelOptions:
    """The options of studies that ask a language model."""

    provider: Annotated[
        Literal["anthropic", "openai", "openai-compatible", "replay"] | None,
        Option(
            help="Whose model is asked; replay takes its replies from the record, at no cost. "
            "[setting llm.provider]"
        ),
    ] = None
    model_name: Annotated[
        str | None,
        Option("--model", help="Model, by the name that its provider gives it."),
    ] = None
    yes: Annotated[
        bool, Option("--yes", "-y", help="Ask the model without asking for the price.")
    ] = False

    def model(self, study: Literal["ab", "reads"]) -> Model:
        from llm_trader.app.decider_studies import Model
        from llm_trader.app.llm_deciders import DeciderChoice

        return Model(DeciderChoice(self.provider, self.model_name), options.now_ms, study)

    def approve(self, estimate: Estimate) -> None:
        """Raises `ConfigurationError` where nobody can be asked."""
        from llm_trader.cli.show_reads import price_in_words

        text = price_in_words(estimate)
        typer.echo(text, err=True)
        if self.yes or not estimate.expected_usd:
            return
        if not sys.stdin.isatty():
            raise ConfigurationError(f"nobody agreed to the price: {text}; give --yes to pay it")
        typer.confirm("Go on?", abort=True, err=True)


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
@with_job("store", "index", "record")
def ab(
    job: Job,
    study: StudyOptions,
    model: ModelOptions,
    arm_a: Annotated[str, Option(help="The reference arm, such as baseline.")] = "baseline",
    arm_b: Annotated[str, Option(help="The arm to compare, such as rag.")] = "rag",
    decider: Annotated[
        Literal["aggregator", "llm"], Option(help="Decides in the arms baseline and rag.")
    ] = "aggregator",
    masked: Annotated[
        bool,
        Option(
            "--masked",
            help="Also ask a model without symbol and price level: does it remember the time?",
        ),
    ] = False,
    account_usd: Annotated[
        float | None,
        Option(min=1, help="Account that the price of a model's decisions is paid from, US $."),
    ] = None,
    vector: Vector = None,
    out: Out = Path("reports/ab"),
) -> Result:
    """Trade two ways to decide on the same snapshots, and compare what they earn.

    baseline is the decider with the base rate of the window alone, rag adds what similar states
    say; the others are hold, random, rsi-7 and macd-sign.

    With --decider llm a language model decides: rag has the evidence in its prompt, baseline is the
    same prompt without. Every state is asked about, so choose --step, such as 4h. The price is
    estimated before, and asked for unless --yes. What is on record is not asked again: an
    interrupted study resumes when the command is run again.
    """
    with progress_bar("") as progress:
        job = job._replace(progress=progress)
        plan = _plan(job, study, {"vector": vector}, decider=decider, account_usd=account_usd)
        inputs = _inputs(job, study, out)
        if decider == "aggregator":
            from llm_trader.app import evaluation

            return _result(evaluation.compare_arms(inputs, plan, arm_a, arm_b), out)
        from llm_trader.app import decider_studies

        asked = model.model("ab")
        decider_studies.check_model(job, asked)
        prepared = decider_studies.prepare_ab(inputs, plan, arm_a, arm_b, masked=masked)
    model.approve(decider_studies.estimate_cost(job, asked, prepared.asks))
    with progress_bar("") as progress:
        prepared = prepared.with_progress(progress)
        made = decider_studies.decide(prepared.inputs.job, asked, prepared.asks)
        return _result(decider_studies.run_ab(prepared, asked, made), out)


@app.command()
@with_job("store", "index", "record")
def reads(
    job: Job,
    study: StudyOptions,
    model: ModelOptions,
    decider: Annotated[
        Literal["llm", "aggregator", "rsi-7", "macd-sign"],
        Option(help="Who decides: a language model, or a rule, which costs nothing."),
    ] = "llm",
    states: Annotated[int, Option(min=1, help="States to decide on, five times each.")] = 200,
    masked: Annotated[
        bool, Option("--masked", help="Hide symbol and price level in every prompt.")
    ] = False,
    vector: Vector = None,
    out: Out = Path("reports/reads"),
) -> Result:
    """Does a decider read its evidence, or would it decide the same without?

    It decides on the same states with the evidence as it was, once more with the same, with the
    outcomes inverted, with another state's evidence, and with none. The verdict is `reads it` if
    decisions move to the side of the inverted evidence, as they do not when the same is asked
    again; `ignores it` if they surely hardly change; else `cannot tell`. A decider that follows the
    evidence and a rule that never sees it are judged beside it; if one of them gets the wrong
    verdict, nothing counts and the exit code is 1.

    Writes reads.json and report.html. The price is estimated before, and asked for unless --yes.
    """
    from llm_trader.app import decider_studies

    asked = model.model("reads")
    if decider == "llm":
        decider_studies.check_model(job, asked)
    with progress_bar("") as progress:
        inputs = _inputs(job._replace(progress=progress), study, out)
        plan = _plan(job, study, {"vector": vector})
        prepared = decider_studies.prepare_reads(inputs, plan, states, masked=masked)
    if decider == "llm":
        model.approve(decider_studies.estimate_cost(job, asked, prepared.asks))
        with progress_bar("") as progress:
            made = decider_studies.decide(job._replace(progress=progress), asked, prepared.asks)
        metrics = decider_studies.run_reads(prepared, asked, made, masked=masked)
    else:
        made = decider_studies.decide_by_rule(decider, plan, prepared.asks)
        metrics = decider_studies.run_reads(prepared, decider, made, masked=masked)
    from llm_trader.cli.show_reads import describe_reads

    return Result(metrics, describe_reads(metrics, out), not metrics.trusted)


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
