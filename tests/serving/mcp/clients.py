"""A server that answers assistants, and how a client asks each of its tools."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from llm_trader.app.server import query_server
from llm_trader.timeframe import iso8601
from tests.cli.corridor import AT_MS, END_MS, SYMBOL, Corridor

if TYPE_CHECKING:
    from mcp import Client

AS_OF = iso8601(AT_MS)
QUESTION = {"symbol": SYMBOL, "as_of": AS_OF}
COHORT = f"{SYMBOL}@{AS_OF}"
ARGUMENTS: dict[str, dict[str, Any]] = {
    "similar_states": {**QUESTION, "top_k": 3},
    "forecast": {**QUESTION, "stop_pct": 1.0, "target_pct": 1.5},
    "cohort_open": QUESTION,
    "cohort_refine": {"cohort": COHORT, "conditions": ["trend=up"]},
    "cohort_rank": {"cohort": COHORT},
    "market_state": QUESTION,
    "data_status": {},
    "decisions": {},
}


class Addresses(NamedTuple):
    rpc: tuple[str, int]
    http: tuple[str, int]

    @property
    def url(self) -> str:
        return f"http://{self.http[0]}:{self.http[1]}/mcp"


@asynccontextmanager
async def serving(
    corridor: Corridor, environ: Mapping[str, str] | None = None, **overrides: Any
) -> AsyncIterator[Addresses]:
    settings = corridor.settings(environ, **{"serving__mcp": True, **overrides})
    async with query_server(settings, environ or {}, lambda: END_MS) as server:
        await server.start()
        assert server.http_address is not None
        try:
            yield Addresses(server.address, server.http_address)
        finally:
            await server.stop()


@asynccontextmanager
async def assistant(url: str, key: str | None = None, mode: str = "auto") -> AsyncIterator[Client]:
    """The SDK's own client."""
    import httpx2
    from mcp import Client
    from mcp.client.streamable_http import streamable_http_client

    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    async with (
        httpx2.AsyncClient(headers=headers) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode) as client,
    ):
        yield client


async def answer(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """What a tool answers; the client has checked it against the schema."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    assert result.structured_content is not None
    return result.structured_content
