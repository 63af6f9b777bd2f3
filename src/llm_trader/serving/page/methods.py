"""The methods that the page needs beside `rag.*`: they only read, and any client may call them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

import msgspec

from llm_trader import errors
from llm_trader.market.jumps import Jump
from llm_trader.rpc.dispatcher import Method, RequestContext
from llm_trader.serving.methods import RagMethods
from llm_trader.serving.page import account, comparison, data_report, evaluations

# Its jumps are looked for in all candles, so any number of open pages shares one search.
_REPORT_KEPT_S: Final = 300.0
# Pages ask for the account twice a minute; a year of trading takes 100 ms to read and add up.
_ACCOUNT_KEPT_S: Final = 10.0


@dataclass
class PageMethods:
    """What `rag` answers from, seen by a person."""

    rag: RagMethods
    books: account.AccountBooks
    _jumps: dict[str, tuple[float, list[Jump]]] = field(default_factory=dict, init=False)
    # Of one question, as all open pages ask the same: when it was read, and what was.
    _account: tuple[account.PaperAccountParams, float, account.PaperAccountResult] | None = field(
        default=None, init=False
    )

    def methods(self) -> list[Method]:
        return [replace(method, handler=partial(method.handler, self)) for method in PAGE_METHODS]

    async def compare_states(
        self, params: comparison.CompareStatesParams, context: RequestContext
    ) -> comparison.CompareStatesResult:
        comparison.refuse_later(params)
        source, limits = self.rag.source(), self.rag.queries.config.staleness_limits_ms
        view = source.view(params.symbol)
        current = view.without_series(view.latest_ms(params.timestamp, *limits))
        past = []
        for other_ms in params.others:
            past.append(view.without_series(source.grid.floor(other_ms)))
            # Each may be of another day, whose states take some milliseconds to build.
            await context.pause()
        return comparison.compare_states(self.rag.queries.retriever.space, current, past)

    async def series_report(
        self, params: data_report.SeriesReportParams, context: RequestContext
    ) -> data_report.SeriesReportResult:
        store = self.rag.source().store
        reports = []
        for series in data_report.series_of(store, params.symbol):
            reports.append(data_report.report_series(store, series))
            await context.pause()
        total, newest = data_report.newest_jumps(await self._jumps_of(params.symbol, context))
        found = [report for report in reports if report is not None]
        return data_report.SeriesReportResult(params.symbol, found, total, newest)

    async def paper_account(
        self, params: account.PaperAccountParams, context: RequestContext
    ) -> account.PaperAccountResult:
        asked = msgspec.structs.replace(params, timeout_ms=None)
        if self._account is not None:
            kept_params, read_s, kept = self._account
            if kept_params == asked and time.monotonic() - read_s < _ACCOUNT_KEPT_S:
                return kept
        read_s = time.monotonic()
        result = await self._read_account(params, context)
        if result.recorded:
            self._account = asked, read_s, result
        return result

    async def list_evaluations(
        self, params: None, context: RequestContext
    ) -> evaluations.EvaluationsResult:
        return evaluations.list_evaluations(self.rag.queries.config.reports)

    async def _read_account(
        self, params: account.PaperAccountParams, context: RequestContext
    ) -> account.PaperAccountResult:
        result, balances = await asyncio.to_thread(self.books.read, params)
        await context.pause()
        source = self.rag.source()
        end_ms = max((source.end_ms(s) or 0 for s in source.store.symbols()), default=0)
        times_ms = account.times_of_curve(balances, end_ms)
        if times_ms is None:
            return result
        prices = {}
        for symbol in account.traded_symbols(balances):
            prices[symbol] = account.prices_at(source.store, symbol, times_ms)
            await context.pause()
        curve = account.equity_curve(balances, times_ms, prices)
        return msgspec.structs.replace(result, curve=curve)

    async def _jumps_of(self, symbol: str, context: RequestContext) -> list[Jump]:
        kept = self._jumps.get(symbol)
        if kept is not None and time.monotonic() - kept[0] < _REPORT_KEPT_S:
            return kept[1]
        jumps: list[Jump] = []
        for part in data_report.jumps_in_parts(self.rag.source().store, symbol):
            jumps += part
            await context.pause()
        self._jumps[symbol] = time.monotonic(), jumps
        return jumps


def page_settings(rag: RagMethods, *, keys_required: bool) -> Mapping[str, Any]:
    """What the page must know before it can ask: no secrets, and nothing about the data."""
    config = rag.queries.config
    return {
        "version": rag.version,
        "keys_required": keys_required,
        "intraday": str(rag.queries.retriever.space.intraday),
        "max_data_age_minutes": config.max_data_age_minutes,
        "rate_limit_per_s": config.rate_limit_per_s,
        "rate_burst": config.rate_burst,
        "work_limit_ms_per_s": config.work_limit_ms_per_s,
        "work_burst_ms": config.work_burst_ms,
        "request_deadline_s": config.request_deadline_s,
    }


_UNBOUND: Final[Any] = PageMethods
_STORE_ERRORS: Final = (errors.SymbolNotFoundError,)

# The documents describe these; `PageMethods.methods` binds them.
PAGE_METHODS: Final = (
    Method(
        "rag.compare_states",
        comparison.CompareStatesParams,
        _UNBOUND.compare_states,
        "Which features make past states like the state at a time, from the server's market store.",
        comparison.CompareStatesResult,
        (errors.SymbolNotFoundError, errors.StaleDataError),
    ),
    Method(
        "rag.series_report",
        data_report.SeriesReportParams,
        _UNBOUND.series_report,
        "How complete a symbol's series are: extent, gaps, refused rows and jumps.",
        data_report.SeriesReportResult,
        _STORE_ERRORS,
    ),
    Method(
        "rag.paper_account",
        account.PaperAccountParams,
        _UNBOUND.paper_account,
        "The workflow's paper account: positions, the newest orders, and equity against holding.",
        account.PaperAccountResult,
    ),
    Method(
        "rag.list_evaluations",
        None,
        _UNBOUND.list_evaluations,
        "The evaluations in the folder of reports, newest first.",
        evaluations.EvaluationsResult,
    ),
)
