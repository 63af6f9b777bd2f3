"""Settings of the query server: those of JSON-RPC, and the limits of its methods."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta

from llm_trader.config_types import Folder, Url
from llm_trader.errors import ConfigurationError
from llm_trader.rpc.config import RpcConfig
from llm_trader.timeframe import MINUTE_MS, Millis


class ServingConfig(RpcConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """JSON-RPC 2.0 over TCP and HTTP."""

    min_matches: Annotated[
        int,
        Meta(
            ge=0,
            le=50,
            description="Number of matches below which a query is refused as insufficient.",
        ),
    ] = 3
    max_data_age_minutes: Annotated[
        int,
        Meta(
            ge=1,
            le=525_600,
            description="For a query without current_state: how many minutes before its timestamp "
            "the store's newest candle may close. Older data are refused as stale.",
        ),
    ] = 30

    max_unchanged_minutes: Annotated[
        int,
        Meta(
            ge=1,
            le=525_600,
            description="For a query without current_state: for how many minutes the store's "
            "newest candles may all be the same. After that the feed seems frozen, and its data "
            "are refused as stale.",
        ),
    ] = 60

    workers: Annotated[
        int,
        Meta(
            ge=1,
            le=256,
            description="Number of processes that answer on the same ports, about one for each "
            "core. Limits of connections, rates and memory count for each of them.",
        ),
    ] = 1

    page: Annotated[
        bool | None,
        Meta(
            description="Show the page for people at / of the HTTP port; where this is not set, "
            "only if the server listens on this machine's loopback.",
            examples=[True],
        ),
    ] = None
    reports: Annotated[
        Folder,
        Meta(description="Folder of evaluations, which the page lists: one folder for each."),
    ] = Path("reports")
    worker_timeout_s: Annotated[
        float,
        Meta(
            ge=1,
            le=3600,
            description="Seconds after which a worker that does not answer its parent is killed "
            "and replaced.",
        ),
    ] = 30.0

    metrics: Annotated[
        bool, Meta(description="Count and time what the server does, for Prometheus at /metrics.")
    ] = True

    otlp_endpoint: Annotated[
        Annotated[Url, Meta(pattern=r"^https?://\S+$")] | None,
        Meta(
            description="Address of an OpenTelemetry receiver (OTLP over HTTP) that gets a trace "
            "of each request; without one no traces are made. Needs the extra `otel`.",
            examples=["http://127.0.0.1:4318/v1/traces"],
        ),
    ] = None

    max_subscriptions: Annotated[
        int,
        Meta(ge=1, le=1_000_000, description="Greatest number of subscriptions, in all."),
    ] = 1000
    max_subscriptions_per_connection: Annotated[
        int,
        Meta(
            ge=1,
            le=10_000,
            description="Greatest number of subscriptions, per WebSocket connection.",
        ),
    ] = 32

    graphql: Annotated[
        bool, Meta(description="Also answer GraphQL on the HTTP port; needs the extra graphql.")
    ] = False
    graphql_introspection: Annotated[
        bool,
        Meta(description="Whether GraphQL clients may ask for the schema."),
    ] = True
    graphql_max_depth: Annotated[
        int,
        Meta(
            ge=1,
            le=100,
            description="Greatest depth of a GraphQL document. Answers have 7 levels; what tools "
            "ask about the schema has about 15.",
        ),
    ] = 16
    graphql_max_aliases: Annotated[
        int,
        Meta(
            ge=0,
            le=1000,
            description="Greatest number of aliases in a GraphQL document; each can be another "
            "query.",
        ),
    ] = 30
    graphql_max_tokens: Annotated[
        int,
        Meta(
            ge=10,
            le=10_000,
            description="Greatest number of tokens in a GraphQL document; one that asks for "
            "everything has about 400.",
        ),
    ] = 1000

    mcp: Annotated[
        bool,
        Meta(
            description="Also answer assistants at /mcp of the HTTP port, by the Model Context "
            "Protocol; needs the extra mcp."
        ),
    ] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mcp and not self.http:
            raise ConfigurationError(
                "assistants are answered on the HTTP port; leave out --no-http (serving.http), or "
                "--mcp (serving.mcp)"
            )
        if self.graphql and not self.http:
            raise ConfigurationError(
                "graphql is answered on the HTTP port; leave out --no-http (serving.http), or "
                "--graphql (serving.graphql)"
            )

    @property
    def staleness_limits_ms(self) -> tuple[Millis, Millis]:
        """How old the newest candle may be, and how long the newest ones may repeat."""
        return self.max_data_age_ms, self.max_unchanged_minutes * MINUTE_MS

    @property
    def max_data_age_ms(self) -> Millis:
        return self.max_data_age_minutes * MINUTE_MS
