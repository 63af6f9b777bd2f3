"""Runs that trade at an exchange, with kills and lost replies; the RAG server comes and goes."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack, suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest

from llm_trader.llm.record.decisions import DecisionFilter
from llm_trader.llm.record.record import DecisionRecord
from tests.cli.corridor import AT_MS, SYMBOLS, Corridor, serving_process
from tests.exchange.clock import SimulatedClock
from tests.exchange.listings import Listing, listing_of
from tests.exchange.server import FakeExchange
from tests.llm.stub.server import StubServer
from tests.workflow.exchange.accounts import account_config
from tests.workflow.killed_trading import (
    ComingAndGoing,
    Trading,
    check_trading,
    coming_and_going,
)
from tests.workflow.processes import Surroundings

pytest.importorskip("ccxt")

_log = logging.getLogger(__name__)

# Lanes side by side, as runs wait for the exchange most of their time. `KILLED_RUNS` makes it
# shorter.
RUNS = int(os.environ.get("KILLED_RUNS", "1000"))
FEW_RUNS = 32
# The last one has two processes on Postgres.
LANES = (*[("binance", 1), ("bybit", 1)] * 3, ("binance", 1), ("bybit", 2))
SHARES = (*[0.135] * 7, 0.055)


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_a_thousand_runs_with_kills_and_lost_replies_lose_and_double_nothing(
    corridor: Corridor, tmp_path: Path, postgres: Any
) -> None:
    happened = await _happened(
        corridor, tmp_path, LANES, [round(RUNS * share) for share in SHARES], postgres
    )
    assert happened["kills"] > RUNS / 10, happened
    assert happened["with evidence"] > RUNS / 10
    assert happened["baseline"] > RUNS / 20
    assert happened["execution placed"] > RUNS / 4


@pytest.mark.soak
@pytest.mark.timeout(400)
async def test_a_few_runs_with_kills_and_lost_replies_lose_and_double_nothing(
    corridor: Corridor, tmp_path: Path
) -> None:
    """The same in about a minute, without Postgres."""
    happened = await _happened(corridor, tmp_path, LANES[:2], [FEW_RUNS // 2] * 2)
    assert happened["kills"] >= FEW_RUNS / 6, happened
    assert happened["execution placed"] > FEW_RUNS / 4


async def _happened(
    corridor: Corridor,
    folder: Path,
    venues: Sequence[tuple[str, int]],
    counts: Sequence[int],
    postgres: Any = None,
) -> Counter[str]:
    """What happened in the lanes of these venues and slots, when all has been checked."""
    rag = _rag_server(corridor, Random(15))
    async with AsyncExitStack() as opened:
        await opened.enter_async_context(coming_and_going(rag))
        lanes = [
            _lane(opened, corridor, folder / str(number), rag.port, venue, slots, postgres)
            for number, (venue, slots) in enumerate(venues)
        ]
        await asyncio.gather(
            *(_trade(lane, count) for lane, count in zip(lanes, counts, strict=True))
        )
    happened = sum((lane.happened for lane in lanes), Counter[str]())
    happened["rag kills"] = rag.kills
    _log.info("%d runs: %s", sum(counts), dict(happened))
    return happened


def _rag_server(corridor: Corridor, rng: Random) -> ComingAndGoing:
    flags = ("--store", str(corridor.store), "--index", str(corridor.index), "--no-http")
    return ComingAndGoing(
        _lasting_port(rng), lambda port: serving_process(*flags, "--port", str(port)), rng
    )


def _lasting_port(rng: Random) -> int:
    """Below those that the system gives to connections, one of which could take it meanwhile."""
    while True:
        with suppress(OSError), socket.socket() as free:
            free.bind(("127.0.0.1", rng.randrange(20_000, 32_000)))
            return int(free.getsockname()[1])


def _lane(
    opened: AsyncExitStack | ExitStack,
    corridor: Corridor,
    folder: Path,
    rag_port: int,
    venue: str,
    slots: int,
    postgres: Any,
) -> Trading:
    clock = SimulatedClock.starting(AT_MS + 1000)
    listings: list[Listing] = [listing_of(history) for history in corridor.histories.values()]
    exchange = opened.enter_context(FakeExchange(listings, clock))
    stub = opened.enter_context(StubServer())
    account = account_config(exchange.url, folder / "orders.sqlite")
    more: dict[str, Any] = {
        "workflow.broker": venue,
        "workflow.exchange.api_key_env": account.api_key_env,
        "workflow.exchange.api_secret_env": account.api_secret_env,
        f"workflow.exchange.{venue}_url": exchange.url,
        "workflow.exchange.journal": account.journal,
        "workflow.exchange.timeout_s": 1.0,
        "workflow.exchange.receive_window_s": 1.0,
        "workflow.runs.rag_url": f"tcp://127.0.0.1:{rag_port}",
        "workflow.guards.max_data_age_s": 3600,
        "workflow.guards.max_daily_loss_pct": 100,
        "workflow.guards.expiry.max_age_s": 3600,
        "workflow.guards.expiry.max_price_move_pct": 5,
    }
    if slots > 1:
        more |= {"workflow.runs.postgres_url": postgres.new_database(), "workflow.runs.sweep_s": 1}
    folder.mkdir()
    snapshots = {symbol: corridor.state_at(AT_MS, symbol).snapshot(0) for symbol in SYMBOLS}
    surroundings = Surroundings(folder, stub.url, more=more, clock=clock)
    rng = Random(str(folder.name))
    return Trading(surroundings, exchange, stub, venue, snapshots, rng, slots)


async def _trade(lane: Trading, count: int) -> None:
    await lane.go_on(count)
    ended = await lane.end()
    await check_trading(lane, ended)
    with DecisionRecord.open(lane.surroundings.folder / "decisions") as record:
        decisions = [one.decision for one in record.decisions.export(DecisionFilter())]
    assert Counter(one.labels["run"] for one in decisions) == dict.fromkeys(ended, 1)
    for one in decisions:
        # Whatever is decided without evidence says why.
        assert one.has_evidence == (one.arm_used == "rag")
        assert one.has_evidence == (one.retrieval_error is None)
    lane.happened["with evidence"] += sum(one.has_evidence for one in decisions)
    lane.happened["baseline"] += sum(not one.has_evidence for one in decisions)
