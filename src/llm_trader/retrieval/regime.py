"""Filters for points in the same regime of open interest and funding as the query.

Clients of the prototype know these thresholds, so they are part of the wire's contract.
"""

from __future__ import annotations

from typing import Final

from llm_trader.index.protocol import FieldRange
from llm_trader.snapshot.table import SnapshotTable

# Open interest this many % from its 24h mean is pronounced; similar states lie this close to it.
_OI_DELTA_MOVED_PCT: Final = 5.0
_OI_DELTA_WITHIN_PCT: Final = 10.0
# A funding rate per settlement beyond this is one-sided; 0.0001 is the exchanges' neutral rate.
_FUNDING_ONE_SIDED: Final = 0.0001


def regime_ranges(state: SnapshotTable) -> dict[str, FieldRange]:
    """The filters for the single state of a table, by name.

    A field that is unknown or unremarkable needs no filter.
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
