"""`llm-trader query`: one question over the socket, as a readable table."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llm_trader.cli import options, show_answer
from llm_trader.cli.output import present
from llm_trader.cli.setting_flags import with_settings
from llm_trader.timeframe import parse_end

if TYPE_CHECKING:
    from llm_trader.settings.tree import Settings


@dataclass(frozen=True)
class QueryOptions:
    """The query's configuration, by the names of `query_config`."""

    top_k: Annotated[
        int | None,
        typer.Option("--top-k", help="Number of matches, 1 to 50; the server's default if absent."),
    ] = None
    lookback_days: Annotated[
        int | None,
        typer.Option(
            "--lookback-days", help="Days to look back, 1 to 365; the server's default if absent."
        ),
    ] = None
    min_similarity: Annotated[
        float | None,
        typer.Option(
            "--min-similarity",
            help="Least similarity of a match, 0 to 1; the server's default if absent.",
        ),
    ] = None
    include_regime_filters: Annotated[
        bool | None,
        typer.Option(
            "--regime-filters/--no-regime-filters",
            help="Search only states of the same open-interest and funding regime.",
        ),
    ] = None
    vector: Annotated[
        str | None,
        typer.Option("--vector", help="Vectors to compare: state, text or hybrid."),
    ] = None


@with_settings("host", "port", "auth_tokens_env")
def query(
    symbol: Annotated[str, typer.Option("--symbol", help="Symbol, such as BTCUSDT.")],
    settings: Settings,
    choices: QueryOptions,
    as_of: Annotated[
        str, typer.Option("--at", help="Time of the query: now, or RFC 3339.")
    ] = "now",
    state: Annotated[
        Path | None,
        typer.Option(
            "--state", help="JSON file of the state; by default the server's store gives it."
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Ask a running server: when the market looked like this before, what followed?

    It uses only states whose outcome was known at the query's time. Start the server first, with
    rag-rpc-server.
    """
    from llm_trader.app.queries import query_server

    as_of_ms = parse_end(as_of, options.now_ms())
    reply = query_server(settings, os.environ, symbol.upper(), as_of_ms, asdict(choices), state)
    present(reply.answer, json, lambda console, _: show_answer.reply(console, reply))
