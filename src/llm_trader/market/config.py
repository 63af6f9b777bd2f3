"""Settings of the market store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from llm_trader.config_types import Folder, MapSizeMib
from llm_trader.market.archive.config import ArchiveConfig
from llm_trader.market.exchange.config import ExchangeConfig


class MarketConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Collected market data."""

    store: Annotated[
        Folder,
        Meta(
            description="Folder of the LMDB market store; a relative path starts at the working "
            "folder."
        ),
    ] = Path("var/market")
    map_size_mib: MapSizeMib = 16384
    # A state reads 60 days of 4h candles, and its outcome is known a day later.
    keep_days: Annotated[
        int,
        Meta(
            ge=62,
            le=36500,
            description="Days that are kept in store and index, up to the newest data; "
            "`llm-trader data prune` removes what is older.",
        ),
    ] = 400
    exchange: ExchangeConfig = ExchangeConfig()
    archive: ArchiveConfig = ArchiveConfig()

    @property
    def map_size_bytes(self) -> int:
        return self.map_size_mib * 2**20
