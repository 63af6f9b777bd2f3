"""Opens a retriever on the index of the settings."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from llm_trader.app.indexes import index_to_read
from llm_trader.app.text_vectors import query_texts
from llm_trader.retrieval.calibration import LoadedCalibration
from llm_trader.retrieval.retriever import Retriever
from llm_trader.settings.tree import Settings


@asynccontextmanager
async def open_retriever(
    settings: Settings,
    environ: Mapping[str, str],
    calibration: LoadedCalibration | None = None,
) -> AsyncIterator[Retriever]:
    """Closes the index and the text model's caches at the end."""
    async with (
        index_to_read(settings, environ) as index,
        query_texts(settings, environ, index.collection) as texts,
    ):
        yield Retriever(index, index.collection.state_space(), texts, calibration)
