"""A server on a real store and index whose metrics are scraped over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from llm_trader.app.server import query_server
from llm_trader.rpc.server import RpcServer
from llm_trader.timeframe import Millis
from tests.cli.corridor import END_MS, Corridor
from tests.rpc.http.raw import Reply, http

Labels = frozenset[tuple[str, str]]


class Scrape:
    """The samples of a scrape, parsed by Prometheus' own parser."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self.samples: dict[tuple[str, Labels], float] = {}
        for family in self.families.values():
            for sample in family.samples:
                key = sample.name, frozenset(sample.labels.items())
                assert key not in self.samples, key
                self.samples[key] = sample.value

    def value(self, name: str, **labels: str) -> float:
        """0 for what is absent, as a counter that nothing has counted."""
        return self.samples.get((name, frozenset(labels.items())), 0.0)

    def has(self, name: str) -> bool:
        return any(known == name for known, _ in self.samples)

    def labels(self, label: str) -> set[str]:
        """The values of a label over all samples."""
        return {value for _, labels in self.samples for key, value in labels if key == label}


class Clock:
    def __init__(self, now_ms: Millis = END_MS) -> None:
        self.now_ms = now_ms

    def __call__(self) -> Millis:
        return self.now_ms


async def metrics_reply(server: RpcServer, **headers: str) -> Reply:
    assert server.http_address is not None
    async with http(server.http_address) as client:
        return await client.get("/metrics", **headers)


async def scrape(server: RpcServer) -> Scrape:
    reply = await metrics_reply(server)
    assert (reply.status, reply.headers["content-type"]) == (
        200,
        "text/plain; version=0.0.4; charset=utf-8",
    )
    return Scrape(reply.body.decode())


@asynccontextmanager
async def running(
    corridor: Corridor,
    clock: Clock | None = None,
    environ: Mapping[str, str] | None = None,
    **overrides: Any,
) -> AsyncIterator[RpcServer]:
    settings = corridor.settings(environ, **overrides)
    async with query_server(settings, environ or {}, clock or Clock()) as server:
        await server.start()
        try:
            yield server
        finally:
            await server.stop()
