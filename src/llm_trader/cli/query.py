"""`llm-trader query`: one question over the socket, as a readable table."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from llm_trader.cli import options
from llm_trader.errors import InvalidInputError
from llm_trader.timeframe import Millis, parse_end


def query(
    symbol: Annotated[str, typer.Option("--symbol", help="Such as BTCUSDT.")],
    at: Annotated[str, typer.Option("--at", help="now, or an RFC 3339 time.")] = "now",
    state: Annotated[
        Path | None,
        typer.Option("--state", help="JSON file of the state; else the server's store knows it."),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option("--top-k", help="Matches to show, 1 to 50."),
    ] = None,
    lookback_days: Annotated[
        int | None,
        typer.Option("--lookback-days", help="How far to look back, 1 to 365."),
    ] = None,
    min_similarity: Annotated[
        float | None,
        typer.Option("--min-similarity", help="What counts as a match, 0 to 1."),
    ] = None,
    regime_filters: Annotated[
        bool | None,
        typer.Option(
            "--regime-filters/--no-regime-filters",
            help="Keep to states of the same open-interest and funding regime.",
        ),
    ] = None,
    vector: Annotated[
        str | None,
        typer.Option("--vector", help="What is compared: state, text or hybrid."),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option("--host", help="Where the server is. [serving.host]"),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", "-p", help="Where the server listens. [serving.port]"),
    ] = None,
    auth_tokens_env: Annotated[
        str | None,
        typer.Option("--auth-tokens-env", help="Environment variable that holds the token."),
    ] = None,
    config: options.Config = None,
    json: options.Json = False,
) -> None:
    """Ask a running server: when it looked like this before, what followed?

    Only states whose outcome was known at the asked time are used. Start a server with
    rag-rpc-server first.
    """
    import asyncio

    from llm_trader.cli import show

    settings = options.settings_of(
        config,
        serving__host=host,
        serving__port=port,
        serving__auth_tokens_env=auth_tokens_env,
        logging__level="warn",
    )
    query_config = {
        "top_k": top_k,
        "lookback_days": lookback_days,
        "min_similarity": min_similarity,
        "include_regime_filters": regime_filters,
        "vector": vector,
    }
    params: dict[str, Any] = {
        "symbol": symbol.upper(),
        "timestamp": parse_end(at, options.now_ms()),
        "query_config": {k: v for k, v in query_config.items() if v is not None},
    }
    if state is not None:
        params["current_state"] = _read_state(state)
    token = _token(settings.serving.auth_tokens_env)
    answer, snapshot = asyncio.run(ask(settings.serving.host, settings.serving.port, params, token))
    if json:
        options.print_json(answer)
    else:
        show.answer(options.tables(), params["symbol"], snapshot, answer)


async def ask(
    host: str, port: int, params: dict[str, Any], token: str | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The answer, and the state it was asked about: the one sent, or the server's."""
    from llm_trader.rpc.client import RpcClient

    async with await RpcClient.connect(host, port, token=token) as client:
        answer = await client.call("rag.query_patterns", params)
        if "current_state" in params:
            return answer, params["current_state"]
        place: dict[str, str | Millis] = {k: params[k] for k in ("symbol", "timestamp")}
        found = await client.call("rag.get_snapshot", place)
        return answer, found["snapshot"]


def _read_state(path: Path) -> dict[str, Any]:
    import msgspec

    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except OSError as error:
        raise InvalidInputError(f"cannot read {path}: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise InvalidInputError(f"{path} is not a JSON object of state fields: {error}") from error


def _token(name: str | None) -> str | None:
    return os.environ.get(name, "").split(",")[0].strip() or None if name else None
