"""`llm-trader serve`, also called `rag-rpc-server`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from llm_trader.cli import options


def serve(
    host: Annotated[
        str | None,
        typer.Option("--host", help="Address to listen on. [setting serving.host]"),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", "-p", help="TCP port; 0 takes a free one. [serving.port]"),
    ] = None,
    store: options.Store = None,
    index: options.Index = None,
    qdrant_url: options.QdrantUrl = None,
    vector: options.Vector = None,
    min_matches: Annotated[
        int | None,
        typer.Option("--min-matches", help="Fewer matches are an error. [serving.min_matches]"),
    ] = None,
    auth_tokens_env: Annotated[
        str | None,
        typer.Option(
            "--auth-tokens-env", help="Environment variable that holds the accepted tokens."
        ),
    ] = None,
    allow_unauthenticated_remote: Annotated[
        bool | None,
        typer.Option(
            "--allow-unauthenticated-remote",
            help="Listen beyond this machine without asking for a token.",
        ),
    ] = None,
    config: options.Config = None,
    log_level: options.LogLevel = None,
) -> None:
    """Answer queries over JSON-RPC 2.0, one document per line, until SIGTERM or Ctrl-C.

    Methods: rag.query_patterns, rag.get_snapshot, rag.stats, rpc.ping, rpc.discover. The index is
    re-read while something is being ingested. With a market store, queries may leave out their
    state, and states sent in part are completed.
    """
    from llm_trader.app.server import serve_forever

    settings = options.settings_of(
        config,
        serving__host=host,
        serving__port=port,
        serving__min_matches=min_matches,
        serving__auth_tokens_env=auth_tokens_env,
        serving__allow_unauthenticated_remote=allow_unauthenticated_remote,
        market__store=store,
        index__path=index,
        index__qdrant__url=qdrant_url,
        retrieval__vector=vector,
        logging__level=log_level,
    )
    serve_forever(settings, os.environ)
