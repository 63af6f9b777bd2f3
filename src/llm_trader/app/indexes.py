"""Opens the index of the settings, a retriever on it, and the text model if it is in use."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Literal

from msgspec import structs

from llm_trader.app.job import checked_text
from llm_trader.embedding.text import FastEmbedEncoder, TextSpace
from llm_trader.embedding.text_cache import QueryTexts, RedisVectors
from llm_trader.errors import ConfigurationError
from llm_trader.index.embedded import SCHEMA_VERSION, EmbeddedIndex
from llm_trader.index.ingestion import Spaces
from llm_trader.index.protocol import REBUILD, Collection, VectorIndex
from llm_trader.index.qdrant.config import QdrantServer
from llm_trader.market.store import MarketStore
from llm_trader.retrieval.calibration import LoadedCalibration, read_calibration
from llm_trader.retrieval.retriever import Retriever
from llm_trader.snapshot.builder import SnapshotRules
from llm_trader.volatility.model import BUILT_IN, read_model

if TYPE_CHECKING:
    from llm_trader.settings.tree import Settings

Backend = Literal["embedded", "qdrant"]


def backend_of(settings: Settings) -> Backend:
    """Qdrant where its address is set."""
    return "embedded" if settings.index.qdrant.url is None else "qdrant"


def location_of(settings: Settings) -> str:
    qdrant = settings.index.qdrant
    return f"{qdrant.collection} on {qdrant.url}" if qdrant.url else str(settings.index.path)


@asynccontextmanager
async def open_index(
    settings: Settings,
    environ: Mapping[str, str],
    backend: Backend | None = None,
    *,
    create: Collection | None = None,
) -> AsyncIterator[VectorIndex]:
    """Opens the index to read, or with `create` to write, and then creates it if it is missing.

    Raises `VectorIndexError` if there is none to read, or it is unreachable, and
    `ConfigurationError` if it holds another collection than the one to `create`.
    """
    if (backend or backend_of(settings)) == "embedded":
        path, map_size_bytes = settings.index.path, settings.index.map_size_bytes
        with (
            EmbeddedIndex.create_or_open(path, create, map_size_bytes=map_size_bytes)
            if create
            else EmbeddedIndex.open(path)
        ) as local:
            yield local
        return
    # Most commands never need it, and its modules take 40 ms to import.
    from llm_trader.index.qdrant.backend import QdrantIndex

    server = qdrant_server(settings, environ)
    opening = QdrantIndex.create_or_open(server, create) if create else QdrantIndex.open(server)
    async with await opening as remote:
        yield remote


@asynccontextmanager
async def open_retriever(
    settings: Settings, environ: Mapping[str, str], calibration: LoadedCalibration | None = None
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
    # Before the model is loaded, which takes seconds.
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


def loaded_calibration(settings: Settings) -> LoadedCalibration | None:
    """None if none is set. Raises `ConfigurationError` if the file is not a calibration."""
    path = settings.retrieval.calibration
    if path is None:
        return None
    return LoadedCalibration(read_calibration(path), settings.retrieval.max_calibration_age_days)


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


def qdrant_server(settings: Settings, environ: Mapping[str, str]) -> QdrantServer:
    """Raises `ConfigurationError` without an address, or if the key's variable is empty."""
    config = settings.index.qdrant
    if config.url is None:
        raise ConfigurationError(
            "no Qdrant server is set; give --qdrant-url, or set index.qdrant.url"
        )
    key = secret(environ, config.api_key_env, "index.qdrant.api_key_env")
    return QdrantServer(**structs.asdict(config), api_key=key)


def secret(environ: Mapping[str, str], name: str | None, setting: str) -> str | None:
    """The value of the environment variable that a setting names; None if it names none."""
    if name is None:
        return None
    value = environ.get(name, "").strip()
    if not value:
        raise ConfigurationError(f"{setting} names {name}, but that environment variable is empty")
    return checked_text(value, name, setting)


def snapshot_rules(settings: Settings) -> SnapshotRules:
    """With the built-in volatility model where the settings name none. Raises like `read_model`."""
    path = settings.volatility.model
    model = BUILT_IN if path is None else read_model(path)
    return SnapshotRules(model, settings.snapshot.max_hole_candles)


def collection_of(spaces: Spaces, exchange: str | None) -> Collection:
    space, text = spaces.state, spaces.text
    return Collection(
        schema_version=SCHEMA_VERSION,
        exchange=exchange,
        feature_version=space.feature_version,
        intraday=str(space.intraday),
        state_space_id=space.space_id,
        dimension=space.dimension,
        volatility_model=spaces.rules.volatility.id,
        max_hole_candles=spaces.rules.max_hole_candles,
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


def snapshot_rules_of(index: VectorIndex, settings: Settings) -> SnapshotRules:
    """The settings' rules; raises `ConfigurationError` unless the index was made by them."""
    rules, made = snapshot_rules(settings), index.collection
    if made.volatility_model != rules.volatility.id:
        raise ConfigurationError(
            f"the index at {index.location} was made with the volatility model "
            f"{made.volatility_model}, the settings name {rules.volatility.id}; set "
            f"volatility.model to that model's file, or build the index again with: {REBUILD}"
        )
    if made.max_hole_candles != rules.max_hole_candles:
        raise ConfigurationError(
            f"the index at {index.location} was made with snapshot.max_hole_candles = "
            f"{made.max_hole_candles}, the settings say {rules.max_hole_candles}; set it to the "
            f"index's, or build the index again with: {REBUILD}"
        )
    return rules


def refuse_another_exchange(store: MarketStore, index: VectorIndex) -> None:
    if store.exchange != index.collection.exchange:
        raise ConfigurationError(
            f"the market store at {store.path} is of {store.exchange or 'no known exchange'}, "
            f"the index at {index.location} of {index.collection.exchange}; "
            "give a store and an index that belong together"
        )
