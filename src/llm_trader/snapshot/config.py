"""Settings of snapshots."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from llm_trader.config_types import DIVIDES_A_DAY
from llm_trader.timeframe import MINUTE_MS, Millis

# Fifteen minutes of 5-minute candles: an exchange's restart, or a collector's.
MAX_HOLE_CANDLES: Final = 3


class SnapshotConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Indicators of one moment."""

    intraday: Annotated[
        Literal["auto", "1m", "3m", "5m"],
        Meta(description="Timeframe of intraday candles; auto is 3m if the store has it, else 5m."),
    ] = "auto"
    interval_minutes: Annotated[
        int,
        Meta(ge=1, le=1440, description="Minutes between snapshots, which divide a day evenly."),
        DIVIDES_A_DAY,
    ] = 15
    max_hole_candles: Annotated[
        int,
        Meta(
            ge=0,
            le=12,
            description="Indicators go on across holes of at most so many candles; after a longer "
            "one they begin anew.",
        ),
    ] = MAX_HOLE_CANDLES

    @property
    def interval_ms(self) -> Millis:
        return self.interval_minutes * MINUTE_MS
