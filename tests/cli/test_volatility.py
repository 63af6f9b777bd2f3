"""`llm-trader volatility fit`: a model of a user's own store, which a setting takes into use."""

from __future__ import annotations

from pathlib import Path

from llm_trader.app.ingestion import ingest_from_store
from llm_trader.app.job import Job
from llm_trader.index.ingestion import IngestReport
from llm_trader.market.simulation import simulate
from llm_trader.market.store import MarketStore
from llm_trader.settings.loading import load_settings
from llm_trader.timeframe import DAY_MS, M5, iso8601
from llm_trader.volatility.model import read_model
from tests.cli.conftest import Typing
from tests.cli.corridor import START_MS, SYMBOL, Corridor, write

FITTED_DAYS = 75
FIT = f"llm-trader volatility fit --start {iso8601(START_MS)}"


def test_a_fitted_model_is_used_from_the_end_of_its_data_on(typed: Typing, tmp_path: Path) -> None:
    store, out = tmp_path / "store", tmp_path / "volatility.json"
    end_ms = START_MS + FITTED_DAYS * DAY_MS
    with MarketStore.open(store, write=True, exchange="binance") as opened:
        write(opened, simulate(SYMBOL, start_ms=START_MS, days=80, seed=1, timeframe=M5))

    ran = typed(f"{FIT} --end {iso8601(end_ms)} --store {store} --out {out}")

    assert ran.code == 0
    assert f"for times from {iso8601(end_ms)} on" in ran.out
    shown = " ".join(ran.out.split())
    assert f"Written to {out}. Use it with the setting volatility.model." in shown
    assert read_model(out).known_by_ms == end_ms

    overrides = {
        "market.store": store,
        "index.path": tmp_path / "index",
        "volatility.model": out,
    }
    job = Job(load_settings(environ={}, overrides=overrides), {}, end_ms + 9 * DAY_MS)
    (report,) = ingest_from_store(job, [SYMBOL], end_ms - DAY_MS, end_ms + 2 * DAY_MS)
    assert isinstance(report, IngestReport)
    assert report.refused == {"the volatility model was fitted to later data": 96}
    assert report.added == 2 * 96 + 1


def test_too_little_data_is_refused_and_nothing_is_written(
    typed: Typing, corridor: Corridor, tmp_path: Path
) -> None:
    out = tmp_path / "volatility.json"
    ran = typed(f"{FIT} --symbols {SYMBOL} --store {corridor.store} --out {out}")
    assert ran.code == 2
    assert "a volatility model needs 60: import more candles" in ran.err
    assert not out.exists()


def test_times_the_wrong_way_round_are_refused(typed: Typing, corridor: Corridor) -> None:
    ran = typed(f"{FIT} --end {iso8601(START_MS - DAY_MS)} --store {corridor.store}")
    assert ran.code == 2
    assert f"lies after --end ({iso8601(START_MS - DAY_MS)}); give the earlier time" in ran.err
