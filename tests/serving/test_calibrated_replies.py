"""A calibration from the market store to the replies of a server, over a socket."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from llm_trader.app.calibration_fit import calibrate_from_store
from llm_trader.app.job import Job
from llm_trader.errors import ConfigurationError
from llm_trader.retrieval.calibration import Calibration, write_calibration
from llm_trader.rpc.client import RpcClient
from llm_trader.snapshot.outcome import label_outcomes
from llm_trader.timeframe import DAY_MS, HORIZONS, HOUR_MS, Millis
from tests.cli.corridor import AT_MS, START_MS, SYMBOL, Corridor, answering
from tests.serving.metrics.scraping import Clock, running, scrape

SEARCH = {
    "retrieval__lookback_days": 12,
    "retrieval__min_similarity": 0.0,
    "retrieval__include_regime_filters": False,
}
# The summary says the band, so it is compared without.
ADDED = {"calibrated", "calibration", "band_80", "summary"}


@pytest.fixture(scope="module")
def made(corridor: Corridor) -> Calibration:
    job = Job(corridor.settings(**SEARCH, snapshot__interval_minutes=30), {}, AT_MS)
    times = START_MS + 30 * DAY_MS, START_MS + 50 * DAY_MS
    return calibrate_from_store(job, [SYMBOL], *times, holdout=0.4, seed=0).calibration


@pytest.fixture(scope="module")
def path(made: Calibration, tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("calibration") / "calibration.json"
    write_calibration(made, to)
    return to


async def replies(corridor: Corridor, path: Path | None, *asked: Any, **more: Any) -> list[Any]:
    settings = SEARCH | ({"retrieval__calibration": path} if path else {}) | more
    async with answering(corridor, **settings) as client:
        return [await client.call("rag.query_patterns", question) for question in asked]


def question(timestamp: Millis = AT_MS, symbol: str = SYMBOL, **config: Any) -> dict[str, Any]:
    return {"symbol": symbol, "timestamp": timestamp, "query_config": config}


def bands(reply: Any) -> list[Any]:
    return [of["band_80"] for of in reply["evidence"]["horizons"].values()]


def test_a_server_loads_nothing_of_what_fits_and_evaluates() -> None:
    told = "import sys, llm_trader.app.server; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert "llm_trader.retrieval.calibration" in ran.stdout.split()
    assert "llm_trader.evaluation" not in ran.stdout.split()


async def test_replies_have_the_bands_of_the_file_and_name_it(
    corridor: Corridor, made: Calibration, path: Path
) -> None:
    (reply,) = await replies(corridor, path, question())
    evidence, metadata = reply["evidence"], reply["metadata"]
    assert evidence["calibrated"]
    assert metadata["calibration"] == {"digest": made.digest, "known_by": made.known_by_ms}
    assert metadata["warnings"] == []
    realized_pct = corridor.fields_at(AT_MS, "realized_volatility_24h")["realized_volatility_24h"]
    for name, of in evidence["horizons"].items():
        expected_pct = of["expected_volatility_pct"]
        margin = made.horizons[name].margins.of(expected_pct / realized_pct, AT_MS, SYMBOL)
        low, high = (of["forecast"]["quantiles"][level - 1] for level in (10, 90))
        by = margin * expected_pct
        assert of["band_80"] == pytest.approx((low - by, high + by), abs=1e-9)
        assert margin != 0


async def test_without_one_replies_have_only_empty_fields_more(
    corridor: Corridor, path: Path
) -> None:
    (plain,) = await replies(corridor, None, question())
    (calibrated,) = await replies(corridor, path, question())
    assert plain["metadata"]["calibration"] is None
    assert not plain["evidence"]["calibrated"]
    assert bands(plain) == [None] * len(HORIZONS)
    for part in ("matches", "statistics"):
        assert plain[part] == calibrated[part]
    for name, of in plain["evidence"]["horizons"].items():
        same = calibrated["evidence"]["horizons"][name]
        assert {k: v for k, v in of.items() if k not in ADDED} == {
            k: v for k, v in same.items() if k not in ADDED
        }
        without_band = [re.sub("between .* and .*[)]", "", each["summary"]) for each in (of, same)]
        assert without_band[0] == without_band[1]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (question(AT_MS - 6 * DAY_MS), "after the query's time"),
        (question(symbol="ETHUSDT"), "not ETHUSDT"),
        (question(lookback_days=20), "lookback_days is 12 there, 20 here"),
        (question(lookback_days=3), "300 neighbours, and "),
        (question(include_regime_filters=True), "include_regime_filters is False there"),
    ],
)
async def test_a_query_it_is_not_for_is_answered_without_and_told_why(
    corridor: Corridor, path: Path, asked: dict[str, Any], told: str
) -> None:
    (reply,) = await replies(corridor, path, asked)
    (plain,) = await replies(corridor, None, asked)
    (warning,) = reply["metadata"]["warnings"]
    assert told in warning
    assert reply["metadata"]["calibration"] is None
    assert reply["evidence"] == plain["evidence"]


async def test_a_query_that_only_shows_something_else_has_the_same_bands(
    corridor: Corridor, path: Path
) -> None:
    shown = question(evidence_k=12, min_gap_hours=3, top_k=2, min_similarity=0.5)
    usual, other = await replies(corridor, path, question(), shown)
    assert other["evidence"]["calibrated"]
    assert bands(other) == bands(usual)
    assert other["evidence"]["episodes"] == 12


async def test_one_of_another_feature_version_is_refused_in_every_reply(
    corridor: Corridor, made: Calibration, tmp_path: Path
) -> None:
    scope = msgspec.structs.replace(made.scope, feature_version="v0_5m4h")
    write_calibration(msgspec.structs.replace(made, scope=scope), tmp_path / "old.json")
    for reply in await replies(
        corridor, tmp_path / "old.json", question(), question(AT_MS - HOUR_MS)
    ):
        (warning,) = reply["metadata"]["warnings"]
        assert "feature_version is v0_5m4h there, v2_5m4h here" in warning
        assert bands(reply) == [None] * len(HORIZONS)


async def test_a_stale_one_is_refused(corridor: Corridor, path: Path) -> None:
    fresh, stale = [
        (await replies(corridor, path, question(), retrieval__max_calibration_age_days=days))[0]
        for days in (5, 4)
    ]
    assert fresh["evidence"]["calibrated"]
    assert "more than 4 days before the query's time" in stale["metadata"]["warnings"][0]


async def test_a_server_does_not_start_with_a_file_that_is_no_calibration(
    corridor: Corridor, tmp_path: Path
) -> None:
    (tmp_path / "nonsense.json").write_text("{}")
    with pytest.raises(ConfigurationError, match="llm-trader calibrate"):
        await replies(corridor, tmp_path / "nonsense.json", question())


async def test_metrics_show_the_calibrations_age_and_the_coverage_of_its_bands(
    corridor: Corridor, made: Calibration, path: Path, tmp_path: Path
) -> None:
    clock = Clock(AT_MS)
    own = SEARCH | {"retrieval__calibration": path, "forecasts__folder": tmp_path / "forecasts"}
    async with running(corridor, clock, **own) as server:
        async with await RpcClient.connect(*server.address) as client:
            reply = await client.call("rag.query_patterns", question())
        clock.now_ms = AT_MS + 2 * DAY_MS
        seen = await scrape(server)
    age_s = (clock.now_ms - made.known_by_ms) / 1000
    assert seen.value("llm_trader_calibration_age_seconds") == age_s
    candles = corridor.histories[SYMBOL].intraday
    followed = label_outcomes(candles, np.array([AT_MS], np.int64))[: len(HORIZONS), 0].tolist()
    for name, outcome, (low, high) in zip(HORIZONS, followed, bands(reply), strict=True):
        coverage = seen.value("llm_trader_band_coverage_ratio", horizon=name, band="calibrated")
        assert coverage == float(low <= outcome <= high)
