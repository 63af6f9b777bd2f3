"""Filters for points in the same regime of open interest and funding as the query.

Clients of the prototype know these thresholds, so they are part of the wire's contract.
"""

from __future__ import annotations

from typing import Final

from llm_trader.index.protocol import FieldRange

# The fields whose values decide, in the order of the parameters of `regime_ranges`.
REGIME_FIELDS: Final = ("oi_delta_pct", "funding_rate")
# The names of the filters that may come of them.
REGIME_FILTERS: Final = frozenset({"oi_delta", "funding_sign"})
# Open interest this many % from its 24h mean is pronounced; similar states lie this close to it.
_OI_DELTA_MOVED_PCT: Final = 5.0
_OI_DELTA_WITHIN_PCT: Final = 10.0
# A funding rate per settlement beyond this is one-sided; 0.0001 is the exchanges' neutral rate.
_FUNDING_ONE_SIDED: Final = 0.0001


def regime_ranges(oi_delta_pct: float, funding_rate: float) -> dict[str, FieldRange]:
    """The filters for a state with these values, by name.

    A value that is NaN or unremarkable needs no filter.
    """
    ranges: dict[str, FieldRange] = {}
    if abs(oi_delta_pct) > _OI_DELTA_MOVED_PCT:
        low, high = oi_delta_pct - _OI_DELTA_WITHIN_PCT, oi_delta_pct + _OI_DELTA_WITHIN_PCT
        ranges["oi_delta"] = FieldRange("oi_delta_pct", low, high)
    if funding_rate > _FUNDING_ONE_SIDED:
        ranges["funding_sign"] = FieldRange("funding_rate", low=0.0, exclusive=True)
    elif funding_rate < -_FUNDING_ONE_SIDED:
        ranges["funding_sign"] = FieldRange("funding_rate", high=0.0, exclusive=True)
    return ranges
