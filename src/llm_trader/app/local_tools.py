"""The tools of assistants in this process, from store and index: for stdio and for receipts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import msgspec

from llm_trader.app.server import ServerParts, server_parts
from llm_trader.settings.tree import Settings
from llm_trader.timeframe import Millis


@asynccontextmanager
async def local_parts(
    settings: Settings, environ: Mapping[str, str], clock: Callable[[], Millis]
) -> AsyncIterator[ServerParts]:
    """The parts of a server that listens nowhere. It asks for no key: who can start it can read
    the data.
    """
    serving = msgspec.structs.replace(
        settings.serving,
        http=False,
        graphql=False,
        mcp=False,
        metrics=False,
        host="127.0.0.1",
        keys_file=None,
        auth_tokens_env=None,
        tls_certificate=None,
        tls_key=None,
        limits_redis_url=None,
    )
    own = msgspec.structs.replace(settings, serving=serving)
    async with server_parts(own, environ, clock) as parts:
        parts.gate.clock.start()
        try:
            yield parts
        finally:
            parts.gate.clock.stop()
