"""Settings of the journal of forecasts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta

from llm_trader.config_types import Folder
from llm_trader.storage.chain.lines import ChainConfig


class ForecastsConfig(ChainConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A journal of the forecasts that a server gave, scored later: `llm-trader forecasts`."""

    journal: Annotated[
        bool,
        Meta(
            description="Write down each forecast about the present before its reply is sent, and "
            "score it when its outcome is known."
        ),
    ] = True
    folder: Annotated[
        Folder | None,
        Meta(
            description="Folder of the journal; by default `forecasts` beside the folder of the "
            "index.",
            examples=["var/forecasts"],
        ),
    ] = None

    def folder_beside(self, index: Path) -> Path:
        """The folder of the journal, where the index is in that folder."""
        return self.folder or index.parent / "forecasts"
