"""Settings of the index and of filling it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from llm_trader.config_types import Folder, MapSizeMib
from llm_trader.index.qdrant.config import QdrantConfig


class IndexConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The vectors of past snapshots."""

    path: Annotated[
        Folder,
        Meta(
            description="Folder of the embedded index; a relative path starts at the working "
            "folder."
        ),
    ] = Path("var/index")
    map_size_mib: MapSizeMib = 16384
    qdrant: QdrantConfig = QdrantConfig()

    @property
    def map_size_bytes(self) -> int:
        return self.map_size_mib * 2**20


class IngestConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Filling the index from the market store."""

    batch_days: Annotated[
        int,
        Meta(
            ge=1,
            le=365,
            description="Days of snapshots per transaction: more is faster, fewer lose less when "
            "a run is stopped. With text vectors it is always one day.",
        ),
    ] = 16
