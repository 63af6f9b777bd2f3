"""All commands, and the messages that a person sees if one fails."""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Final

# A query is one small matrix product, in which BLAS threads would only wait for each other. This
# must come before the import of NumPy, and respects a choice of the user.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import typer
from typer import Option

from llm_trader import __version__
from llm_trader.cli import (
    audit,
    backup,
    config,
    data_store,
    decisions,
    evaluate,
    forecasts,
    index,
    keys,
    models,
    volatility,
    workflow,
)
from llm_trader.cli.account import kill_app, ledger_app, orders, positions, status
from llm_trader.cli.assistants import mcp, receipt_app
from llm_trader.cli.decide import decide, prompt_app, replay
from llm_trader.cli.demo import demo
from llm_trader.cli.flag_names import in_flags
from llm_trader.cli.letters import write_what_the_terminal_can
from llm_trader.cli.pipeline import calibrate, ingest, leak_check, query, serve
from llm_trader.errors import InvalidInputError, LlmTraderError, printable

# The exit codes of shells: 128 plus the number of the signal, SIGINT and SIGPIPE.
_INTERRUPTED: Final = 130
_UNREAD: Final = 141
_LONGEST_ARGUMENT: Final = 4096  # the longest path of Linux

# Words of the commands that go on where they were interrupted.
_RESUMING: Final = frozenset(
    {
        *("rag-ingest", "ingest", "rebuild", "migrate"),
        *("import", "fetch", "archive", "export", "prune"),
        *("decide", "reads", "ab"),
    }
)
# Wider lines are hard to read.
_HELP_COLUMNS: Final = 120

_STYLE: dict[str, Any] = {
    "add_completion": False,
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
    "context_settings": {
        "help_option_names": ["-h", "--help"],
        "max_content_width": _HELP_COLUMNS,
    },
}

app = typer.Typer(
    no_args_is_help=True,
    help="When the market looked like this before, what followed, and how far can I trust that?",
    **_STYLE,
)


def _print_version(is_given: bool) -> None:
    if is_given:
        typer.echo(f"llm-trader-rag {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, Option("--version", help="Show the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


app.add_typer(data_store.app, name="data")
app.add_typer(index.app, name="index")
app.add_typer(models.app, name="models")
app.add_typer(backup.app, name="backup")
app.add_typer(volatility.app, name="volatility")
app.add_typer(keys.app, name="keys")
app.add_typer(audit.app, name="audit")
app.add_typer(forecasts.app, name="forecasts")
app.command()(ingest)
app.command()(serve)
app.command()(query)
app.command("leak-check")(leak_check)
app.command()(decide)
app.add_typer(decisions.app, name="decisions")
app.command()(replay)
app.add_typer(prompt_app, name="prompt")
app.add_typer(workflow.app, name="workflow")
app.command()(positions)
app.command()(orders)
app.add_typer(ledger_app, name="ledger")
app.add_typer(kill_app, name="kill")
app.command()(status)
app.add_typer(evaluate.app, name="evaluate")
app.command()(calibrate)
app.command()(mcp)
app.add_typer(receipt_app, name="receipt")
app.add_typer(config.app, name="config")
app.command()(demo)


def main() -> None:
    _run(app)


def rag_ingest() -> None:
    _run(_alone(ingest))


def rag_rpc_server() -> None:
    _run(_alone(serve))


def _alone(command: Callable[..., None]) -> typer.Typer:
    single = typer.Typer(**_STYLE)
    single.command()(command)
    return single


def _run(command: typer.Typer) -> None:
    """Turns errors raised on purpose into a line and exit code 2, and Ctrl-C into 130.

    Typer itself turns Ctrl-C and a closed output (`| head`) into an exit.
    """
    write_what_the_terminal_can()
    try:
        _refuse_unprintable(sys.argv[1:])
        command()
    except LlmTraderError as error:
        lines = [f"error: {error.message}"]
        lines += (f"  {printable(line)}" for line in _explained(error.details.get("data")))
        text = "\n".join(lines)
        # A server speaks of parameters, and a person types flags.
        sys.stderr.write(f"{in_flags(text) if 'rpc_code' in error.details else text}\n")
        raise SystemExit(2) from None
    except SystemExit as ended:
        if ended.code == _INTERRUPTED:
            resumes = _RESUMING.intersection([Path(sys.argv[0]).name, *sys.argv[1:3]])
            kept = "finished work is kept, run the command again"
            sys.stderr.write(f"interrupted; {kept if resumes else 'nothing was changed'}\n")
        elif isinstance(ended.__context__, BrokenPipeError) or not _all_was_read():
            raise SystemExit(_UNREAD) from None
        raise


def _refuse_unprintable(arguments: list[str]) -> None:
    """The parser of the command line repeats what it does not know, whatever it does to a terminal.

    Names of files may have bytes that are not UTF-8; Python shows them escaped.
    """
    for number, argument in enumerate(arguments, 1):
        if any(unicodedata.category(c) == "Cc" and c not in "\n\t" for c in argument):
            raise InvalidInputError(f"argument {number} has control characters: {argument!r}")
        if len(argument) > _LONGEST_ARGUMENT:
            raise InvalidInputError(
                f"argument {number} has {len(argument)} characters, more than any name or path"
            )


def _all_was_read() -> bool:
    """Whether the rest of the output finds a reader; otherwise it is dropped."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


def _explained(data: Any) -> Iterator[str]:
    """The details of a server's error, as lines."""
    if isinstance(data, dict):
        for refused in data.get("errors", ()):
            yield f"{refused['field']} {refused['error']}".strip()
        for unknown in data.get("unknown_fields", ()):
            yield f"unknown: {unknown}"
        if "suggestion" in data:
            yield data["suggestion"]
