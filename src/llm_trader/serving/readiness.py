"""Whether the server can answer well now: its index, its market store, its text model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Annotated, Final

from msgspec import Meta, Struct

from llm_trader.errors import LlmTraderError
from llm_trader.index.protocol import IndexInfo
from llm_trader.retrieval.retriever import Retriever
from llm_trader.serving.config import ServingConfig
from llm_trader.snapshot.source import SnapshotSource
from llm_trader.timeframe import MINUTE_MS, Millis, iso8601

# Whoever asks more often gets the same answer, so that asking costs nothing.
_KEPT_S: Final = 1.0
# Probes of Kubernetes wait a second by default; a Qdrant server that is slower helps nobody.
_PATIENCE_S: Final = 0.8
_SYMBOLS_NAMED: Final = 5


class Check(Struct, frozen=True):
    ok: bool
    reason: str


class Readiness(Struct, frozen=True):
    """The answer of `/readyz`."""

    ready: Annotated[bool, Meta(description="Whether all checks are passed.")]
    checks: Annotated[dict[str, Check], Meta(description="Each check with its reason.")]


class ReadinessProbe:
    """Without a `clock` the age of the market's data is not judged."""

    def __init__(
        self,
        retriever: Retriever,
        market: SnapshotSource | None,
        config: ServingConfig,
        clock: Callable[[], Millis] | None,
        *,
        in_qdrant: bool = False,
    ) -> None:
        self._retriever = retriever
        self._in_qdrant = in_qdrant
        self._market = market
        self.config = config
        self._clock = clock
        # Of those that serve on the same ports, (ready, all); None without others.
        self.workers: tuple[int, int] | None = None
        self._last: tuple[float, Readiness] | None = None
        self._lock = asyncio.Lock()

    async def readiness(self) -> Readiness:
        async with self._lock:
            if self._last is None or time.monotonic() - self._last[0] > _KEPT_S:
                checks = await self._index_checks()
                checks["market_store"] = self._market_check()
                checks["text_model"] = self._text_check()
                if self.workers is not None:
                    # One that can answer is asked here; the others are no reason to turn away.
                    checks["workers"] = Check(True, "{} of {} serve".format(*self.workers))
                ready = all(check.ok for check in checks.values())
                self._last = time.monotonic(), Readiness(ready, checks)
            return self._last[1]

    async def _index_checks(self) -> dict[str, Check]:
        index = self._retriever.index
        try:
            async with asyncio.timeout(_PATIENCE_S):
                info = await index.info()
        except TimeoutError:
            return self._unseen_index(f"{index.location} did not answer within {_PATIENCE_S:g} s")
        except LlmTraderError as error:
            return self._unseen_index(error.message)
        checks = {"index": self._index_check(info)}
        if self._in_qdrant:
            checks["qdrant"] = Check(True, "it answers")
        return checks

    def _unseen_index(self, reason: str) -> dict[str, Check]:
        if not self._in_qdrant:
            return {"index": Check(False, reason)}
        return {
            "index": Check(False, "it is in Qdrant, which does not describe it"),
            "qdrant": Check(False, reason),
        }

    def _index_check(self, info: IndexInfo) -> Check:
        if info.collection.state_space_id != self._retriever.space.space_id:
            return Check(False, f"{info.location} was rebuilt with other features; restart")
        if not info.symbols:
            return Check(False, f"{info.location} is empty; add states with rag-ingest")
        points = sum(symbol.points for symbol in info.symbols)
        return Check(True, f"{points} states of {len(info.symbols)} symbols")

    def _market_check(self) -> Check:
        if self._market is None:
            return Check(True, "there is none; queries must contain their state")
        try:
            symbols = self._market.store.symbols()
            ends = ((symbol, self._market.end_ms(symbol)) for symbol in symbols)
            ends_ms = {symbol: end_ms for symbol, end_ms in ends if end_ms is not None}
        except LlmTraderError as error:
            return Check(False, error.message)
        if not ends_ms:
            return Check(False, "it has no candles of the index's timeframe; collect data")
        newest_ms = max(ends_ms.values())
        if self._clock is None:
            return Check(True, f"the newest candle closed at {iso8601(newest_ms)}")
        oldest_ms = self._clock() - self.config.max_data_age_ms
        stale = sorted(symbol for symbol, end_ms in ends_ms.items() if end_ms < oldest_ms)
        if len(stale) == len(ends_ms):
            return Check(
                False,
                f"the newest candle closed at {iso8601(newest_ms)}, longer ago than "
                f"{self.config.max_data_age_ms // MINUTE_MS} minutes "
                "(serving.max_data_age_minutes); collect newer data",
            )
        return Check(True, f"{len(ends_ms) - len(stale)} symbols are fresh{_named(stale)}")

    def _text_check(self) -> Check:
        texts = self._retriever.texts
        return Check(True, "not used" if texts is None else f"{texts.model} is loaded")


def _named(stale: list[str]) -> str:
    if not stale:
        return ""
    more = ", …" if len(stale) > _SYMBOLS_NAMED else ""
    return f"; {len(stale)} are not: {', '.join(stale[:_SYMBOLS_NAMED])}{more}"
