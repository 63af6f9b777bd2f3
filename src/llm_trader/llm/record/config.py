"""Settings of decisions and of their record."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

from llm_trader.config_types import Folder
from llm_trader.llm.expiry import ExpiryConfig


class DecisionsConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How decisions are made, and where they are recorded."""

    record: Annotated[
        Folder,
        Meta(description="Folder of the record of all calls to models and all decisions."),
    ] = Path("var/decisions")
    keep_days: Annotated[
        int,
        Meta(
            ge=2,
            le=36500,
            description="Days for which decisions are kept; `llm-trader decisions prune` removes "
            "what is older.",
        ),
    ] = 3650
    arm: Annotated[
        Literal["rag", "baseline"],
        Meta(
            description="`rag` shows the model what followed similar states; `baseline` is the "
            "same prompt without that."
        ),
    ] = "rag"
    baseline_if_retrieval_fails: Annotated[
        bool,
        Meta(
            description="Decide without evidence where the retrieval fails, and record that; "
            "otherwise it is a HOLD because of an error."
        ),
    ] = False
    longest_hold_hours: Annotated[
        int,
        Meta(ge=1, le=999, description="Hours after which a position is closed, as prompts say."),
    ] = 4
    round_trip_cost_pct: Annotated[
        float,
        Meta(
            ge=0,
            le=100,
            description="Cost of opening and closing a position in % of it, as prompts say.",
        ),
    ] = 0.13
    expiry: ExpiryConfig = ExpiryConfig()
