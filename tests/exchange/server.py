"""Runs the exchange in a thread on a real socket."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterable
from typing import Any, NamedTuple, Self

from aiohttp import web

from llm_trader.timeframe import Millis
from tests.exchange import binance, binance_account, bybit, bybit_account
from tests.exchange.clock import SimulatedClock
from tests.exchange.faults import TURNED_AWAY, UNSEEN, Faults, failed_reply
from tests.exchange.listings import Listing, by_symbol
from tests.exchange.markets import Market
from tests.exchange.signatures import SignedRequest, signed_request
from tests.exchange.sockets import Sockets, is_upgrade
from tests.exchange.streams import Feed, PushRate


class Asked(NamedTuple):
    path: str
    query: dict[str, str]

    @property
    def is_history(self) -> bool:
        """Whether it is not about the exchange as a whole."""
        return "symbol" in self.query


def exchange_environ(url: str, *, streams: bool = False) -> dict[str, str]:
    """The settings of a process that asks an exchange, and of one that hears it."""
    settings = {"binance_url": url, "bybit_url": url}
    if streams:
        settings["binance_ws_url"] = settings["bybit_ws_url"] = url.replace("http://", "ws://")
    prefix = "LLM_TRADER_MARKET__EXCHANGE__"
    variables = {f"{prefix}{name.upper()}": url for name, url in settings.items()}
    return {**variables, "NO_PROXY": "127.0.0.1"}


class FakeExchange:
    """A context manager. Both venues' interfaces are at `url`, with the same contracts.

    `asked` has all requests; `delay_s` is how long each takes.
    """

    def __init__(
        self,
        listings: Iterable[Listing],
        clock: Millis | SimulatedClock,
        *,
        updates_per_candle: int | None = None,
    ) -> None:
        """`clock` is a time that stands until `market.now_ms` is set, or one that runs.

        `updates_per_candle` limits what streams push; by default it is as much as at the venues.
        """
        self.market = Market(clock, by_symbol(listings))
        self.faults = Faults()
        self.sockets = Sockets(self.market, Feed(self.market, PushRate(updates_per_candle)))
        self.stream_faults = self.sockets.faults
        self.asked: list[Asked] = []
        self.delay_s = 0.0
        self._late: list[tuple[Millis, SignedRequest]] = []
        self.url = ""
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._started.wait(10):
            raise RuntimeError("the fake exchange did not start")
        return self

    def __exit__(self, *raised: object) -> None:
        if self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def environ(self, *, streams: bool = False) -> dict[str, str]:
        return exchange_environ(self.url, streams=streams)

    @property
    def stream_url(self) -> str:
        return self.url.replace("http://", "ws://")

    def history_requests(self) -> list[Asked]:
        return [asked for asked in self.asked if asked.is_history]

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        feeding = asyncio.create_task(self.sockets.run())
        self._started.set()
        await self._stop.wait()
        feeding.cancel()
        await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if is_upgrade(request):
            return await self.sockets.connect(request)
        query = dict(request.query)
        self.asked.append(Asked(request.path, query))
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        signed = await signed_request(request)
        self._let_in_late_ones()
        fault = self.faults.next(request.path, request.method)
        if fault is not None and fault.kind in (*UNSEEN, *TURNED_AWAY):
            if fault.kind == "late_request":
                self._late.append((self.market.now_ms + fault.late_ms, signed))
            return await failed_reply(fault, request, self.market.now_ms, "")
        status, content = self._content(signed)
        if content is None:
            return web.Response(status=404, text="<html>not found</html>")
        text = json.dumps(content)
        if fault is not None:
            return await failed_reply(fault, request, self.market.now_ms, text)
        headers = {"X-MBX-USED-WEIGHT-1M": str(len(self.asked))}
        return web.Response(
            status=status, text=text, headers=headers, content_type="application/json"
        )

    def _let_in_late_ones(self) -> None:
        """Requests whose senders had no reply arrive, if their time has come."""
        now_ms, clock = self.market.now_ms, self.market.clock
        due = [item for item in self._late if item[0] <= now_ms]
        self._late = [item for item in self._late if item[0] > now_ms]
        for due_ms, request in due:
            self.market.clock = due_ms - self.market.skew_ms
            self._content(request)
        # Not the time that it showed: one that runs would stand still from here on.
        self.market.clock = clock

    def _content(self, request: SignedRequest) -> tuple[int, Any]:
        is_bybit = request.path.startswith("/v5/")
        venue, account = (bybit, bybit_account) if is_bybit else (binance, binance_account)
        try:
            if account.is_private(request):
                return 200, account.answer(request, self.market)
            return 200, venue.answer(request.path, request.query, self.market)
        except (binance.RefusedError, bybit.RefusedError) as refused:
            return refused.status, refused.body
