"""The text model and its caches, loaded only if text vectors are in use."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from llm_trader.app.indexes import secret
from llm_trader.embedding.config import VectorCacheConfig
from llm_trader.embedding.text import FastEmbedEncoder, TextSpace
from llm_trader.embedding.text_cache import QueryTexts, RedisVectors
from llm_trader.errors import ConfigurationError
from llm_trader.index.protocol import Collection
from llm_trader.settings.tree import Settings


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
    texts = QueryTexts(space, settings.embedding.text, _shared(settings.cache, environ))
    try:
        yield texts
    finally:
        await texts.aclose()


def _shared(config: VectorCacheConfig, environ: Mapping[str, str]) -> RedisVectors | None:
    if config.redis_url is None:
        return None
    name = config.redis_password_env
    password = None if name is None else secret(environ, name, "cache.redis_password_env")
    return RedisVectors(config, password=password)
