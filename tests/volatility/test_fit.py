"""A fit finds the equation that made the data, and that of BTC 2023 the built-in constants."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from llm_trader.errors import InvalidInputError
from llm_trader.market.file_import import import_folder
from llm_trader.market.store import MarketStore
from llm_trader.timeframe import DAY_MS, M5, M15, parse_rfc3339
from llm_trader.volatility.fit import fit_model
from llm_trader.volatility.model import BUILT_IN
from tests.volatility.candles import START_MS, candles_of, walk, without

DAYS = 90
END_MS = START_MS + DAYS * DAY_MS


def test_what_comes_after_its_end_changes_nothing() -> None:
    series = walk(DAYS + 10)
    cut = series.known_at(END_MS)
    fitted = fit_model([series], START_MS, END_MS, M15.ms)
    assert fitted == fit_model([cut], START_MS, END_MS, M15.ms)
    assert fitted.known_by_ms == END_MS


def test_a_symbol_without_candles_in_that_time_has_no_part_in_it() -> None:
    series = walk(DAYS + 10)
    outside = [series.between(END_MS, None), series.between(None, START_MS)]
    fitted = fit_model([series, *outside], START_MS, END_MS, M15.ms)
    assert fitted == fit_model([series], START_MS, END_MS, M15.ms)


def test_the_unit_of_a_symbol_makes_no_difference() -> None:
    calm = walk(DAYS)
    wild = candles_of(np.exp(10 * np.log(calm.close / 100)))
    one, other = (fit_model([series], START_MS, END_MS, M15.ms) for series in (calm, wild))
    assert one.hour_factors == pytest.approx(other.hour_factors, abs=2e-4)


def test_hours_in_which_prices_move_more_have_greater_factors() -> None:
    factors = np.array(fit_model([walk(DAYS)], START_MS, END_MS, M15.ms).hour_factors)
    assert factors.mean() == pytest.approx(1, abs=1e-3)
    # The walk moves most at 6:00 and least at 18:00.
    assert factors[5:7].min() > 2 * factors[17:19].max()


def test_too_few_days_and_hours_without_candles_are_refused_with_the_remedy() -> None:
    with pytest.raises(InvalidInputError, match="needs 60: import more candles"):
        fit_model([walk(30)], START_MS, START_MS + 30 * DAY_MS, M15.ms)
    whole = walk(DAYS)
    morning = without(whole, whole.open_time_ms % DAY_MS >= DAY_MS // 2)
    with pytest.raises(InvalidInputError, match="an hour of the day has no candles"):
        fit_model([morning], START_MS, END_MS, M15.ms)


@pytest.mark.soak
def test_on_btc_2023_it_finds_the_built_in_constants(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "binance_5m_2023"
    year_end_ms = parse_rfc3339("2024-01-01T00:00:00Z")
    with MarketStore.open(tmp_path / "store", write=True, exchange="binance") as store:
        for file in sorted(folder.glob("*_BTCUSDT_*candles*")):
            import_folder(file, store, exchange="binance", written_at_ms=year_end_ms)
        series = store.candles("BTCUSDT", M5)
    first_ms, last_ms = series.open_time_ms[[0, -1]].tolist()
    fitted = fit_model([series], first_ms, last_ms + M5.ms, M15.ms)
    np.testing.assert_allclose(fitted.hour_factors, BUILT_IN.hour_factors, atol=6e-4)
    for name, terms in BUILT_IN.coefficients.items():
        np.testing.assert_allclose(fitted.coefficients[name], terms, atol=5e-3, err_msg=name)
