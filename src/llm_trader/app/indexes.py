"""Opens the index of the settings for reading or writing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Literal

from msgspec import structs

from llm_trader.embedding.state import StateSpace
from llm_trader.embedding.text import TextSpace
from llm_trader.errors import ConfigurationError
from llm_trader.index.embedded import SCHEMA_VERSION, EmbeddedIndex
from llm_trader.index.protocol import Collection, VectorIndex
from llm_trader.index.qdrant.config import QdrantServer
from llm_trader.market.store import MarketStore
from llm_trader.settings.tree import Settings

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
    """Raises `VectorIndexError` if there is no index, or it is unreachable."""
    if (backend or backend_of(settings)) == "qdrant":
        from llm_trader.index.qdrant.backend import QdrantIndex

        async with await QdrantIndex.open(qdrant_server(settings, environ)) as remote:
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
    """Creates the index if it is missing. Raises `ConfigurationError` for another collection."""
    if (backend or backend_of(settings)) == "qdrant":
        from llm_trader.index.qdrant.backend import QdrantIndex

        server = qdrant_server(settings, environ)
        async with await QdrantIndex.create_or_open(server, collection) as remote:
            yield remote
    else:
        with EmbeddedIndex.create_or_open(settings.index.path, collection) as local:
            yield local


def qdrant_server(settings: Settings, environ: Mapping[str, str]) -> QdrantServer:
    """Raises `ConfigurationError` without an address, or if the key's variable is empty."""
    config = settings.index.qdrant
    if config.url is None:
        raise ConfigurationError(
            "no Qdrant server is set; give --qdrant-url, or set index.qdrant.url"
        )
    name = config.api_key_env
    key = None if name is None else secret(environ, name, "index.qdrant.api_key_env")
    return QdrantServer(**structs.asdict(config), api_key=key)


def secret(environ: Mapping[str, str], name: str, setting: str) -> str:
    """The value of the environment variable that a setting names."""
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
            f"{settings.index.path} is set as both the market store and the index; "
            "give them two folders"
        )


def refuse_another_exchange(store: MarketStore, index: VectorIndex) -> None:
    if store.exchange != index.collection.exchange:
        raise ConfigurationError(
            f"the market store at {store.path} is of {store.exchange or 'no known exchange'}, "
            f"the index at {index.location} of {index.collection.exchange}; "
            "give a store and an index that belong together"
        )
