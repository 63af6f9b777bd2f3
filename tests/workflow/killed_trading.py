"""Processes that trade at a fake exchange, killed at random while replies are lost.

Each snapshot is posted until it is answered, as a collector does. In each round some are posted and
a process is killed; the next one takes over.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from random import Random
from typing import Any

import msgspec

from llm_trader.delivery.jobs import SnapshotPost
from llm_trader.errors import LlmTraderError
from llm_trader.snapshot.model import MarketSnapshot
from llm_trader.workflow.engine.config import RunsConfig
from llm_trader.workflow.engine.durable.database import run_database
from llm_trader.workflow.engine.protocol import RunSummary
from llm_trader.workflow.nodes.scripts import SCRIPTS
from llm_trader.workflow.orders import client_order_id, is_our_order_id
from tests.exchange.faults import Kind
from tests.exchange.server import FakeExchange
from tests.llm.stub.replies import StubRequest
from tests.llm.stub.server import StubServer
from tests.workflow.exchange.trading_process import real_broker
from tests.workflow.processes import ServingProcess, Surroundings, post_of

# Requests that are not seen or come late, and replies that are lost or damaged.
FAULTS: tuple[Kind, ...] = (
    "disconnect", "cut_off", "damaged", "server_error", "bad_gateway", "silence",
    "lost_request", "late_request",
)  # fmt: skip
FAULTY_SHARE = 0.02
ORDERS = {"binance": "/fapi/v1/order", "bybit": "/v5/order/create"}
POSTS_A_ROUND = 4
LONGEST_LIFE_S = 6.0
# Many times what one takes, lost replies and waits for late fills included.
LONGEST_RUN_S = 240


@dataclass
class Trading:
    """`surroundings` name the exchange; `slots` processes serve at once, several on Postgres."""

    surroundings: Surroundings
    exchange: FakeExchange
    stub: StubServer
    venue: str
    snapshots: Mapping[str, MarketSnapshot]
    rng: Random
    slots: int = 1
    happened: Counter[str] = field(default_factory=Counter)
    posts: list[SnapshotPost] = field(default_factory=list)
    # The run of each snapshot that was answered.
    runs: dict[str, str] = field(default_factory=dict)
    _processes: list[tuple[ExitStack, ServingProcess]] = field(default_factory=list)

    async def go_on(self, count: int) -> None:
        """Posts so many snapshots, with a kill after each few of them."""
        self.stub.decide = self._decision
        while len(self.posts) < count:
            await self._start()
            self._disturb()
            for _ in range(min(POSTS_A_ROUND, count - len(self.posts))):
                self.posts.append(self._new_post())
            posting = asyncio.create_task(self._post_all())
            await asyncio.sleep(self.rng.uniform(0, LONGEST_LIFE_S))
            self._kill(self.rng.randrange(self.slots))
            await posting

    async def end(self) -> dict[str, RunSummary]:
        """The summaries of all runs, when all have ended without further faults and kills."""
        self.exchange.faults.left = 0
        self.exchange.faults.waiting.clear()
        while len(self.runs) < len(self.posts):
            await self._start()
            await self._post_all()
        try:
            return await self._ended()
        finally:
            while self._processes:
                self._kill(0)

    async def _ended(self) -> dict[str, RunSummary]:
        config = RunsConfig(
            folder=self.surroundings.folder / "runs",
            postgres_url=self.surroundings.more.get("workflow.runs.postgres_url"),
        )
        from llm_trader.workflow.engine.durable.run_log import RunLog

        log = RunLog(run_database(config, {}), dict(SCRIPTS))
        try:
            await self._start()
            least, since_s = len(self.posts) + 1, time.monotonic()
            while depth := await log.depth():
                if depth < least:
                    least, since_s = depth, time.monotonic()
                if time.monotonic() - since_s > LONGEST_RUN_S:
                    left = [one for one in await log.runs(limit=100_000) if one.ended_at_ms is None]
                    raise AssertionError(f"no run has ended for {LONGEST_RUN_S} s: {left}")
                # A run waits for an order that the exchange fills later.
                self._fill_late()
                await asyncio.sleep(0.2)
            return {one.run_id: one for one in await log.runs(limit=100_000)}
        finally:
            log.close()

    async def _start(self) -> None:
        while len(self._processes) < self.slots:
            stack = ExitStack()
            process = await asyncio.to_thread(stack.enter_context, self.surroundings.serving())
            try:
                await asyncio.to_thread(lambda p=process: p.port)
            except (LlmTraderError, EOFError) as error:
                # The exchange did not answer it; whoever watches over it starts it again.
                self.happened[f"not started: {error}"] += 1
                await asyncio.to_thread(stack.close)
                continue
            self._processes.append((stack, process))

    def _kill(self, slot: int) -> None:
        stack, process = self._processes.pop(slot)
        process.kill()
        stack.close()
        self.happened["kills"] += 1

    async def _post_all(self) -> None:
        """Those without an answer; what fails is posted again in the next round."""
        for post in self.posts:
            if post.snapshot_id in self.runs:
                continue
            if not self._processes:
                return  # killed meanwhile
            _, process = self.rng.choice(self._processes)
            try:
                receipt = await process.post(post, timeout_s=5.0)
            except (LlmTraderError, OSError, EOFError):
                self.happened["unanswered posts"] += 1
                return
            self.runs[post.snapshot_id] = receipt["run_id"]
            self.happened[receipt["status"]] += 1

    def _new_post(self) -> SnapshotPost:
        """Of a new price, so that each prompt is another one."""
        symbol = self.rng.choice(list(self.snapshots))
        now_ms, market = self.exchange.market.now_ms, self.exchange.market
        share = Decimal(self.rng.randrange(-4000, 4001)) / 1_000_000
        price = (Decimal(str(self.snapshots[symbol].price)) * (1 + share)).quantize(Decimal("0.1"))
        self._in_exchange(lambda: market.account.move_price(symbol, price, now_ms))
        snapshot = msgspec.structs.replace(self.snapshots[symbol], price=float(price))
        post = post_of(snapshot, symbol, now_ms + len(self.posts))
        return msgspec.structs.replace(post, deadline_ms=now_ms + 3_600_000)

    def _disturb(self) -> None:
        rng, faults, account = self.rng, self.exchange.faults, self.exchange.market.account
        faults.at_random(10**9, share=FAULTY_SHARE, kinds=FAULTS, seed=rng.randrange(2**32))
        kinds: list[Kind] = ["disconnect", "cut_off", "silence", "late_request", "lost_request"]
        path, kind = ORDERS[self.venue], rng.choice(kinds)
        chances = [rng.random() for _ in range(4)]

        def change() -> None:
            faults.waiting.clear()
            if chances[0] < 0.5:
                faults.add(kind, path=path, method="POST", late_ms=500)
            if chances[1] < 0.3:
                account.fill_shares = [(Decimal("0.5"), "later" if chances[2] < 0.5 else "expires")]
            if chances[3] < 0.1:
                account.refusals = ["margin"]
            account.fill_late(self.exchange.market.now_ms)

        self._in_exchange(change)

    def _fill_late(self) -> None:
        market = self.exchange.market
        self._in_exchange(lambda: market.account.fill_late(market.now_ms))

    def _in_exchange(self, change: Callable[[], None]) -> None:
        """In its thread, between two requests."""
        self.exchange._loop.call_soon_threadsafe(change)

    def _decision(self, request: StubRequest) -> str:
        draw = Random(request.prompt)
        action = draw.choice(["LONG", "SHORT", "LONG", "SHORT", "HOLD"])
        sizes: dict[str, Any] = dict.fromkeys(["stop_pct", "target_pct", "size_pct"])
        if action != "HOLD":
            sizes = {"stop_pct": -0.5, "target_pct": 0.6, "size_pct": 5.0}
        reply = {"action": action, "confidence": 0.8, "reasoning": "As the test says.", **sizes}
        return json.dumps(reply)


async def check_trading(trading: Trading, ended: Mapping[str, RunSummary]) -> None:
    """Nothing is lost, doubled or unknown, and the positions are those of the exchange."""
    posts, account = trading.posts, trading.exchange.market.account
    assert set(trading.runs) == {post.snapshot_id for post in posts}
    assert set(trading.runs.values()) == set(ended)
    assert len(ended) == len(posts)
    assert Counter(one.state for one in ended.values()) == {"done": len(posts)}, [
        one for one in ended.values() if one.state != "done"
    ]
    orders = Counter(o.client_id for o in account.orders if is_our_order_id(o.client_id))
    assert not [order_id for order_id, count in orders.items() if count > 1]
    opened = {client_order_id(r, str(one.symbol), "o"): one for r, one in ended.items()}
    closed = {
        client_order_id(r, str(one.symbol), role) for r, one in ended.items() for role in "cx"
    }
    assert orders.keys() <= opened.keys() | closed
    assert not [i for i in orders if i in opened and opened[i].action in (None, "HOLD")]
    # A call is repeated at most once, and at most one of each symbol is interrupted by a kill.
    calls = Counter(request.prompt for request in trading.stub.requests)
    assert max(calls.values()) <= 2
    interrupted = len(trading.snapshots) * trading.happened["kills"]
    assert calls.total() <= len(posts) + interrupted
    await _check_positions(trading)
    trading.happened["orders"] = orders.total()
    trading.happened["calls"] = calls.total()
    trading.happened["faults"] = trading.exchange.faults.happened
    trading.happened += Counter(f"execution {one.execution}" for one in ended.values())


async def _check_positions(trading: Trading) -> None:
    exchange, account = trading.exchange, trading.exchange.market.account
    journal = trading.surroundings.more["workflow.exchange.journal"]
    broker = real_broker(exchange.url, trading.venue, journal)
    try:
        await broker.connect()
        await asyncio.sleep(9.1)  # the latest of late requests
        trading._fill_late()
        for symbol in trading.snapshots:
            await broker.reconcile(symbol)
            report = await broker.reconcile(symbol)
            held = account.position(symbol).quantity
            assert report.unknown == ()
            assert report.differences == ()
            assert report.position.quantity == held
            assert broker._journal.expected(symbol).quantity == held
            assert (report.position.stop_price is not None) == bool(held)
    finally:
        await broker.close()


@dataclass
class ComingAndGoing:
    """A RAG server that is killed and comes back, at the same port."""

    port: int
    serving: Callable[[int], Any]
    rng: Random
    kills: int = 0

    async def run(self) -> None:
        while True:
            with ExitStack() as stack:
                enter = stack.enter_context
                await asyncio.to_thread(enter, _entered(self.serving, self.port))
                await asyncio.sleep(self.rng.uniform(2, 8))
            self.kills += 1
            await asyncio.sleep(self.rng.uniform(1, 5))


@contextmanager
def _entered(serving: Callable[[int], Any], port: int) -> Any:
    with serving(port) as process:
        yield process


@asynccontextmanager
async def coming_and_going(server: ComingAndGoing) -> AsyncIterator[ComingAndGoing]:
    task = asyncio.create_task(server.run())
    try:
        yield server
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
