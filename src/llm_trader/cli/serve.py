"""`llm-trader serve`, also called `rag-rpc-server`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from llm_trader.cli.setting_flags import with_settings

if TYPE_CHECKING:
    from llm_trader.settings.tree import Settings


@with_settings(
    *("host", "port", "store", "index", "qdrant_url", "vector", "min_matches", "auth_tokens_env"),
    *("allow_unauthenticated_remote", "log_level"),
    quiet=False,
)
def serve(settings: Settings) -> None:
    """Answer queries over JSON-RPC 2.0, one document per line, until SIGTERM or Ctrl-C.

    Methods: rag.query_patterns, rag.get_snapshot, rag.stats, rpc.ping, rpc.discover. Answers
    include new states as soon as they are ingested. With a market store, queries may leave out
    their state, and the server completes partial states.
    """
    from llm_trader.app.server import serve_forever

    serve_forever(settings, os.environ)
