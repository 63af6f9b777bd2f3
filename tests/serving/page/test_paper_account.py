"""`rag.paper_account`: the books of the workflow's paper account, read beside it."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from llm_trader.market.history import MarketHistory
from llm_trader.rpc.client import RpcError
from llm_trader.serving.page import methods
from llm_trader.timeframe import DAY_MS, HOUR_MS, Millis
from llm_trader.workflow.config import PaperConfig
from llm_trader.workflow.instrument_file import instruments_of
from llm_trader.workflow.orders import OrderIntent, client_order_id
from llm_trader.workflow.paper.broker import PaperBroker
from llm_trader.workflow.paper.feed import MarketFeed
from llm_trader.workflow.paper.ledger import Ledger
from tests.cli.corridor import END_MS, SYMBOL, Corridor, answering

BEGIN_MS = END_MS - 3 * DAY_MS


async def traded(path: Path, histories: Mapping[str, MarketHistory]) -> float:
    """One round trip and an open short; the equity at the end."""
    broker = PaperBroker(Ledger(path), PaperConfig(), instruments_of(None), now_ms=BEGIN_MS)
    history = histories[SYMBOL]
    feed = MarketFeed(SYMBOL, history.intraday.between(BEGIN_MS, None), history.funding)
    for number, (side, kind, quantity) in enumerate(
        [("BUY", "open", "0.05"), ("SELL", "close", "0.05"), ("SELL", "open", "0.03")]
    ):
        at_ms = BEGIN_MS + (1 + 12 * number) * HOUR_MS
        feed.advance(broker, at_ms)
        await broker.place(intent(f"run{number}", side, kind, quantity, at_ms))
    feed.advance(broker, END_MS)
    await broker.place(intent("tooMuch", "BUY", "open", "9999", END_MS - 1))
    equity = (await broker.balance()).equity
    await broker.close()
    return float(equity)


def intent(run: str, side: Any, kind: Any, quantity: str, at_ms: Millis) -> OrderIntent:
    return OrderIntent(
        client_order_id=client_order_id(run, SYMBOL, "o"),
        symbol=SYMBOL,
        side=side,
        quantity=Decimal(quantity),
        kind=kind,
        created_ms=at_ms,
    )


async def test_the_account_is_shown_with_its_equity_against_holding(
    corridor: Corridor, tmp_path: Path
) -> None:
    ledger = tmp_path / "paper.sqlite"
    async with answering(corridor, workflow__paper__ledger=ledger) as client:
        nothing = await client.call("rag.paper_account", {}, dict[str, Any])
        assert (nothing["recorded"], nothing["curve"]) == (False, None)
        assert not ledger.exists()
        # It may begin while the server runs.
        equity = await traded(ledger, corridor.histories)
        found = await client.call("rag.paper_account", {"limit": 3}, dict[str, Any])
        other = await client.call("rag.paper_account", {"symbol": "ETHUSDT"}, dict[str, Any])
    assert (found["recorded"], found["total_orders"], found["deposited"]) == (True, 4, 10_000)
    assert [order["state"] for order in found["orders"]] == ["rejected", "filled", "filled"]
    assert "is available" in found["orders"][0]["reason"]
    assert [fill["side"] for fill in found["fills"]] == ["SELL", "SELL", "BUY"]
    (position,) = found["positions"]
    assert (position["quantity"], position["stop_price"]) == (-0.03, None)
    assert (other["orders"], other["fills"], other["positions"]) == ([], [], [])
    curve = found["curve"]
    assert curve["symbols"] == [SYMBOL]
    assert curve["equity"][0] == curve["holding"][0] == 10_000
    assert curve["equity"][-1] == pytest.approx(equity, abs=1e-6)
    closes = corridor.histories[SYMBOL].intraday
    bought = curve["time"].index(BEGIN_MS + HOUR_MS)
    start = closes.between(None, curve["time"][bought]).close[-1]
    assert curve["holding"][bought] == 10_000
    assert curve["holding"][-1] == pytest.approx(10_000 * closes.close[-1] / start)
    assert None not in curve["equity"]


async def test_a_file_that_is_no_ledger_is_an_error_that_names_it(
    corridor: Corridor, tmp_path: Path
) -> None:
    ledger = tmp_path / "paper.sqlite"
    ledger.write_text("no database, and long enough to look like one" * 30)
    async with answering(corridor, workflow__paper__ledger=ledger) as client:
        with pytest.raises(RpcError, match=rf"the ledger at {ledger} cannot be used"):
            await client.call("rag.paper_account", {}, dict[str, Any])


async def test_open_pages_share_one_reading_for_some_seconds(
    corridor: Corridor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = tmp_path / "paper.sqlite"
    await traded(ledger, corridor.histories)
    async with answering(corridor, workflow__paper__ledger=ledger) as client:
        first = await client.call("rag.paper_account", {}, dict[str, Any])
        ledger.unlink()
        assert await client.call("rag.paper_account", {"timeout_ms": 5000}, dict[str, Any]) == first
        other = await client.call("rag.paper_account", {"limit": 3}, dict[str, Any])
        monkeypatch.setattr(methods, "_ACCOUNT_KEPT_S", 0.0)
        later = await client.call("rag.paper_account", {}, dict[str, Any])
    assert (first["recorded"], other["recorded"], later["recorded"]) == (True, False, False)


async def test_books_at_their_former_place_are_an_error_that_names_both(
    corridor: Corridor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    old = tmp_path / "data" / "paper.sqlite"
    old.parent.mkdir()
    old.touch()
    async with answering(corridor) as client:
        with pytest.raises(RpcError, match=r"var/paper.sqlite .* data/paper.sqlite"):
            await client.call("rag.paper_account", {}, dict[str, Any])
