"""What `workflow serve` does beside its runs: its own snapshots, and prices on paper."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from llm_trader.app.job import Job
from llm_trader.app.llm_deciders import DeciderChoice
from llm_trader.app.workflow.paper_prices import PaperPrices
from llm_trader.app.workflow.parts import open_parts
from llm_trader.app.workflow.timetable import Timetable
from llm_trader.clock import WallClock
from llm_trader.delivery.jobs import SnapshotPost
from llm_trader.errors import ConfigurationError
from llm_trader.market.store import MarketStore
from llm_trader.timeframe import M15, MINUTE_MS, Millis, Timeframe
from llm_trader.workflow.orders import Placed
from llm_trader.workflow.values import Received
from tests.cli.corridor import AT_MS, SYMBOL, SYMBOLS, Corridor
from tests.workflow.builders import intent, paper_broker


@dataclass
class QuickClock:
    """Time passes when somebody sleeps."""

    time_ms: Millis

    def now_ms(self) -> Millis:
        return self.time_ms

    async def sleep(self, seconds: float) -> None:
        # Who sleeps until the next boundary leaves the others time for this one.
        await asyncio.sleep(0.5 if seconds > 60 else 0.001)
        self.time_ms += round(seconds * 1000)


async def _posts(corridor: Corridor, every: Timeframe, count: int) -> list[SnapshotPost]:
    posts: list[SnapshotPost] = []
    enough = asyncio.Event()

    async def take(post: SnapshotPost) -> None:
        posts.append(post)
        if len(posts) >= count:
            enough.set()

    with MarketStore.open(corridor.store) as store:
        clock = QuickClock(AT_MS + MINUTE_MS)
        table = Timetable(corridor.settings(), store, [], every, clock)
        task = asyncio.create_task(table.follow(take))
        done, _ = await asyncio.wait(
            {task, asyncio.create_task(enough.wait())},
            timeout=30,
            return_when=asyncio.FIRST_COMPLETED,
        )
        task.cancel()
        await asyncio.gather(*done, task, return_exceptions=True)
        if task in done and not task.cancelled() and (error := task.exception()):
            raise error
    return posts


async def test_snapshots_of_all_symbols_are_made_at_each_boundary(corridor: Corridor) -> None:
    posts = await _posts(corridor, M15, 4)
    times = sorted({post.snapshot.timestamp for post in posts})
    assert times[:2] == [AT_MS + M15.ms, AT_MS + 2 * M15.ms]
    first = [post for post in posts if post.snapshot.timestamp == times[0]]
    assert {post.snapshot.symbol for post in first} == set(SYMBOLS)
    state = corridor.state_at(times[0]).snapshot(0)
    assert next(p.snapshot for p in first if p.snapshot.symbol == SYMBOL) == state


async def test_an_order_fills_at_the_first_candle_after_it(corridor: Corridor) -> None:
    now = [AT_MS + 2_000]
    candles = corridor.histories[SYMBOL].intraday
    with MarketStore.open(corridor.store) as store:
        broker = paper_broker()
        prices = PaperPrices(broker, store, WallClock(lambda: now[0]))
        state = corridor.state_at(AT_MS).snapshot(0)
        prices.seen(
            Received(
                symbol=SYMBOL,
                as_of_ms=AT_MS,
                snapshot=state,
                snapshot_id="x",
                received_at_ms=now[0],
            )
        )
        assert (await broker.quote(SYMBOL)).price == Decimal(repr(state.price))
        order = msgspec.structs.replace(intent("a-run", "0.5"), created_ms=now[0] + 500)
        assert (await broker.place(order)) == Placed(
            client_order_id=order.client_order_id, waiting=True
        )
        now[0] += 11 * MINUTE_MS
        following = asyncio.create_task(prices.follow())
        async with asyncio.timeout(20):
            while broker.waiting_symbols():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    (fill,) = await broker.fills(0)
    row = int((candles.open_time_ms >= order.created_ms).argmax())
    assert fill.time_ms == candles.open_time_ms[row]
    assert fill.price == Decimal(repr(float(candles.open[row])))


async def test_live_trading_needs_an_exchange_and_both_words(
    corridor: Corridor, tmp_path: Path
) -> None:
    settings = corridor.settings(
        workflow__paper__ledger=tmp_path / "paper.sqlite", decisions__record=tmp_path / "record"
    )
    job = Job(settings, {}, AT_MS)
    with pytest.raises(ConfigurationError, match="this one trades on paper"):
        async with open_parts(job, DeciderChoice("aggregator"), lambda: AT_MS, live=True):
            pass
