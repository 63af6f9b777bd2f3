"""A market of which the expected volatility is all that can be known."""

from __future__ import annotations

from llm_trader.index.points import PointTable
from llm_trader.timeframe import HORIZONS
from tests.index.builders import at
from tests.retrieval.builders import outcomes_at, points_of, states_at

_SPREADS = {"15m": 0.3, "1h": 0.6, "4h": 1.2, "24h": 3.0}


def made_up(seed: int = 0, *, days: int = 48) -> PointTable:
    """Outcomes in proportion to the expected volatility, so that in its units they are alike."""
    slots = range(days * 96)
    states, outcomes = states_at(at(slots), seed), outcomes_at(len(slots), seed)
    for row, name in enumerate(HORIZONS):
        outcomes[row] *= states.column(f"expected_volatility_{name}") / _SPREADS[name]
    return points_of(states, outcomes)
