"""Settings of retrieval: a server's default search, and its calibration."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from llm_trader.config_types import Folder
from llm_trader.retrieval.search_spec import SearchSpec


class RetrievalConfig(SearchSpec, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a query gets where its own `query_config` says nothing."""

    calibration: Annotated[
        Folder | None,
        Meta(
            description="File that `llm-trader calibrate` wrote. It gives evidence its 80 % bands "
            "and its measured verdicts; a query unlike those it was fitted on goes without.",
            examples=["var/calibration.json"],
        ),
    ] = None
    max_calibration_age_days: Annotated[
        int,
        Meta(
            ge=1,
            le=3650,
            description="Greatest number of days between a calibration's last outcome and the "
            "query's time; an older calibration is not used.",
        ),
    ] = 180

    def search(self) -> SearchSpec:
        """The default search of a query, alone."""
        return SearchSpec(**{name: getattr(self, name) for name in SearchSpec.__struct_fields__})
