"""Which index the settings name, opened for reading or for writing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Literal

from llm_trader.embedding.state import StateSpace
from llm_trader.embedding.text import TextSpace
from llm_trader.errors import ConfigurationError
from llm_trader.index.embedded import SCHEMA_VERSION, EmbeddedIndex
from llm_trader.index.protocol import Collection, VectorIndex
from llm_trader.index.qdrant.config import QdrantPlace
from llm_trader.market.store import MarketStore
from llm_trader.settings.tree import QdrantSettings, Settings

Backend = Literal["embedded", "qdrant"]


def backend_of(settings: Settings) -> Backend:
    """Qdrant where its address is set."""
    return "embedded" if settings.index.qdrant.url is None else "qdrant"


def location_of(settings: Settings) -> str:
    qdrant = settings.index.qdrant
    return f"{qdrant.collection} on {qdrant.url}" if qdrant.url else str(settings.index.path)


@asynccontextmanager
async def index_to_read(
    settings: Settings, environ: Mapping[str, str], backend: Backend | None = None
) -> AsyncIterator[VectorIndex]:
    """Raises `VectorIndexError` where there is no index, or it cannot be reached."""
    if (backend or backend_of(settings)) == "qdrant":
        from llm_trader.index.qdrant.backend import QdrantIndex

        async with await QdrantIndex.open(qdrant_place(settings, environ)) as remote:
            yield remote
    else:
        with EmbeddedIndex.open(settings.index.path) as local:
            yield local


@asynccontextmanager
async def index_to_write(
    settings: Settings,
    environ: Mapping[str, str],
    collection: Collection,
    backend: Backend | None = None,
) -> AsyncIterator[VectorIndex]:
    """Made where there is none. Raises `ConfigurationError` for one of another collection."""
    if (backend or backend_of(settings)) == "qdrant":
        from llm_trader.index.qdrant.backend import QdrantIndex

        place = qdrant_place(settings, environ)
        async with await QdrantIndex.create_or_open(place, collection) as remote:
            yield remote
    else:
        with EmbeddedIndex.create_or_open(settings.index.path, collection) as local:
            yield local


def qdrant_place(settings: Settings, environ: Mapping[str, str]) -> QdrantPlace:
    """Raises `ConfigurationError` without an address, or where the key's variable is empty."""
    qdrant = settings.index.qdrant
    if qdrant.url is None:
        raise ConfigurationError(
            "no Qdrant server is named; give --qdrant-url, or set index.qdrant.url"
        )
    return QdrantPlace(
        url=qdrant.url,
        grpc_port=qdrant.grpc_port,
        collection=qdrant.collection,
        api_key=_api_key(qdrant, environ),
        api_key_env=qdrant.api_key_env,
        ca_file=qdrant.ca_file,
        timeout_s=qdrant.timeout_s,
        retry_s=qdrant.retry_s,
        pool_size=qdrant.pool_size,
        shard_number=qdrant.shard_number,
        replication_factor=qdrant.replication_factor,
        approximate=qdrant.approximate,
        hnsw_ef=qdrant.hnsw_ef,
        quantization=qdrant.quantization,
    )


def secret(environ: Mapping[str, str], name: str, setting: str) -> str:
    """What an environment variable that a setting names holds."""
    value = environ.get(name, "").strip()
    if not value:
        raise ConfigurationError(f"{setting} names {name}, but that environment variable is empty")
    return value


def collection_of(space: StateSpace, exchange: str | None, text: TextSpace | None) -> Collection:
    return Collection(
        schema_version=SCHEMA_VERSION,
        exchange=exchange,
        feature_version=space.feature_version,
        intraday=str(space.intraday),
        state_space_id=space.space_id,
        dimension=space.dimension,
        text_model=text.model if text else None,
        text_space_id=text.space_id if text else None,
        text_dimension=text.dimension if text else None,
    )


def refuse_one_folder_for_both(settings: Settings) -> None:
    if settings.market.store.resolve() == settings.index.path.resolve():
        raise ConfigurationError(
            f"{settings.index.path} is named as both the market store and the index; "
            "they are two folders"
        )


def refuse_another_exchange(store: MarketStore, index: VectorIndex) -> None:
    if store.exchange != index.collection.exchange:
        raise ConfigurationError(
            f"the market store at {store.path} is of {store.exchange or 'no known exchange'}, "
            f"the index at {index.location} of {index.collection.exchange}; "
            "name the ones that belong together"
        )


def _api_key(qdrant: QdrantSettings, environ: Mapping[str, str]) -> str | None:
    if qdrant.api_key_env is None:
        return None
    return secret(environ, qdrant.api_key_env, "index.qdrant.api_key_env")
