"""`llm-trader decide`, `replay` and `prompt`: a decision, the same again, and what is asked."""

from __future__ import annotations

from typing import Annotated, Literal

import typer
from typer import Argument, Option

from llm_trader.app.job import Job
from llm_trader.cli import options
from llm_trader.cli.options import with_job
from llm_trader.cli.output import Result
from llm_trader.timeframe import LATEST, Millis, parse_end

prompt_app = typer.Typer(no_args_is_help=True, help="The prompts of decisions: show one.")

_PLACES = ("store", "index", "qdrant_url", "vector")

At = Annotated[
    str,
    Option("--at", help="Time of the state: latest (the end of the data), now, or RFC 3339."),
]
Arm = Annotated[
    Literal["rag", "baseline"] | None,
    Option(
        help="rag shows the model what followed similar states, baseline is the same prompt "
        "without that. [setting decisions.arm, default rag]",
    ),
]
Model = Annotated[
    str | None, Option(help="Model, by the name that its provider gives it. [setting llm.model]")
]
Mask = Annotated[
    bool,
    Option("--masked", help="Hide symbol and price level, so that no model can remember the time."),
]


@with_job(*_PLACES, "record")
def decide(
    symbol: options.OneSymbol,
    job: Job,
    at: At = LATEST,
    provider: Annotated[
        Literal["anthropic", "openai", "openai-compatible", "replay", "aggregator"] | None,
        Option(
            help="Who decides: a model of anthropic, openai, or of any address that speaks "
            "OpenAI's chat completions; replay takes a model's replies from the record; aggregator "
            "follows similar states by fixed rules. [setting llm.provider]",
        ),
    ] = None,
    model: Model = None,
    arm: Arm = None,
    mask: Mask = False,
    ask_again: Annotated[
        bool,
        Option("--ask-again", help="Ask also where the record has a reply; it is paid again."),
    ] = False,
) -> Result:
    """Decide LONG, SHORT or HOLD, and show the evidence, the cost and the record of it.

    It reads the state from the store and the evidence from the index, so no server needs to run. A
    model needs a key: set ANTHROPIC_API_KEY or OPENAI_API_KEY. Without a key the aggregator
    decides. A HOLD says why it is one: the model chose it, an error prevented a decision, or a
    guard refused one, because data are stale. Every call is recorded before it is made: the
    same question is answered from the record, at no cost.

    Nothing is executed. Exits with 1 if an error prevented a decision.
    """
    from llm_trader.app.decisions import decide as make_decision
    from llm_trader.app.llm_deciders import DeciderChoice
    from llm_trader.cli.show_decisions import describe_decision

    choice = DeciderChoice(provider, model, arm, mask, not ask_again)
    name = options.one_symbol(symbol)
    report = make_decision(job, name, _time(at, job.now_ms), choice, options.now_ms)
    failed = report.decision.decision.hold_reason == "error"
    return Result(report, describe_decision(report), failed)


@with_job("record")
def replay(
    number: Annotated[
        int, Argument(metavar="ID", help="Number of the decision, as it was shown.", min=1)
    ],
    job: Job,
) -> Result:
    """Make a recorded decision again, byte for byte and at no cost, and say what differs.

    The prompt is rendered again from the recorded state and evidence, and the recorded replies are
    read again. Exits with 1 if the decision is another one.
    """
    from llm_trader.app.decisions import replay as replay_decision
    from llm_trader.cli.show_decisions import describe_replay

    report = replay_decision(job, number)
    return Result(report, describe_replay(report), not report.is_same)


@prompt_app.callback()
def _group() -> None:
    pass


@prompt_app.command("show")
@with_job(*_PLACES)
def show_prompt(
    symbol: options.OneSymbol,
    job: Job,
    at: At = LATEST,
    provider: Annotated[
        Literal["anthropic", "openai", "openai-compatible"] | None,
        Option(help="Whose model would be asked. [setting llm.provider, default anthropic]"),
    ] = None,
    model: Model = None,
    arm: Arm = None,
    mask: Mask = False,
) -> Result:
    """Show what a model would be asked about a state and what that would cost, without asking it.

    Needs no key.
    """
    from llm_trader.app.decisions import show_prompt as render
    from llm_trader.app.llm_deciders import DeciderChoice
    from llm_trader.cli.show_decisions import describe_prompt

    choice = DeciderChoice(provider, model, arm, mask)
    shown = render(job, options.one_symbol(symbol), _time(at, job.now_ms), choice)
    return Result(shown, describe_prompt(shown))


def _time(at: str, now_ms: Millis) -> Millis | None:
    return None if at == LATEST else parse_end(at, now_ms)
