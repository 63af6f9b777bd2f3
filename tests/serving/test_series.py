"""Pages of stored series, from a real store and over a socket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from llm_trader.errors import InvalidInputError, SymbolNotFoundError
from llm_trader.market.store import MarketStore
from llm_trader.rpc.client import RpcError
from llm_trader.serving.series import (
    MAX_ROWS,
    CandlesParams,
    SeriesParams,
    read_candles,
    read_funding,
    read_open_interest,
)
from llm_trader.timeframe import DAY_MS, HOUR_MS, M5
from tests.cli.corridor import DAYS, END_MS, START_MS, SYMBOL, SYMBOLS, Corridor, answering
from tests.market.builders import run_of_candles


@pytest.fixture
def store(corridor: Corridor) -> Iterator[MarketStore]:
    with MarketStore.open(corridor.store) as opened:
        yield opened


def candles(**changes: Any) -> CandlesParams:
    given = {"symbol": SYMBOL, "start": START_MS, "end": END_MS, "timeframe": "5m"}
    return CandlesParams(**{**given, **changes})


def of_symbol(**changes: Any) -> SeriesParams:
    return SeriesParams(**{"symbol": SYMBOL, "start": START_MS, "end": END_MS, **changes})


def test_pages_of_candles_make_up_the_series(store: MarketStore, corridor: Corridor) -> None:
    end_ms = START_MS + 10 * DAY_MS
    times, closes, start_ms = [], [], START_MS
    while start_ms is not None:
        page = read_candles(store, candles(start=start_ms, end=end_ms))
        times += page.open_time
        closes += page.close
        start_ms = page.next_start
    whole = corridor.histories[SYMBOL].intraday.between(START_MS, end_ms)
    assert times == whole.open_time_ms.tolist()
    assert closes == whole.close.tolist()


def test_a_page_has_no_more_rows_than_asked_for(store: MarketStore) -> None:
    page = read_candles(store, candles(limit=3))
    assert page.open_time == [START_MS, START_MS + M5.ms, START_MS + 2 * M5.ms]
    assert page.next_start == START_MS + 3 * M5.ms
    assert len(read_candles(store, candles()).open_time) == MAX_ROWS
    with pytest.raises(msgspec.ValidationError, match="<= 1000"):
        msgspec.convert({**msgspec.to_builtins(candles()), "limit": 1001}, CandlesParams)


def test_the_end_is_left_out_and_the_last_page_has_no_next(store: MarketStore) -> None:
    page = read_candles(store, candles(end=START_MS + 2 * M5.ms))
    assert page.open_time == [START_MS, START_MS + M5.ms]
    assert page.next_start is None


def test_a_range_before_or_after_the_data_is_empty_or_begins_with_it(store: MarketStore) -> None:
    before = read_candles(store, candles(start=START_MS - 900 * DAY_MS, limit=1))
    assert before.open_time == [START_MS]
    for start_ms, end_ms in ((END_MS, END_MS + DAY_MS), (START_MS - DAY_MS, START_MS)):
        empty = read_candles(store, candles(start=start_ms, end=end_ms))
        assert (empty.open_time, empty.close, empty.next_start) == ([], [], None)


def test_funding_and_open_interest_are_those_of_the_store(
    store: MarketStore, corridor: Corridor
) -> None:
    history = corridor.histories[SYMBOL]
    funding = read_funding(store, of_symbol())
    assert len(funding.time) == DAYS * 3
    assert funding.rate == history.funding.between(START_MS, END_MS).rate.tolist()
    assert set(funding.interval_hours) == {8.0}
    assert funding.next_start is None
    interest = read_open_interest(store, of_symbol(end=START_MS + DAY_MS))
    samples = history.open_interest.between(START_MS, START_MS + DAY_MS)
    assert interest.time == samples.time_ms.tolist()
    assert interest.open_interest == samples.open_interest.tolist()
    assert read_funding(store, of_symbol(limit=2)).next_start == START_MS + 16 * HOUR_MS


def test_pages_go_on_after_a_hole(tmp_path: Path) -> None:
    whole = run_of_candles(100)
    first_ms = int(whole.open_time_ms[0])
    kept = np.r_[0:10, 60:100]
    columns = {name: values[kept] for name, values in whole.columns()}
    holed = type(whole).validated(
        whole.timeframe, {"open_time_ms": whole.open_time_ms[kept], **columns}
    )
    with MarketStore.open(tmp_path, write=True, exchange="simulated") as store:
        store.write(SYMBOL, holed, "made", written_at_ms=0)
        times, start_ms = [], first_ms
        while start_ms is not None:
            asked = candles(
                start=start_ms,
                end=first_ms + DAY_MS * 30,
                limit=20,
                timeframe=str(whole.timeframe),
            )
            page = read_candles(store, asked)
            assert page.open_time
            times += page.open_time
            start_ms = page.next_start
    assert times == holed.open_time_ms.tolist()


def test_what_the_store_does_not_have_is_named(store: MarketStore) -> None:
    with pytest.raises(InvalidInputError, match="no 3m candles of BTCUSDT; stored: 5m, 4h"):
        read_candles(store, candles(timeframe="3m"))
    with pytest.raises(InvalidInputError, match="'soon' is not like 3m"):
        read_candles(store, candles(timeframe="soon"))
    with pytest.raises(InvalidInputError, match="end: must be after start"):
        read_candles(store, candles(end=START_MS))
    for read, params in (
        (read_candles, candles(symbol="NOSUCH")),
        (read_funding, of_symbol(symbol="NOSUCH")),
        (read_open_interest, of_symbol(symbol="NOSUCH")),
    ):
        with pytest.raises(SymbolNotFoundError) as raised:
            read(store, params)
        assert raised.value.details == {"available": list(SYMBOLS)}


async def test_series_are_methods_of_json_rpc(corridor: Corridor) -> None:
    async with answering(corridor) as client:
        params = {"symbol": SYMBOL, "start": START_MS, "end": END_MS, "limit": 2}
        page = await client.call("rag.get_candles", {**params, "timeframe": "4h"})
        assert page["next_start"] - page["open_time"][0] == 8 * HOUR_MS
        assert (await client.call("rag.get_funding", params))["time"][0] == START_MS
        assert len((await client.call("rag.get_open_interest", params))["open_interest"]) == 2
        with pytest.raises(RpcError) as raised:
            await client.call("rag.get_funding", {**params, "symbol": "NOSUCH"})
        assert raised.value.rpc_code == -32002
