"""What is read at a scrape has a bound, and what fails is shown as down."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

from llm_trader.errors import StoreError
from llm_trader.index.protocol import IndexInfo, SymbolPoints
from llm_trader.market.series_ages import SeriesAge
from llm_trader.retrieval.reference import LruCache
from llm_trader.rpc.admission import Admission
from llm_trader.rpc.config import RpcConfig
from llm_trader.rpc.keys import KeyRing
from llm_trader.serving.metrics.readings import MAX_SYMBOLS, Sources, read
from llm_trader.timeframe import M5

NOW_MS = 1_735_689_600_000


class Index:
    """Holds a point of each symbol."""

    def __init__(self, symbols: Iterable[str]) -> None:
        self._symbols = [SymbolPoints(symbol, 1, NOW_MS, NOW_MS) for symbol in symbols]

    async def info(self) -> IndexInfo:
        nothing: Any = None
        return IndexInfo(
            backend="embedded", location="", collection=nothing, symbols=self._symbols, runs=[]
        )

    def cache_use(self) -> dict[str, tuple[int, int]]:
        return {"heads": (5, 2)}


class Store:
    def __init__(self, symbols: Iterable[str]) -> None:
        self._symbols = symbols

    def series_ages(self, now_ms: int | None) -> list[SeriesAge]:
        return [SeriesAge(symbol, "candles_5m", NOW_MS, 0.0) for symbol in self._symbols]

    def series_extents(self) -> list[Any]:
        return []


class FailingStore(Store):
    def series_ages(self, now_ms: int | None) -> list[SeriesAge]:
        raise StoreError("torn")

    def series_extents(self) -> list[Any]:
        raise StoreError("torn")


def samples(index: Index, store: Store) -> dict[tuple[str, frozenset[Any]], float]:
    retriever = SimpleNamespace(
        index=index,
        texts=SimpleNamespace(local_hits=7, shared_hits=3, encoded=1),
        calibration=None,
        space=SimpleNamespace(feature_version="v0"),
        caches={"base_rates": LruCache[str, int](1)},
    )
    market = SimpleNamespace(store=store, intraday=M5, day_hits=4, day_misses=2)
    gate = Admission(RpcConfig(), KeyRing())
    parts: Any = retriever, market, gate, None, "1.2.3", lambda: NOW_MS
    readings = asyncio.run(read(Sources(*parts)))
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in readings.collect()
        for sample in family.samples
    }


def symbols_of(found: dict[tuple[str, frozenset[Any]], float], name: str) -> set[str]:
    return {dict(labels)["symbol"] for known, labels in found if known == name}


def test_only_so_many_symbols_have_metrics_and_the_others_are_counted() -> None:
    symbols = [f"S{n:04}USDT" for n in range(MAX_SYMBOLS + 150)]
    found = samples(Index(symbols[100:]), Store(symbols[: MAX_SYMBOLS + 100]))
    shown = set(symbols[:MAX_SYMBOLS])
    assert symbols_of(found, "llm_trader_snapshot_freshness_seconds") == shown
    assert symbols_of(found, "llm_trader_index_points") == shown - set(symbols[:100])
    assert found["llm_trader_symbols_left_out", frozenset()] == 150


def test_a_store_that_fails_is_down_and_the_index_is_still_shown() -> None:
    found = samples(Index(["BTCUSDT"]), FailingStore([]))
    assert found["llm_trader_store_up", frozenset()] == 0
    assert found["llm_trader_index_up", frozenset()] == 1
    assert symbols_of(found, "llm_trader_index_points") == {"BTCUSDT"}
    assert symbols_of(found, "llm_trader_snapshot_freshness_seconds") == set()


def test_caches_of_texts_and_of_the_backend_are_counted() -> None:
    found = samples(Index([]), Store([]))
    counts = {
        (dict(labels)["cache"], dict(labels)["result"]): value
        for (name, labels), value in found.items()
        if name == "llm_trader_cache_requests_total"
    }
    assert counts == {
        ("days", "hit"): 4,
        ("days", "miss"): 2,
        ("base_rates", "hit"): 0,
        ("base_rates", "miss"): 0,
        ("text_vectors", "hit"): 7,
        ("text_vectors", "miss"): 4,
        ("shared_text_vectors", "hit"): 3,
        ("shared_text_vectors", "miss"): 1,
        ("heads", "hit"): 5,
        ("heads", "miss"): 2,
    }
