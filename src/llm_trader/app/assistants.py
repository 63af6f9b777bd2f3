"""Serves an assistant that starts this program: MCP over its standard input and output."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from llm_trader import __version__
from llm_trader.app.job import Job, blocking
from llm_trader.app.local_tools import local_parts
from llm_trader.errors import ConfigurationError
from llm_trader.timeframe import Millis

_log = structlog.get_logger(__name__)


@blocking
async def serve_stdio(job: Job, clock: Callable[[], Millis]) -> None:
    """Until the assistant closes the input. Raises `ConfigurationError` without the extra `mcp`."""
    try:
        # Its libraries take 1 s to import.
        from llm_trader.serving.mcp.protocol import answer_on_stdio
    except ImportError as error:
        raise ConfigurationError(
            f"tools for assistants need the MCP SDK ({error}): pip install 'llm-trader-rag[mcp]'"
        ) from error
    async with local_parts(job.settings, job.environ, clock) as parts:
        _log.info("mcp_serving", on="standard input and output")
        await answer_on_stdio(parts.tools, __version__)
