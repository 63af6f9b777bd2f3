"""A candle in progress that another program wrote, from the false outcome to its correction."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llm_trader.cli import options
from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.index.points import COLUMN_ROW
from llm_trader.market.candles import CandleSeries
from llm_trader.market.history import MarketHistory
from llm_trader.market.simulation import simulate
from llm_trader.market.store import MarketStore
from llm_trader.timeframe import (
    DAY_MS,
    HOUR_MS,
    M5,
    M15,
    MINUTE_MS,
    SECOND_MS,
    Millis,
    iso8601,
    parse_rfc3339,
)
from tests.cli.conftest import Typed, Typing
from tests.index.builders import ALWAYS

SYMBOL = "BTCUSDT"
DAYS = 24
OPEN_MS = parse_rfc3339("2026-03-24T12:25:00Z")  # of the candle in progress
CLOSE_MS = OPEN_MS + M5.ms
START_MS = OPEN_MS - OPEN_MS % DAY_MS - (DAYS - 1) * DAY_MS
# The state whose outcome ends with the candle, and the one before it.
FALSE_MS = CLOSE_MS - DAY_MS
BEFORE_MS = FALSE_MS - M15.ms
FALSE_PCT, TRUE_PCT = 7.32, 2.21


def price_before(candles: CandleSeries) -> float:
    row = np.searchsorted(candles.open_time_ms, FALSE_MS - M5.ms)
    return float(candles.close[row])


def candle(change_pct: float) -> CandleSeries:
    """The candle of 12:25, closing so far above the price of a day before."""
    whole = simulated()
    row = whole.intraday.between(OPEN_MS, CLOSE_MS)
    close = price_before(whole.intraday) * (1 + change_pct / 100)
    columns = dict(row.columns()) | {"close": [close]}
    columns["high"] = np.maximum(row.high, close)
    columns["low"] = np.minimum(row.low, close)
    return CandleSeries.validated(M5, {"open_time_ms": [OPEN_MS], **columns})


def simulated() -> MarketHistory:
    return simulate(SYMBOL, start_ms=START_MS, days=DAYS, seed=5, timeframe=M5)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """All that had closed at 12:25, and the candle in progress as it stood at 12:25:21."""
    known = simulated().known_at(OPEN_MS)
    path = tmp_path / "store"
    with MarketStore.open(path, write=True, exchange="bybit") as opened:
        for series in (known.intraday, known.four_hour, known.funding, candle(FALSE_PCT)):
            opened.write(SYMBOL, series, "collector", written_at_ms=OPEN_MS + 21 * SECOND_MS)
        interval_ms = known.open_interest_interval_ms
        opened.write(
            SYMBOL,
            known.open_interest,
            "collector",
            written_at_ms=OPEN_MS,
            interval_ms=interval_ms,
        )
    return path


@pytest.fixture
def run(
    typed: Typing, tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Typed]:
    """Runs a command at a time after 12:25."""

    def at(after_ms: Millis, line: str) -> Typed:
        monkeypatch.setattr(options, "now_ms", lambda: OPEN_MS + after_ms)
        index = "" if " data " in line else f"--index {tmp_path / 'index'}"
        return typed(f"{line} --store {store} {index}")

    return at


def outcome_24h(index: Path, as_of_ms: Millis) -> float | None:
    """The stored outcome of a state; None where the index does not hold it."""

    async def stored() -> float | None:
        with EmbeddedIndex.open(index) as opened:
            points = await opened.scan(SYMBOL, ALWAYS)
        values = points.values[COLUMN_ROW["outcome_24h"], points.timestamp_ms == as_of_ms]
        return float(values[0]) if len(values) else None

    return asyncio.run(stored())


def final_candle(path: Path) -> Path:
    row = candle(TRUE_PCT)
    cells = (column.tolist()[0] for _, column in row.columns())
    path.write_text(
        "timestamp_ms,open,high,low,close,volume\n" + ",".join(map(repr, (OPEN_MS, *cells))) + "\n"
    )
    return path


CHECK = f"llm-trader leak-check --symbols {SYMBOL} --samples 5 --seed 1"


def test_a_candle_in_progress_gives_no_outcome_and_its_correction_reaches_the_index(
    run: Callable[..., Typed], tmp_path: Path
) -> None:
    index = tmp_path / "index"
    early = run(30 * SECOND_MS, "rag-ingest --json").json[0]
    assert early["added"] > 0
    assert outcome_24h(index, BEFORE_MS) is not None
    assert outcome_24h(index, FALSE_MS) is None
    assert run(30 * SECOND_MS, CHECK).code == 0

    # The other program ended, and by the clock its last candle has closed.
    late = run(6 * MINUTE_MS, "rag-ingest --json").json[0]
    assert (late["added"], late["remade"]) == (1, 0)
    assert outcome_24h(index, FALSE_MS) == pytest.approx(FALSE_PCT)
    assert run(6 * MINUTE_MS, CHECK).code == 0

    file = final_candle(tmp_path / "final.csv")
    meaning = f"--exchange bybit --symbol {SYMBOL} --kind candles --interval 5m"
    imported = run(15 * MINUTE_MS, f"llm-trader data import {file} {meaning}")
    assert imported.code == 0
    found = run(15 * MINUTE_MS, CHECK)
    assert found.code == 1
    assert "1 DIFFER" in found.out
    place = f"{SYMBOL} at {iso8601(FALSE_MS)}"
    assert f"{place}: outcome_24h is 7.32, by the data of now 2.21" in found.out
    assert found.out.endswith("  make them again with: rag-ingest\n")

    shown = run(16 * MINUTE_MS, "rag-ingest")
    assert shown.code == 0
    assert "made again" in shown.out
    (row,) = [li for li in shown.out.splitlines() if li.startswith(f"{SYMBOL} ")]
    assert row.split()[-2:] == ["0", "1"]
    assert outcome_24h(index, FALSE_MS) == pytest.approx(TRUE_PCT)
    passed = run(16 * MINUTE_MS, CHECK)
    assert passed.code == 0
    assert "all the same" in passed.out
    again = run(17 * MINUTE_MS, "rag-ingest --json").json[0]
    assert (again["remade"], again["removed"], again["added"]) == (0, {}, 0)


def test_a_false_outcome_of_a_former_version_is_found_by_the_clock_and_removed(
    run: Callable[..., Typed], tmp_path: Path
) -> None:
    index = tmp_path / "index"
    run(6 * MINUTE_MS, "rag-ingest")  # as a version that had no clock
    assert outcome_24h(index, FALSE_MS) == pytest.approx(FALSE_PCT)
    found = run(45 * SECOND_MS, CHECK)
    assert found.code == 1
    assert "outcome_24h is 7.32, by the data of now unknown" in found.out
    remedy = f"rag-ingest --rebuild --start {iso8601(FALSE_MS)}"
    assert found.out.endswith(f"  make them again with: {remedy}\n")

    shown = run(45 * SECOND_MS, remedy)
    assert f"{SYMBOL}: 1 removed that could not be made again, outcome not known yet" in shown.out
    assert outcome_24h(index, FALSE_MS) is None
    assert outcome_24h(index, BEFORE_MS) is not None
    assert run(45 * SECOND_MS, CHECK).code == 0


@pytest.mark.soak
def test_a_correction_of_the_past_is_made_again_whatever_range_is_ingested(
    run: Callable[..., Typed], store: Path
) -> None:
    run(6 * MINUTE_MS, "rag-ingest")
    past_ms = OPEN_MS - 2 * DAY_MS
    part = simulated().intraday.between(past_ms, past_ms + HOUR_MS)
    with MarketStore.open(store, write=True) as opened:
        wrong = replace(part, volume=part.volume + 1)
        opened.write(SYMBOL, wrong, "correction", written_at_ms=OPEN_MS + HOUR_MS)
    line = f"rag-ingest --start {iso8601(OPEN_MS)} --json"
    report = run(HOUR_MS, line).json[0]
    assert report["remade"] > 96
    assert run(HOUR_MS, CHECK).code == 0
