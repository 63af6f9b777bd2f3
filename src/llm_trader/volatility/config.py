"""Settings of the volatility model."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from llm_trader.config_types import Folder


class VolatilityConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What volatility is expected of the coming time."""

    model: Annotated[
        Folder | None,
        Meta(
            description="File that `llm-trader volatility fit` wrote; the built-in model by "
            "default. An index belongs to one model: build it again after a change.",
            examples=["var/volatility.json"],
        ),
    ] = None
