"""Opens a retriever on the index of the settings, and the text model if text vectors are in use."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager

from llm_trader.app.indexes import open_index, secret
from llm_trader.embedding.text import FastEmbedEncoder, TextSpace
from llm_trader.embedding.text_cache import QueryTexts, RedisVectors
from llm_trader.errors import ConfigurationError
from llm_trader.index.protocol import Collection
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
        open_index(settings, environ) as index,
        query_texts(settings, environ, index.collection) as texts,
    ):
        yield Retriever(index, index.collection.state_space(), texts, calibration)


@asynccontextmanager
async def query_texts(
    settings: Settings, environ: Mapping[str, str], collection: Collection
) -> AsyncIterator[QueryTexts | None]:
    """The text vectors of queries to a collection; None if text vectors are off.

    Raises `ConfigurationError` if they are on and the collection has none.
    """
    if wants_texts(settings) and collection.text_space_id is None:
        raise ConfigurationError(
            "text vectors are on (embedding.text.enabled, retrieval.vector), but the index holds "
            "none; ingest with --text into a new index"
        )
    space = text_space(settings)
    if space is None:
        yield None
        return
    cache, shared = settings.cache, None
    if cache.redis_url is not None:
        password = secret(environ, cache.redis_password_env, "cache.redis_password_env")
        shared = RedisVectors(cache, password=password)
    async with aclosing(QueryTexts(space, settings.embedding.text, shared)) as texts:
        yield texts


def wants_texts(settings: Settings) -> bool:
    return settings.embedding.text.enabled or settings.retrieval.vector != "state"


def text_space(settings: Settings) -> TextSpace | None:
    """None if text vectors are off. Loads the model from local files.

    Raises `ConfigurationError` if the model or the extra is missing.
    """
    if not wants_texts(settings):
        return None
    text = settings.embedding.text
    return TextSpace(FastEmbedEncoder.load(text), text.form)
