"""The one specification of a search: on the wire, in the settings, in plans and calibrations."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from llm_trader.config_types import NotASetting

Horizon = Literal["15m", "1h", "4h", "24h"]
QueryVectors = Literal["state", "text", "hybrid"]


class EpisodeSearch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which past episodes are the evidence of a query."""

    vector: Annotated[
        QueryVectors,
        Meta(description="What is compared: the numeric state, its wording, or both by rank."),
    ] = "state"
    lookback_days: Annotated[
        int, Meta(ge=1, le=365, description="Days before the query's time that are searched.")
    ] = 90
    evidence_k: Annotated[
        int, Meta(ge=10, le=500, description="Largest number of past episodes in the evidence.")
    ] = 50
    min_gap_hours: Annotated[
        float,
        Meta(
            ge=0,
            le=168,
            description="Least hours between two matches of one reply; 0 allows overlaps.",
        ),
    ] = 4.0
    include_regime_filters: Annotated[
        bool,
        Meta(
            description="Search only states with a similar change of open interest and the same "
            "sign of funding, where either is pronounced."
        ),
    ] = True

    def episode_fields(self) -> dict[str, Any]:
        """The fields that decide the episodes, also of a subclass, by name."""
        return {name: getattr(self, name) for name in EpisodeSearch.__struct_fields__}


class SearchSpec(EpisodeSearch, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole search: the episodes of the evidence, and what of it a reply shows."""

    top_k: Annotated[int, Meta(ge=1, le=50, description="Largest number of matches returned.")] = 5
    min_similarity: Annotated[
        float, Meta(ge=0, le=1, description="Least cosine similarity of a match.")
    ] = 0.7
    horizons: Annotated[
        tuple[Horizon, ...],
        Meta(min_length=1, description="Horizons in the evidence."),
        NotASetting,
    ] = ("15m", "1h", "4h", "24h")
