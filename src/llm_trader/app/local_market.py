"""The state of a symbol, and what followed similar states, from store and index in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import numpy as np

from llm_trader.app.indexes import (
    loaded_calibration,
    open_retriever,
    refuse_another_exchange,
    snapshot_rules,
    snapshot_rules_of,
)
from llm_trader.app.ingestion import intraday_timeframe
from llm_trader.app.job import Job
from llm_trader.errors import LlmTraderError, StaleDataError
from llm_trader.llm.cases import case_at
from llm_trader.llm.decision import Case
from llm_trader.market.store import MarketStore
from llm_trader.retrieval.answer import Answer
from llm_trader.retrieval.retriever import Retriever
from llm_trader.settings.tree import Settings
from llm_trader.snapshot.source import SnapshotSource
from llm_trader.snapshot.table import SnapshotTable
from llm_trader.timeframe import Millis


@dataclass(frozen=True, slots=True)
class LocalCase:
    """A case, and why it has no answer or must not be traded, where that is so."""

    case: Case
    retrieval_error: str | None = None
    stale: str | None = None


@dataclass(frozen=True, slots=True)
class LocalMarket:
    """Without a retriever, `retrieval_error` says why there is none."""

    settings: Settings
    source: SnapshotSource
    retriever: Retriever | None
    retrieval_error: str | None

    def versions(self) -> dict[str, str]:
        """Of what states and evidence are made with."""
        versions = {"volatility_model": self.source.rules.volatility.id}
        if self.retriever is not None:
            collection = self.retriever.index.collection
            versions["state_space"] = collection.state_space_id
            versions["feature_version"] = collection.feature_version
            if collection.text_space_id is not None:
                versions["text_space"] = collection.text_space_id
        return versions

    def newest_ms(self, symbol: str) -> Millis | None:
        return self.source.end_ms(symbol)

    def newest_price(self, symbol: str, now_ms: Millis) -> float | None:
        """The close of the newest candle by a time."""
        intraday = self.source.intraday
        start_ms = now_ms - self.settings.serving.max_data_age_ms
        stored = self.source.store.stored_history(symbol, intraday, start_ms, now_ms)
        candles = stored.decode().intraday.between(None, now_ms - intraday.ms + 1)
        return float(candles.close[-1]) if len(candles) else None

    async def case(self, symbol: str, as_of_ms: Millis) -> LocalCase:
        """The newest usable state at a time, with what a server would answer then.

        Raises `SymbolNotFoundError`. Data that is too old, or lacks something, has an unknown
        state.
        """
        view = self.source.view(symbol)
        try:
            state_ms = view.latest_ms(as_of_ms, *self.settings.serving.staleness_limits_ms)
        except StaleDataError as error:
            times = np.array([self.source.grid.floor(as_of_ms)], dtype=np.int64)
            unknown = SnapshotTable.unknown(symbol, self.source.intraday, times)
            reason = error.message.removesuffix(", or send current_state")
            return LocalCase(Case(unknown), stale=reason)
        try:
            answer = await self._answer(view.without_series(state_ms), as_of_ms)
        except LlmTraderError as error:
            return LocalCase(case_at(view, state_ms), retrieval_error=error.message)
        return LocalCase(case_at(view, state_ms, answer), self.retrieval_error)

    async def _answer(self, state: SnapshotTable, as_of_ms: Millis) -> Answer | None:
        if self.retriever is None:
            return None
        return await self.retriever.query(state, as_of_ms, self.settings.retrieval.search())


@asynccontextmanager
async def open_local_market(
    job: Job, symbol: str, *, retrieve: bool = True
) -> AsyncIterator[LocalMarket]:
    """Opens the store and, if `retrieve` is set, the index. An index that cannot be opened raises
    nothing here: every case then carries the reason.
    """
    settings, environ = job.settings, job.environ
    async with AsyncExitStack() as opened:
        store = opened.enter_context(MarketStore.open(settings.market.store))
        retriever, problem = None, None
        if retrieve:
            try:
                retriever = await _open_retriever(settings, environ, store, opened)
            except LlmTraderError as error:
                problem = error.message
        if retriever is None:
            rules, intraday = (
                snapshot_rules(settings),
                intraday_timeframe(settings, store, [symbol]),
            )
        else:
            rules = snapshot_rules_of(retriever.index, settings)
            intraday = retriever.space.intraday
        source = SnapshotSource(store, intraday, settings.snapshot.interval_ms, rules)
        yield LocalMarket(settings, source, retriever, problem)


async def _open_retriever(
    settings: Settings, environ: Mapping[str, str], store: MarketStore, opened: AsyncExitStack
) -> Retriever:
    calibration = loaded_calibration(settings)
    opening = open_retriever(settings, environ, calibration)
    retriever = await opened.enter_async_context(opening)
    refuse_another_exchange(store, retriever.index)
    return retriever
