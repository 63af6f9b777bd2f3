"""Series for tests, drawn by hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from llm_trader.market.candles import CandleSeries
from llm_trader.market.samples import FundingSeries, OpenInterestSeries
from llm_trader.timeframe import HOUR_MS, M3, Millis
from tests.market.builders import START_MS

prices = st.floats(min_value=1e-8, max_value=1e9)
amounts = st.floats(min_value=0, max_value=1e15)


@st.composite
def grid_times(draw: st.DrawFn, step_ms: Millis = M3.ms, max_slots: int = 200) -> list[Millis]:
    """Times on the grid with holes."""
    slots = draw(st.sets(st.integers(0, max_slots), max_size=max_slots))
    return [START_MS + slot * step_ms for slot in sorted(slots)]


@st.composite
def any_candles(draw: st.DrawFn) -> CandleSeries:
    """Valid candles of any floats, with holes."""
    times = draw(grid_times(max_slots=30))
    rows = [(sorted(draw(st.tuples(prices, prices, prices, prices))), draw(amounts)) for _ in times]
    return CandleSeries.validated(
        M3,
        {
            "open_time_ms": times,
            "open": [p[1] for p, _ in rows],
            "high": [p[3] for p, _ in rows],
            "low": [p[0] for p, _ in rows],
            "close": [p[2] for p, _ in rows],
            "volume": [volume for _, volume in rows],
        },
    )


@st.composite
def any_funding(draw: st.DrawFn) -> FundingSeries:
    times = draw(grid_times(step_ms=8 * HOUR_MS, max_slots=30))
    rates = st.floats(-0.99, 0.99)
    return FundingSeries.validated(
        {
            "time_ms": times,
            "rate": [draw(rates) for _ in times],
            "interval_hours": [draw(st.sampled_from([1.0, 4.0, 8.0])) for _ in times],
        }
    )


@st.composite
def any_open_interest(draw: st.DrawFn) -> OpenInterestSeries:
    times = draw(grid_times(step_ms=HOUR_MS, max_slots=30))
    values = st.one_of(st.just(float("nan")), amounts)
    return OpenInterestSeries.validated(
        {
            "time_ms": times,
            "open_interest": [draw(amounts) for _ in times],
            "open_interest_value": [draw(values) for _ in times],
        }
    )
