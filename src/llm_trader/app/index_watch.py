"""Notices that the index of a running server was deleted, remade, rebuilt or damaged, and logs it.

A query notices as well; this is for servers that nobody asks. What can be answered from is loaded
before the next query, and anything else is refused until it is back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import structlog

from llm_trader.background import in_background
from llm_trader.errors import LlmTraderError
from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.index.protocol import VectorIndex

# A look takes microseconds, and an environment looks at its file once a second at most.
_EVERY_S: Final = 0.5

_log = structlog.get_logger(__name__)


@asynccontextmanager
async def watched(index: VectorIndex) -> AsyncIterator[None]:
    """Looks at an embedded index all the time; a Qdrant server has its own heads to compare."""
    if not isinstance(index, EmbeddedIndex):
        yield
        return
    async with in_background(_watch(index)):
        yield


async def _watch(index: EmbeddedIndex) -> None:
    refusal = ""
    while True:
        await asyncio.sleep(_EVERY_S)
        try:
            index.follow()
        except LlmTraderError as error:
            if error.message != refusal:
                _log.warning("index_refused", path=index.location, reason=error.message)
            refusal = error.message
        else:
            if refusal:
                _log.info("index_answers_again", path=index.location)
            refusal = ""
