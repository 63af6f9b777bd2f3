"""Tables row by row say what the arrays say, and leave a cell empty where nothing is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from msgspec.structs import replace

from llm_trader.evaluation.backtest.simulator import Simulation, Trade
from llm_trader.evaluation.backtest.strategies import Backtest, Market, run_backtest
from llm_trader.evaluation.forecast.skills import score_forecasts
from llm_trader.evaluation.plan import StudyPlan
from llm_trader.evaluation.result_files import (
    Steps,
    Study,
    equity_curve,
    forecast_steps,
    write_steps,
    write_study,
    write_trades,
)
from llm_trader.timeframe import DAY_MS, iso8601
from tests.evaluation.report.metrics import made_up_metrics
from tests.evaluation.small_market import (
    NO_FUNDING,
    RULE,
    SEARCH,
    early_walk,
    made_market,
    made_score,
    made_walk,
)

ROUNDED = 0.5e-6
PLAN = StudyPlan(step_minutes=60, search=SEARCH, rules={"4h": RULE})


def read(path: Path) -> pl.DataFrame:
    return pl.read_csv(path, infer_schema_length=None)


def test_steps_read_back_are_the_arrays_and_a_cell_is_empty_where_nothing_is_known(
    tmp_path: Path,
) -> None:
    tables = [
        forecast_steps("state", of)
        for of in score_forecasts(early_walk(), {"1h": RULE, "4h": RULE})
    ]
    path = tmp_path / "steps.csv"
    write_steps(tables, path)
    found = read(path)
    assert len(found) == sum(len(of.time_ms) for of in tables)
    for table in tables:
        rows = found.filter(pl.col("horizon") == table.horizon)
        assert rows["time"].to_list() == [iso8601(at) for at in table.time_ms.tolist()]
        assert set(rows["variant"]) == {"state"}
        assert set(rows["symbol"]) == {"BTCUSDT"}
        assert rows.columns[4:] == list(table.columns)
        for name, column in table.columns.items():
            assert np.array_equal(rows[name].is_null().to_numpy(), np.isnan(column)), name
            told = rows[name].fill_null(np.nan).to_numpy()
            np.testing.assert_allclose(told, column, rtol=0, atol=ROUNDED)
    assert ",," in path.read_text()
    assert "NaN" not in path.read_text()


def test_a_row_holds_the_forecast_and_the_losses_of_its_query() -> None:
    scored = made_score()
    columns = forecast_steps("state", scored).columns
    forecasts, losses, queries = scored.forecasts, scored.losses, scored.walk.queries
    assert {name: column.tolist() for name, column in columns.items()} == {
        "mean_similarity": scored.walk.mean_similarity.tolist(),
        "expected_volatility_pct": queries.column("expected_volatility_4h").tolist(),
        "p10_pct": forecasts.p10.tolist(),
        "median_pct": forecasts.median.tolist(),
        "p90_pct": forecasts.p90.tolist(),
        "p_up": forecasts.p_up.tolist(),
        "observed_pct": queries.column("outcome_4h").tolist(),
        "crps_forecast": losses.forecast.tolist(),
        "crps_forecast_potential": losses.potential.tolist(),
        "crps_random_neighbours": losses.random.tolist(),
        "crps_volatility_model": losses.volatility_model.tolist(),
        "crps_rescaled_base_rate": losses.rescaled_base.tolist(),
        "crps_base_rate": losses.base.tolist(),
    }
    assert (columns["p10_pct"] < columns["median_pct"]).all()
    assert (columns["median_pct"] < columns["p90_pct"]).all()


@pytest.fixture
def traded() -> list[tuple[str, Backtest]]:
    market = Market(made_market().candles, NO_FUNDING)
    return [
        ("BTCUSDT", run_backtest(name, made_walk(), market, PLAN)) for name in ("hold", "macd-sign")
    ]


def test_trades_read_back_are_those_that_were_made(
    traded: list[tuple[str, Backtest]], tmp_path: Path
) -> None:
    path = tmp_path / "trades.csv"
    write_trades(traded, path)
    found = read(path)
    trades = [(of.name, one) for _, of in traded for one in of.simulation.trades]
    assert len(found) == len(trades) > 100
    for (name, one), row in zip(trades, found.iter_rows(named=True), strict=True):
        assert (row["symbol"], row["arm"]) == ("BTCUSDT", name)
        assert (row["side"], row["exit_reason"]) == (one.side, one.exit_reason)
        assert row["entry_time"] == iso8601(one.entry_ms)
        assert row["exit_time"] == iso8601(one.exit_ms)
        for of in ("entry_price", "exit_price", "gross_pct", "fees_pct", "funding_pct", "net_pct"):
            assert row[of] == pytest.approx(getattr(one, of), abs=ROUNDED)


def test_without_trades_there_is_a_table_of_none(
    traded: list[tuple[str, Backtest]], tmp_path: Path
) -> None:
    paths = tmp_path / "none.csv", tmp_path / "some.csv"
    write_trades([], paths[0])
    write_trades(traded, paths[1])
    nothing, something = (read(path) for path in paths)
    assert len(nothing) == 0
    assert nothing.columns == something.columns
    assert len(nothing.columns) == 2 + len(Trade.__struct_fields__)


def test_steps_of_several_symbols_and_variants_stand_below_each_other(tmp_path: Path) -> None:
    one = forecast_steps("state", made_score())
    tables: list[Steps] = [one, one._replace(variant="random"), one._replace(symbol="ETHUSDT")]
    write_steps(tables, tmp_path / "steps.csv")
    found = read(tmp_path / "steps.csv")
    keys = found.select("variant", "symbol").unique(maintain_order=True).rows()
    assert keys == [("state", "BTCUSDT"), ("random", "BTCUSDT"), ("state", "ETHUSDT")]


def test_a_second_run_keeps_the_files_of_the_first(tmp_path: Path) -> None:
    first = replace(made_up_metrics(), created_at="2026-03-20T12:00:00Z")
    second = replace(first, created_at="2026-03-21T12:00:00Z", verdict="worse")
    steps = Steps("state", "BTCUSDT", "1h", np.array([0]), {"crps": np.array([0.1])})
    for metrics in (first, second):
        write_study(Study(metrics, [steps], []), tmp_path)
    kept = tmp_path / "earlier" / "2026-03-20T12-00-00Z"
    names = {"metrics.json", "steps.csv", "trades.csv", "report.html"}
    assert {path.name for path in kept.iterdir()} == names
    created = [
        json.loads((folder / "metrics.json").read_text())["created_at"]
        for folder in (kept, tmp_path)
    ]
    assert created == [first.created_at, second.created_at]


def test_equity_starts_at_one() -> None:
    times_ms = np.arange(0, 3 * DAY_MS, DAY_MS // 4)
    equity = np.linspace(1, 0.9, len(times_ms))
    curve = equity_curve("BTCUSDT", "rag", Simulation([], times_ms, equity, 3 * DAY_MS, 0.9))
    assert curve.value[0] == 1
    assert curve.time_ms == [0, *(day * DAY_MS - DAY_MS // 4 for day in (1, 2, 3))]
