"""Sends queries to a running server, and tells it to reload its settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from llm_trader.app.answer_series import AnswerSeries, answer_series
from llm_trader.app.job import Job, blocking, checked_text
from llm_trader.errors import ConfigurationError, InvalidInputError
from llm_trader.rpc.client import RpcClient, RpcError
from llm_trader.rpc.tls import pinned_context
from llm_trader.serving.admin import Reloaded
from llm_trader.serving.wire import GetSnapshotResult, QueryPatternsResult, StatsResult
from llm_trader.storage.files import read_whole
from llm_trader.timeframe import Millis


class Reply(NamedTuple):
    """An answer, and its state: the one that was sent, or that of the server's store.

    `age_ms` is how old the newest data is, where the query was about it. `series` is for pictures.
    """

    symbol: str
    answer: QueryPatternsResult
    state: Mapping[str, Any]
    age_ms: Millis | None = None
    series: AnswerSeries | None = None


@blocking
async def query_server(
    job: Job,
    symbol: str,
    as_of_ms: Millis | None,
    query_config: Mapping[str, Any],
    state_file: Path | None = None,
    *,
    with_series: bool = False,
) -> Reply:
    """Query the server of the settings; None in `query_config` means the server's default.

    Without `as_of_ms` the query is about the newest candle of the server's store.
    """
    state = None if state_file is None else _read_state(state_file)
    chosen = {key: value for key, value in query_config.items() if value is not None}
    if chosen.get("detail") == "brief":
        raise InvalidInputError(
            "this shows the whole answer; brief is for programs that ask rag.query_patterns"
        )
    async with await _connect(job) as client:
        age_ms = None
        if as_of_ms is None:
            as_of_ms = await _newest_ms(client, symbol, job.now_ms)
            age_ms = max(job.now_ms - as_of_ms, 0)
        moment = {"symbol": symbol, "timestamp": as_of_ms}
        params = {**moment, "query_config": chosen, "current_state": state}
        answer = await client.call("rag.query_patterns", params, QueryPatternsResult)
        series = await answer_series(client, symbol, answer) if with_series else None
        if state is not None:
            return Reply(symbol, answer, state, age_ms, series)
        # For the person who asked: the server read the same state from its store.
        current = await client.call("rag.get_snapshot", moment, GetSnapshotResult)
        return Reply(symbol, answer, msgspec.structs.asdict(current.snapshot), age_ms, series)


async def _newest_ms(client: RpcClient, symbol: str, now_ms: Millis) -> Millis:
    """The end of a symbol's data in the server's store; now where it has none."""
    stats = await client.call("rag.stats", None, StatsResult)
    ends = (fresh.store_end for fresh in stats.freshness if fresh.symbol == symbol)
    return next((end for end in ends if end is not None), now_ms)


def _read_state(path: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode(read_whole(path), type=dict[str, Any])
    except OSError as error:
        raise InvalidInputError(f"cannot read {path}: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise InvalidInputError(f"{path} is not a JSON object of state fields: {error}") from error


@blocking
async def reload_server(job: Job) -> Reloaded:
    """Raises `ConfigurationError` with all mistakes if the server keeps the settings it had."""
    async with await _connect(job) as client:
        try:
            return await client.call("admin.reload", None, Reloaded)
        except RpcError as error:
            data = error.details.get("data")
            if isinstance(data, dict) and "problems" in data:
                raise ConfigurationError(error.message, problems=data["problems"]) from None
            raise


async def _connect(job: Job) -> RpcClient:
    """A client of the server of the settings."""
    serving = job.settings.serving
    # Any one of the accepted tokens does.
    name = serving.auth_tokens_env or ""
    value = checked_text(job.environ.get(name, ""), name, "serving.auth_tokens_env")
    tokens = value.split(",")
    token = tokens[0].strip() or None
    tls = None if serving.tls_certificate is None else pinned_context(serving.tls_certificate)
    return await RpcClient.connect(serving.host, serving.port, token=token, tls=tls)
