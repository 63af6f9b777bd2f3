"""Settings of the archive of Binance."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from llm_trader.config_types import Url


class ArchiveConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The archive of Binance, for `llm-trader data archive`."""

    url: Annotated[
        Url,
        Meta(
            pattern=r"^https?://[^/]+",
            description="Address of the archive, or of a copy of it.",
        ),
    ] = "https://data.binance.vision"
    parallel: Annotated[
        int, Meta(ge=1, le=32, description="Files that are downloaded at the same time.")
    ] = 6
    timeout_seconds: Annotated[
        float,
        Meta(ge=0.1, le=600, description="How long a reply may let wait for its next bytes."),
    ] = 30.0
