"""The settings: the rooms' configs as the sections of one frozen tree.

The tree never contains a secret, only the names of environment variables that hold secrets.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from msgspec import Struct
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from llm_trader.embedding.config import EmbeddingConfig, VectorCacheConfig
from llm_trader.index.config import IndexConfig, IngestConfig
from llm_trader.logs import LoggingConfig
from llm_trader.market.config import MarketConfig
from llm_trader.retrieval.config import RetrievalConfig
from llm_trader.serving.config import ServingConfig
from llm_trader.settings.models import model_of
from llm_trader.snapshot.config import SnapshotConfig

ENV_PREFIX: Final = "LLM_TRADER_"


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings. `load_settings` reads them; the constructor takes defaults and arguments."""

    market: MarketConfig = MarketConfig()
    snapshot: SnapshotConfig = SnapshotConfig()
    embedding: EmbeddingConfig = EmbeddingConfig()
    cache: VectorCacheConfig = VectorCacheConfig()
    index: IndexConfig = IndexConfig()
    ingest: IngestConfig = IngestConfig()
    retrieval: RetrievalConfig = RetrievalConfig()
    serving: ServingConfig = ServingConfig()
    logging: LoggingConfig = LoggingConfig()

    def digest(self) -> str:
        """12 hex digits of the SHA-256 of all values; equal settings have equal digests."""
        values = {key: functools.reduce(getattr, key.split("."), self) for key in SETTINGS}
        canonical = json.dumps(values, default=Path.as_posix, sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]


class _Sources(BaseSettings):
    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=ENV_PREFIX, env_nested_delimiter="__"
    )


SettingsModel = model_of(Settings, _Sources)


def _sections(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    for name, field in model.model_fields.items():
        if isinstance(field.default, BaseModel):
            yield prefix + name, type(field.default)
            yield from _sections(type(field.default), f"{prefix}{name}.")


# Sections and settings by their dotted keys, such as `index.qdrant` and `index.qdrant.url`.
SECTIONS: Final[dict[str, type[BaseModel]]] = dict(_sections(SettingsModel))
SETTINGS: Final[dict[str, FieldInfo]] = {
    f"{section}.{name}": field
    for section, model in SECTIONS.items()
    for name, field in model.model_fields.items()
    if not isinstance(field.default, BaseModel)
}


def env_name(key: str) -> str:
    """The environment variable of a setting: `serving.port` is `LLM_TRADER_SERVING__PORT`."""
    return ENV_PREFIX + key.replace(".", "__").upper()
