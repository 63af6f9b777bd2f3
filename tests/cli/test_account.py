"""`positions`, `orders`, `ledger check`, `kill` and `status`, typed as a user would."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from llm_trader.market.simulation import simulate
from llm_trader.workflow.exchange.journal import OrderJournal
from llm_trader.workflow.orders import Placed, Unknown
from llm_trader.workflow.paper.ledger import Ledger
from tests.cli.conftest import Typing
from tests.cli.corridor import SYMBOL, Corridor
from tests.exchange.listings import listing_of
from tests.exchange.server import FakeExchange
from tests.exchange.signatures import KEY_VARIABLES
from tests.serving.page.test_paper_account import intent, traded
from tests.workflow.builders import START_MS, paper_broker
from tests.workflow.exchange.accounts import fresh_account


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All files of the workflow are here."""
    monkeypatch.chdir(tmp_path)
    paths = {
        "WORKFLOW__PAPER__LEDGER": "paper.sqlite",
        "WORKFLOW__EXCHANGE__JOURNAL": "orders.sqlite",
        "WORKFLOW__GUARDS__KILL_SWITCH": "kill-switch",
    }
    for name, value in paths.items():
        monkeypatch.setenv(f"LLM_TRADER_{name}", str(tmp_path / value))
    return tmp_path


def paper(folder: Path, corridor: Corridor) -> float:
    return asyncio.run(traded(folder / "paper.sqlite", corridor.histories))


def sent(folder: Path) -> None:
    """Two orders went to an exchange, and nobody knows of the second."""
    journal = OrderJournal(folder / "orders.sqlite")
    for number, name in enumerate(("first", "second")):
        order = intent(name, "BUY", "open", "0.5", number)
        journal.claim(order, number, void_before_ms=0)
        id_ = order.client_order_id
        if number:
            journal.note(id_, "unknown", Unknown(client_order_id=id_, reason="no reply came"))
        else:
            bought = Placed(client_order_id=id_, average_price=Decimal(100))
            journal.note(id_, "placed", bought)
    journal.close()


def test_before_anything_was_traded_they_say_how_it_begins_and_make_no_file(
    folder: Path, typed: Typing
) -> None:
    for command in ("positions", "orders", "ledger check"):
        ran = typed(f"llm-trader {command}")
        assert (ran.code, ran.out) == (2, "")
        assert "llm-trader workflow serve" in ran.err
    ran = typed("llm-trader status")
    assert (ran.code, ran.err) == (0, "")
    assert "The kill switch is off." in ran.out
    assert "There is no paper account" in ran.out
    assert list(folder.iterdir()) == []


def test_the_paper_account_is_shown_as_its_broker_has_it(
    folder: Path, typed: Typing, corridor: Corridor
) -> None:
    equity = paper(folder, corridor)
    found = typed("llm-trader positions --json").json
    assert float(found["equity"]) == pytest.approx(equity)
    (position,) = found["positions"]
    assert (position["symbol"], position["quantity"]) == (SYMBOL, "-0.03")
    assert position["stop_price"] is None
    profit = (Decimal(position["price"]) - Decimal(position["entry_price"])) * Decimal("-0.03")
    assert Decimal(position["unrealized"]) == profit
    assert f"Equity {equity:,.2f} USDT." in typed("llm-trader positions").out
    assert f"Equity {equity:,.2f} USDT. 1 open position." in typed("llm-trader status").out


def test_an_order_that_waits_for_a_price_is_no_position_and_is_not_passed_over(
    folder: Path, typed: Typing
) -> None:
    async def waits() -> None:
        broker = paper_broker(ledger=Ledger(folder / "paper.sqlite"))
        await broker.place(intent("first", "BUY", "open", "0.5", 1))
        await broker.close()

    asyncio.run(waits())
    assert typed("llm-trader positions --json").json["waiting_orders"] == 1
    for command in ("positions", "status"):
        assert "1 order waits to be filled." in " ".join(typed(f"llm-trader {command}").out.split())


def test_orders_are_listed_newest_first_with_what_became_of_them(
    folder: Path, typed: Typing, corridor: Corridor
) -> None:
    paper(folder, corridor)
    found = typed("llm-trader orders --json").json
    assert [one["state"] for one in found["orders"]] == ["rejected", "filled", "filled", "filled"]
    ran = typed("llm-trader orders --limit 1 --symbol btcusdt")
    assert "is available" in ran.out
    assert "1 of 4" in ran.out
    assert "no such orders" in typed("llm-trader orders --symbol ETHUSDT").out


def test_of_an_exchange_the_journal_says_what_was_sent_and_what_is_unknown(
    folder: Path, typed: Typing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_TRADER_WORKFLOW__BROKER", "bybit")
    assert "no order was sent" in typed("llm-trader orders").err
    sent(folder)
    found = typed("llm-trader orders --json").json
    assert (found["total"], [one["state"] for one in found["orders"]]) == (2, ["unknown", "placed"])
    assert [one["average_price"] for one in found["orders"]] == [None, "100"]
    status = typed("llm-trader status --json").json
    assert (status["unsettled"], status["account"], status["live"]) == (1, None, False)
    assert "workflow.exchange.api_key_env" in status["unknown"]["account"]
    assert "Nobody knows yet what became of 1 order." in typed("llm-trader status").out


@pytest.fixture(scope="module")
def exchange() -> Iterator[FakeExchange]:
    listings = [listing_of(simulate(SYMBOL, start_ms=START_MS, days=1, seed=3))]
    with FakeExchange(listings, START_MS) as running:
        yield running


def test_an_exchange_is_asked_for_the_account(
    folder: Path, typed: Typing, monkeypatch: pytest.MonkeyPatch, exchange: FakeExchange
) -> None:
    settings = {
        "BROKER": "bybit",
        "EXCHANGE__BYBIT_URL": exchange.url,
        "EXCHANGE__API_KEY_ENV": "FAKE_API_KEY",
        "EXCHANGE__API_SECRET_ENV": "FAKE_API_SECRET",
    }
    for name, value in settings.items():
        monkeypatch.setenv(f"LLM_TRADER_WORKFLOW__{name}", value)
    for name, value in KEY_VARIABLES.items():
        monkeypatch.setenv(name, value)
    with fresh_account(exchange, START_MS) as account:
        account.change_by_hand(SYMBOL, Decimal("0.4"), START_MS)
        found = typed("llm-trader positions --json").json
        price = account.price(SYMBOL)
    (position,) = found["positions"]
    assert (found["broker"], position["symbol"]) == ("bybit", SYMBOL)
    assert Decimal(position["quantity"]) == Decimal("0.4")
    assert Decimal(position["price"]) == price
    assert Decimal(found["equity"]) > 0


def test_books_that_do_not_balance_are_named_with_exit_code_1(
    folder: Path, typed: Typing, corridor: Corridor
) -> None:
    paper(folder, corridor)
    ran = typed("llm-trader ledger check")
    assert ran.code == 0
    assert "The books balance: 10 transactions with 39 entries, 4 orders, 3 fills." in ran.out
    with sqlite3.connect(folder / "paper.sqlite") as database:
        database.execute("UPDATE balances SET amount = '1' WHERE account = 'wallet'")
    database.close()
    ran = typed("llm-trader ledger check")
    assert ran.code == 1
    assert "The books do not balance" in ran.out
    assert "wallet says 1 USDT, and its entries sum to" in ran.out


def test_the_kill_switch_says_what_it_was_and_is(folder: Path, typed: Typing) -> None:
    assert "was off" in typed("llm-trader kill off").out
    assert "llm-trader kill off" in typed("llm-trader kill on 'the exchange is down'").out
    assert (folder / "kill-switch").exists()
    again = typed("llm-trader kill on --json").json
    assert again["is_on"] is True
    assert "the exchange is down" in again["before"]
    status = typed("llm-trader status").out
    assert "Nothing new is traded: the kill switch" in status
    assert "allowed again" in typed("llm-trader kill off").out
    assert not (folder / "kill-switch").exists()


def test_files_at_their_former_places_are_not_passed_over(
    tmp_path: Path, typed: Typing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for name in ("kill-switch", "paper.sqlite"):
        (tmp_path / "data" / name).write_text("from before")
    for command in ("positions", "orders", "ledger check", "kill off"):
        ran = typed(f"llm-trader {command}")
        assert ran.code == 2
        assert "its former place data/" in ran.err
    status = typed("llm-trader status")
    assert "The kill switch is off" not in status.out
    assert status.out.count("its former place data/") == 2
    assert typed("llm-trader kill on").code == 0
