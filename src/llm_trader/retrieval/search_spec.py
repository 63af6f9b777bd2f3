"""The one specification of a search: on the wire, in the settings, in plans and calibrations."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from llm_trader.config_types import NotASetting
from llm_trader.errors import InvalidInputError

Horizon = Literal["15m", "1h", "4h", "24h"]
QueryVectors = Literal["state", "text", "hybrid"]
Detail = Literal["brief", "normal", "full"]
Distance = Annotated[float, Meta(gt=0)]


class NeighbourSearch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a query is compared with, and how."""

    vector: Annotated[
        QueryVectors,
        Meta(description="What is compared: the numeric state, its wording, or both by rank."),
    ] = "state"
    lookback_days: Annotated[
        int, Meta(ge=1, le=365, description="Days before the query's time that are searched.")
    ] = 90
    include_regime_filters: Annotated[
        bool,
        Meta(
            description="Search only states with a similar change of open interest and the same "
            "sign of funding, where either is pronounced."
        ),
    ] = True

    def neighbour_fields(self) -> dict[str, Any]:
        """These fields, also of a subclass, by name."""
        return {name: getattr(self, name) for name in NeighbourSearch.__struct_fields__}


class SearchSpec(NeighbourSearch, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole search: the episodes of the evidence, and what of it a reply shows."""

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
    top_k: Annotated[int, Meta(ge=1, le=50, description="Largest number of matches returned.")] = 5
    min_similarity: Annotated[
        float, Meta(ge=0, le=1, description="Least cosine similarity of a match.")
    ] = 0.7
    horizons: Annotated[
        tuple[Horizon, ...],
        Meta(min_length=1, max_length=4, description="Horizons in the evidence."),
        NotASetting,
    ] = ("15m", "1h", "4h", "24h")
    stop_pct: Annotated[
        Annotated[float, Meta(gt=0, lt=100)] | None,
        Meta(description="Distance of a stop below the price in %, with a target."),
        NotASetting,
    ] = None
    target_pct: Annotated[
        Distance | None,
        Meta(description="Distance of a target above the price in %, with a stop."),
        NotASetting,
    ] = None
    stop_moves: Annotated[
        Distance | None,
        Meta(description="Distance of a stop in moves that are expected of the next 24h."),
        NotASetting,
    ] = None
    target_moves: Annotated[
        Distance | None,
        Meta(description="Distance of a target in moves that are expected of the next 24h."),
        NotASetting,
    ] = None
    detail: Annotated[
        Detail,
        Meta(
            description="brief is an answer of under 2 KB: verdict, reason, a few numbers beside "
            "their base rates, five matches; full adds the past states that the evidence and the "
            "forecast rest on."
        ),
        NotASetting,
    ] = "normal"

    def __post_init__(self) -> None:
        for name in ("stop", "target"):
            if getattr(self, f"{name}_pct") and getattr(self, f"{name}_moves"):
                raise InvalidInputError(
                    f"query_config names the {name} twice; give {name}_pct or {name}_moves"
                )
        stop, target = self.stop_pct or self.stop_moves, self.target_pct or self.target_moves
        if (stop is None) != (target is None):
            raise InvalidInputError(
                "query_config names a stop without a target, or a target without a stop; give both"
            )

    def barriers(self, expected_pct: float) -> tuple[float, float] | None:
        """The stop and the target that it names, in % by the volatility expected of 24h."""
        stop_pct = self.stop_pct or (self.stop_moves and self.stop_moves * expected_pct)
        target_pct = self.target_pct or (self.target_moves and self.target_moves * expected_pct)
        return (stop_pct, target_pct) if stop_pct and target_pct else None
