"""The text model and its caches, loaded only where text vectors are wanted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from llm_trader.app.indexes import secret
from llm_trader.embedding.text import FastEmbedEncoder, TextSpace
from llm_trader.embedding.text_cache import QueryTexts, RedisVectors
from llm_trader.errors import ConfigurationError
from llm_trader.index.protocol import Collection
from llm_trader.settings.tree import CacheSettings, Settings, TextSettings


def wants_texts(settings: Settings) -> bool:
    return settings.embedding.text.enabled or settings.retrieval.vector != "state"


def text_space(settings: Settings) -> TextSpace | None:
    """None where no text vectors are wanted.

    Raises `ConfigurationError` where the model or the extra is missing; no network is asked.
    """
    if not wants_texts(settings):
        return None
    text = settings.embedding.text
    return TextSpace(encoder_of(text), text.form)


def encoder_of(text: TextSettings) -> FastEmbedEncoder:
    """Raises `ConfigurationError` where the model or the extra is missing."""
    return FastEmbedEncoder.load(
        text.model,
        model_path=text.model_path,
        cache_dir=text.cache_dir,
        threads=text.threads,
        batch_size=text.batch_size,
    )


@asynccontextmanager
async def query_texts(
    settings: Settings, environ: Mapping[str, str], collection: Collection
) -> AsyncIterator[QueryTexts | None]:
    """The text vectors of queries to a collection; None where they are not wanted.

    Raises `ConfigurationError` where they are wanted and the collection has none.
    """
    if wants_texts(settings) and collection.text_space_id is None:
        raise ConfigurationError(
            "text vectors are asked for (embedding.text.enabled, retrieval.vector), but the index "
            "holds none; ingest with --text into a new index"
        )
    space = text_space(settings)
    if space is None:
        yield None
        return
    text = settings.embedding.text
    shared = _shared(settings.cache, environ)
    texts = QueryTexts(space, text.cache_size, shared, threads=text.threads)
    try:
        yield texts
    finally:
        await texts.aclose()


def _shared(cache: CacheSettings, environ: Mapping[str, str]) -> RedisVectors | None:
    if cache.redis_url is None:
        return None
    name = cache.redis_password_env
    return RedisVectors(
        cache.redis_url,
        password=secret(environ, name, "cache.redis_password_env") if name else None,
        timeout_s=cache.redis_timeout_ms / 1000,
        ttl_s=cache.ttl_hours * 3600,
    )
