"""What must hold on real data: the year 2023, by the plan that the documents report."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_trader.app.evaluation import StudyInputs, evaluate
from llm_trader.app.job import Job
from llm_trader.evaluation.plan import read_plan
from llm_trader.evaluation.results import VERDICT_REFERENCE, Metrics
from llm_trader.market.config import MarketConfig
from llm_trader.market.file_import import import_folder
from llm_trader.market.store import MarketStore
from llm_trader.settings.tree import Settings
from llm_trader.timeframe import parse_rfc3339

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]

PLAN = Path(__file__).parents[2] / "config" / "evaluation" / "binance-2023.toml"


@pytest.fixture(scope="module")
def year(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Metrics:
    folder = tmp_path_factory.mktemp("year")
    data, year_end_ms = real_data / "binance_5m_2023", parse_rfc3339("2024-01-01T00:00:00Z")
    with MarketStore.open(folder / "store", write=True, exchange="binance") as store:
        import_folder(data, store, exchange="binance", written_at_ms=year_end_ms)
    plan = read_plan(PLAN, {}, {"sweep": []})
    settings = Settings(market=MarketConfig(store=folder / "store"))
    return evaluate(StudyInputs(Job(settings, {}, year_end_ms), folder), plan)


def test_negative_controls_find_nothing_and_the_planted_pattern_is_found(year: Metrics) -> None:
    plan = year.origin.plan
    for one in year.controls:
        assert one.passed, one
        if one.kind == "negative":
            # As issued, k neighbours that tell nothing lose a k-th of what their weight squared
            # would. Of 300 that lie beside each other, some 30 are independent.
            cost = plan.rules[one.horizon].weight_of_neighbours ** 2 / 30
            assert one.skill.low <= 0, one
            assert one.skill.high >= -cost, one
        else:
            assert one.skill.low > 0, one


def test_no_probe_finds_a_trace_of_the_future(year: Metrics) -> None:
    assert all(one.checked and one.problem is None for one in year.probes)


@pytest.mark.parametrize("symbol", ["BTCUSDT", "ETHUSDT"])
@pytest.mark.parametrize("horizon", ["1h", "4h"])
def test_forecasts_are_better_than_both_base_rates_and_no_worse_than_the_volatility_model(
    year: Metrics, symbol: str, horizon: str
) -> None:
    against = {
        one.reference: one for one in year.skills if (one.symbol, one.horizon) == (symbol, horizon)
    }
    assert against["base rate"].skill.low > 0
    assert against["rescaled base rate"].skill.low > 0
    assert against[VERDICT_REFERENCE].skill.value >= 0
    assert against["base rate"].verdict == "better"


def test_corrected_bands_hold_78_to_82_percent(year: Metrics) -> None:
    assert len(year.bands) == 8
    for one in year.bands:
        assert 0.78 <= one.after.value <= 0.82, one


def test_corrected_bands_hold_76_to_84_percent_in_each_fifth_of_the_volatility_ratio(
    year: Metrics,
) -> None:
    cells = [one for one in year.band_cells if one.by == "expected / last 24h"]
    assert len(cells) == 40
    for one in cells:
        if one.horizon != "24h":  # a fifth of a year holds 60 days, too few for so narrow a range
            assert 0.76 <= one.after <= 0.84, one
