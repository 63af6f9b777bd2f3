"""Filters for points of the same regime of open interest and funding as the query."""

from __future__ import annotations

from typing import Final

from llm_trader.index.protocol import FieldRange
from llm_trader.snapshot.table import SnapshotTable

# Open interest counts as moved from this many % over its 24h mean, and then within as many points.
_OI_DELTA_MOVED_PCT: Final = 5.0
_OI_DELTA_WITHIN_PCT: Final = 10.0
# Funding is one-sided from this rate per settlement.
_FUNDING_ONE_SIDED: Final = 0.0001


def regime_ranges(state: SnapshotTable) -> dict[str, FieldRange]:
    """The filters that the state of a table of one snapshot calls for, by name.

    A field that is unknown, or unremarkable, calls for none.
    """
    ranges: dict[str, FieldRange] = {}
    oi_delta = float(state.column("oi_delta_pct")[0])
    if abs(oi_delta) > _OI_DELTA_MOVED_PCT:
        low, high = oi_delta - _OI_DELTA_WITHIN_PCT, oi_delta + _OI_DELTA_WITHIN_PCT
        ranges["oi_delta"] = FieldRange("oi_delta_pct", low, high)
    funding = float(state.column("funding_rate")[0])
    if funding > _FUNDING_ONE_SIDED:
        ranges["funding_sign"] = FieldRange("funding_rate", low=0.0, exclusive=True)
    elif funding < -_FUNDING_ONE_SIDED:
        ranges["funding_sign"] = FieldRange("funding_rate", high=0.0, exclusive=True)
    return ranges
