"""All commands under one roof, and what a person sees when something goes wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

# One query is one small matrix product: BLAS threads would only wait for each other. Set before
# NumPy is loaded, and only where nobody has chosen otherwise.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import typer

from llm_trader import __version__
from llm_trader.cli import data
from llm_trader.cli.demo import demo
from llm_trader.cli.ingest import ingest
from llm_trader.cli.leaks import leak_check
from llm_trader.cli.query import query
from llm_trader.cli.serve import serve
from llm_trader.errors import LlmTraderError

_STYLE: dict[str, Any] = {
    "add_completion": False,
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}

app = typer.Typer(
    no_args_is_help=True,
    help="When the market looked like this before, what followed, and how far can I trust that?",
    **_STYLE,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"llm-trader-rag {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    pass


app.add_typer(data.app, name="data")
app.command()(ingest)
app.command()(serve)
app.command()(query)
app.command("leak-check")(leak_check)
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
    """Errors raised on purpose become one line and exit code 2; Ctrl-C becomes 130."""
    try:
        command()
    except LlmTraderError as error:
        sys.stderr.write(f"error: {error.message}\n")
        for problem in error.details.get("data") or ():
            sys.stderr.write(f"  {problem}\n")
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; nothing is lost, run it again to go on\n")
        raise SystemExit(130) from None
    except BrokenPipeError:
        # Whoever read the output has seen enough (`| head`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
