"""Settings of the intake: the server that takes snapshots and other events."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from llm_trader.rpc.config import RpcConfig


class IntakeConfig(RpcConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Snapshots and events for the workflow, by JSON-RPC 2.0 over TCP and HTTP."""

    port: Annotated[
        int,
        Meta(ge=0, le=65535, description="TCP port that the intake listens on; 0 takes any free."),
    ] = 7878
    http_port: Annotated[
        Annotated[int, Meta(ge=0, le=65535)] | None,
        Meta(
            description="TCP port for HTTP; 0 takes any free. The port after 7878 is that of the "
            "query server.",
            examples=[7877],
        ),
    ] = 7877
    max_queued: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000,
            description="Runs that wait or are under way; beyond them snapshots are refused as "
            "overloaded, and the sender tries again.",
        ),
    ] = 1000
