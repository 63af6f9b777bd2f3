"""Orders at the fake exchange, by Binance's rules and by Bybit's."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, closing, contextmanager
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from llm_trader.errors import ConfigurationError, ExchangeError, StoreError
from llm_trader.market.exchange.client import RefusedRequestError
from llm_trader.workflow import opening
from llm_trader.workflow.config import GuardConfig, WorkflowConfig
from llm_trader.workflow.exchange.broker import ExchangeBroker
from llm_trader.workflow.exchange.opening import open_exchange_broker
from llm_trader.workflow.exchange.venue import AccountVenue, VenueOrder
from llm_trader.workflow.kill_switch import KillSwitch
from llm_trader.workflow.orders import OrderIntent, OrderResult, Placed, Rejected, Unknown
from tests.exchange.accounts import Account
from tests.exchange.server import FakeExchange
from tests.exchange.signatures import KEY_VARIABLES
from tests.workflow.builders import SYMBOL, intent
from tests.workflow.exchange.accounts import (
    ExchangeTime,
    account_config,
    broker_of,
    clock_options,
    opened_broker,
)

pytestmark = pytest.mark.asyncio(loop_scope="package")

ORDERS = {"binance": "/fapi/v1/order", "bybit": "/v5/order/create"}
PROTECTION = {"binance": "/fapi/v1/algoOrder", "bybit": "/v5/position/trading-stop"}


def protected(run: str, quantity: str = "2") -> OrderIntent:
    side = 1 if Decimal(quantity) > 0 else -1
    prices = {"stop_price": Decimal(100 - 2 * side), "target_price": Decimal(100 + 3 * side)}
    return intent(run, quantity, **prices)


def sent(exchange: FakeExchange, venue: str) -> int:
    return sum(asked.path == ORDERS[venue] and not asked.query for asked in exchange.asked)


async def assert_held(broker: ExchangeBroker, account: Account, quantity: int) -> None:
    """At the venue and by the broker, with a stop where there is a position, and no leftovers."""
    position = await broker.position(SYMBOL)
    assert account.position(SYMBOL).quantity == position.quantity == quantity
    assert (position.stop_price is not None) == bool(quantity)
    assert len(account.open_conditionals(SYMBOL)) in ((0, 2) if quantity else (0,))


@pytest.mark.parametrize("quantity", ["2", "-2"])
async def test_an_order_is_placed_with_its_stop_and_target_at_the_exchange(
    broker: ExchangeBroker, account: Account, quantity: str
) -> None:
    placed = await broker.place(protected("run", quantity))
    assert isinstance(placed, Placed)
    assert (placed.filled, placed.average_price) == (2, 100)
    position = await broker.position(SYMBOL)
    side = 1 if Decimal(quantity) > 0 else -1
    assert (position.quantity, position.entry_price) == (Decimal(quantity), 100)
    assert (position.stop_price, position.target_price) == (100 - 2 * side, 100 + 3 * side)
    assert position.opened_by == placed.client_order_id
    assert position.waiting_orders == ()
    assert len(account.trades) == 1


async def test_the_same_order_again_sends_nothing_in_this_process_or_the_next(
    broker: ExchangeBroker,
    account: Account,
    exchange: FakeExchange,
    connection: AccountVenue,
    tmp_path: Path,
) -> None:
    first = await broker.place(protected("run"))
    assert await broker.place(protected("run")) == first
    # A journal that was lost: the exchange itself knows the order.
    for journal in ("orders.sqlite", "lost.sqlite"):
        other = broker_of(connection, exchange, tmp_path / journal)
        assert await other.has_order(SYMBOL, first.client_order_id)
        assert not await other.has_order(SYMBOL, protected("other run").client_order_id)
        assert isinstance(await other.place(protected("run")), Placed)
        other._journal.close()
    assert len(account.trades) == 1


@pytest.mark.parametrize(
    "kind", ["disconnect", "cut_off", "damaged", "server_error", "bad_gateway"]
)
async def test_a_lost_reply_is_looked_up_and_nothing_is_sent_twice(
    broker: ExchangeBroker, account: Account, exchange: FakeExchange, venue: str, kind: Any
) -> None:
    exchange.faults.add(kind, path=ORDERS[venue], method="POST")
    placed = await broker.place(protected("run"))
    assert isinstance(placed, Placed)
    assert len(account.trades) == 1
    await assert_held(broker, account, 2)


async def test_a_lost_request_is_unknown_until_it_cannot_arrive_any_more(
    broker: ExchangeBroker, account: Account, exchange: FakeExchange, venue: str
) -> None:
    exchange.faults.add("lost_request", path=ORDERS[venue], method="POST")
    # All looks fail as well, so the receive window has not passed.
    unknown = await broker.place(protected("run"))
    assert isinstance(unknown, Unknown)
    assert (await broker.position(SYMBOL)).waiting_orders == (unknown.client_order_id,)
    assert await broker.has_order(SYMBOL, unknown.client_order_id)
    blocked = await broker.place(protected("other run"))
    assert isinstance(blocked, Rejected)
    assert "reconcile BTCUSDT first" in blocked.reason
    report = await broker.reconcile(SYMBOL)
    assert [type(result) for result in report.settled] == [Rejected]
    assert (report.unknown, report.position.side) == ((), 0)
    # Its own run may send it again.
    assert not await broker.has_order(SYMBOL, unknown.client_order_id)
    assert isinstance(await broker.place(protected("run")), Placed)
    assert len(account.trades) == 1


async def test_a_request_that_arrives_after_its_sender_gave_up_is_found(
    broker: ExchangeBroker, account: Account, exchange: FakeExchange, venue: str
) -> None:
    exchange.faults.add("late_request", path=ORDERS[venue], method="POST", late_ms=4500)
    placed = await broker.place(protected("run"))
    assert isinstance(placed, Placed)
    await assert_held(broker, account, 2)


async def test_a_process_that_died_with_its_order_on_the_way_is_followed_by_no_second_order(
    broker: ExchangeBroker,
    account: Account,
    exchange: FakeExchange,
    connection: AccountVenue,
    venue: str,
    tmp_path: Path,
) -> None:
    exchange.faults.add("late_request", path=ORDERS[venue], method="POST", late_ms=3000)
    dying = asyncio.create_task(broker.place(protected("run")))
    while exchange.faults.waiting:  # noqa: ASYNC110  the exchange has no event of it
        await asyncio.sleep(0)
    dying.cancel()
    successor = broker_of(connection, exchange, tmp_path / "orders.sqlite")
    placed = await successor.place(protected("run"))
    assert isinstance(placed, Placed)
    exchange.market.now_ms += 10_000
    await successor.quote(SYMBOL)  # lets the late one in, if it is still on its way
    assert [order.client_id for order in account.orders] == [placed.client_order_id]
    successor._journal.close()


async def test_two_processes_that_place_one_order_at_once_send_it_once(
    broker: ExchangeBroker,
    account: Account,
    exchange: FakeExchange,
    connection: AccountVenue,
    tmp_path: Path,
) -> None:
    other = broker_of(connection, exchange, tmp_path / "orders.sqlite")
    results = await asyncio.gather(*(b.place(protected("run")) for b in (broker, other)))
    assert any(isinstance(result, Placed) for result in results)
    assert not any(isinstance(result, Rejected) for result in results)
    assert len(account.orders) == 1
    assert isinstance(await other.place(protected("run")), Placed)
    other._journal.close()


async def test_a_repeated_run_waits_until_its_lost_request_is_void_before_it_sends_again(
    broker: ExchangeBroker, account: Account, exchange: FakeExchange, venue: str
) -> None:
    late = {"path": ORDERS[venue], "method": "POST"}
    exchange.faults.add("late_request", late_ms=30_000, **late)
    begun_ms = exchange.market.now_ms
    assert isinstance(await broker.place(protected("run")), Unknown)
    assert isinstance(await broker.place(protected("run")), Placed)
    assert exchange.market.now_ms - begun_ms > 6000
    exchange.market.now_ms += 60_000
    await broker.quote(SYMBOL)  # lets the late one in
    assert len(account.trades) == 1


@pytest.mark.parametrize("refusal", ["margin", "notional", "step"])
async def test_a_refused_order_is_rejected_with_the_reason_of_the_exchange(
    broker: ExchangeBroker, account: Account, refusal: str
) -> None:
    account.refusals.append(refusal)
    result = await broker.place(protected("run"))
    assert isinstance(result, Rejected)
    assert result.code is not None
    assert account.trades == []
    # It stays refused: a run has one try.
    assert await broker.place(protected("run")) == result


@pytest.mark.parametrize("kind", ["too_many_requests", "banned", "forbidden", "bybit_limit"])
async def test_an_order_that_is_turned_away_is_rejected_and_its_run_may_send_it_again(
    broker: ExchangeBroker, account: Account, exchange: FakeExchange, venue: str, kind: Any
) -> None:
    if kind == "bybit_limit" and venue == "binance":
        pytest.skip("a reply of Bybit's")
    exchange.faults.add(kind, path=ORDERS[venue], method="POST")
    assert isinstance(await broker.place(protected("run")), Rejected)
    assert account.orders == []
    assert (await broker.position(SYMBOL)).waiting_orders == ()
    exchange.market.now_ms += 60_000
    assert isinstance(await broker.place(protected("run")), Placed)
    await assert_held(broker, account, 2)


async def test_an_order_that_fills_in_part_and_ends_has_what_it_filled(
    broker: ExchangeBroker, account: Account
) -> None:
    account.fill_shares.append((Decimal("0.5"), "expires"))
    placed = await broker.place(protected("run"))
    assert isinstance(placed, Placed)
    assert placed.filled == 1
    await assert_held(broker, account, 1)


async def test_an_order_that_ends_without_a_fill_is_rejected(
    broker: ExchangeBroker, account: Account
) -> None:
    account.fill_shares.append((Decimal(0), "expires"))
    assert isinstance(await broker.place(protected("run")), Rejected)
    await assert_held(broker, account, 0)


async def test_an_order_that_fills_late_is_unknown_until_reconciled(
    broker: ExchangeBroker, account: Account, exchange: FakeExchange
) -> None:
    account.fill_shares.append((Decimal("0.25"), "later"))
    unknown = await broker.place(protected("run"))
    assert isinstance(unknown, Unknown)
    assert "does not fill it" in unknown.reason
    account.fill_late(exchange.market.now_ms)
    report = await broker.reconcile(SYMBOL)
    assert [getattr(result, "filled", None) for result in report.settled] == [2]
    await assert_held(broker, account, 2)


async def test_a_kill_switch_that_is_turned_on_during_a_look_up_stops_the_order_and_no_closing_one(
    exchange: FakeExchange,
    account: Account,
    connection: AccountVenue,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reasons: list[str] = []
    broker = broker_of(
        connection,
        exchange,
        tmp_path / "stopped.sqlite",
        stop_reason=lambda: reasons[0] if reasons else None,
    )
    with closing(broker._journal):
        assert isinstance(await broker.place(protected("first")), Placed)
        seen = connection.find

        async def turned_on(symbol: str, client_order_id: str) -> VenueOrder | None:
            found = await seen(symbol, client_order_id)
            reasons.append("the kill switch is on")
            return found

        monkeypatch.setattr(connection, "find", turned_on)
        stopped = await broker.place(protected("second"))
        assert isinstance(stopped, Rejected)
        assert (stopped.reason, stopped.code) == ("the kill switch is on", "kill_switch")
        assert len(account.orders) == 1
        assert isinstance(await broker.place(intent("second", "-2", kind="close")), Placed)
        reasons.clear()
        monkeypatch.setattr(connection, "find", seen)
        # Nothing was sent, so its run may try again.
        assert isinstance(await broker.place(protected("second")), Placed)
        await assert_held(broker, account, 2)


async def test_the_broker_of_the_settings_looks_their_kill_switch_up(
    exchange: FakeExchange,
    account: Account,
    venue: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if venue == "bybit":
        pytest.skip("once is enough: to connect takes long")
    opened = partial(open_exchange_broker, **clock_options(exchange))
    monkeypatch.setattr(opening, "open_exchange_broker", opened)
    config = WorkflowConfig(
        broker="binance",
        exchange=account_config(exchange.url, tmp_path / "orders.sqlite"),
        guards=GuardConfig(kill_switch=tmp_path / "kill"),
    )
    broker = await opening.open_broker(config, KEY_VARIABLES, ExchangeTime(exchange))
    KillSwitch(tmp_path / "kill").turn_on("test", exchange.market.now_ms)
    stopped = await broker.place(protected("run"))
    await broker.close()
    assert isinstance(stopped, Rejected)
    assert stopped.code == "kill_switch"
    assert account.orders == []


async def test_an_id_that_is_refused_as_a_duplicate_is_followed_and_not_sent_again(
    broker: ExchangeBroker,
    account: Account,
    exchange: FakeExchange,
    connection: AccountVenue,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another process without our journal was first, and the order was not in the lists yet."""
    account.fill_shares.append((Decimal(0), "later"))
    seen = connection.find

    async def not_yet(symbol: str, client_order_id: str) -> None:
        monkeypatch.setattr(connection, "find", seen)
        await connection.send(protected("run"), connection.now_ms())

    monkeypatch.setattr(connection, "find", not_yet)
    assert isinstance(await broker.place(protected("run")), Unknown)
    account.fill_late(exchange.market.now_ms)
    report = await broker.reconcile(SYMBOL)
    assert [getattr(result, "filled", None) for result in report.settled] == [2]
    assert len(account.orders) == 1
    await assert_held(broker, account, 2)


async def test_a_stop_that_is_refused_as_a_duplicate_stands(
    broker: ExchangeBroker,
    account: Account,
    exchange: FakeExchange,
    connection: AccountVenue,
    venue: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if venue == "bybit":
        pytest.skip("Bybit takes the stop with the order")
    await broker.place(protected("run"))

    async def not_in_the_list_yet(symbol: str) -> list[Any]:
        return []

    monkeypatch.setattr(connection, "_algo_orders", not_in_the_list_yet)
    before = len(exchange.asked)
    await connection.protect(protected("run"), connection.now_ms())
    monkeypatch.undo()
    sendings = [one for one in exchange.asked[before:] if one.path == PROTECTION[venue]]
    assert len(sendings) == 2  # both were refused with -4116
    await assert_held(broker, account, 2)


async def test_a_position_whose_stop_is_refused_is_closed_again(
    broker: ExchangeBroker, account: Account, venue: str
) -> None:
    """Binance takes the order alone; Bybit refuses it together with a stop beyond the price."""
    beyond = intent("run", "2", stop_price=Decimal(101), target_price=Decimal(103))
    result = await broker.place(beyond)
    assert isinstance(result, Rejected)
    assert len(account.trades) == (2 if venue == "binance" else 0)
    await assert_held(broker, account, 0)


async def test_a_stop_that_nobody_knows_of_is_unknown_and_reconciling_completes_it(
    broker: ExchangeBroker, account: Account, exchange: FakeExchange, venue: str
) -> None:
    if venue == "bybit":
        pytest.skip("Bybit takes the stop with the order")
    exchange.faults.add("lost_request", path=PROTECTION[venue], method="POST")
    assert isinstance(await broker.place(protected("run")), Unknown)
    assert account.open_conditionals(SYMBOL) == []
    report = await broker.reconcile(SYMBOL)
    assert [type(result) for result in report.settled] == [Placed]
    await assert_held(broker, account, 2)


@pytest.mark.parametrize("price", [98, 103])
async def test_a_stop_or_target_that_triggers_leaves_nothing_behind(
    broker: ExchangeBroker, account: Account, exchange: FakeExchange, price: int
) -> None:
    await broker.place(protected("run"))
    account.move_price(SYMBOL, Decimal(price), exchange.market.now_ms)
    report = await broker.reconcile(SYMBOL)
    assert report.position.side == 0
    assert "a stop, a target or a person has changed it" in report.differences[0]
    await assert_held(broker, account, 0)
    assert (await broker.reconcile(SYMBOL)).differences == ()


async def test_leftovers_of_an_ended_position_do_not_close_the_next_one(
    broker: ExchangeBroker, account: Account, exchange: FakeExchange
) -> None:
    await broker.place(protected("first"))
    account.move_price(SYMBOL, Decimal(98), exchange.market.now_ms)
    account.prices[SYMBOL] = Decimal(100)
    await broker.place(protected("second"))
    await assert_held(broker, account, 2)
    assert len(account.open_conditionals(SYMBOL)) in (0, 2)


async def test_closing_withdraws_stop_and_target(broker: ExchangeBroker, account: Account) -> None:
    await broker.place(protected("in"))
    placed = await broker.place(intent("out", "-2", kind="close"))
    assert isinstance(placed, Placed)
    await assert_held(broker, account, 0)
    # Nothing to close any more.
    assert isinstance(await broker.place(intent("again", "-2", kind="close")), Rejected)


async def test_a_position_that_a_person_changed_is_told_once_and_taken_as_it_is(
    broker: ExchangeBroker, account: Account, exchange: FakeExchange
) -> None:
    await broker.place(protected("run"))
    account.change_by_hand(SYMBOL, Decimal(5), exchange.market.now_ms)
    report = await broker.reconcile(SYMBOL)
    assert report.position.quantity == 5
    assert "the position is 5.000, after 2.000" in report.differences[0]
    assert (await broker.reconcile(SYMBOL)).differences == ()
    await broker.place(intent("out", "-5", kind="close"))
    await assert_held(broker, account, 0)


async def test_a_position_of_a_person_without_a_stop_is_told(
    broker: ExchangeBroker, account: Account, exchange: FakeExchange
) -> None:
    account.change_by_hand(SYMBOL, Decimal(-1), exchange.market.now_ms)
    report = await broker.reconcile(SYMBOL)
    assert "the position has no stop at the exchange" in report.differences
    assert report.position.opened_by is None


async def test_a_journal_that_cannot_be_written_is_unknown_and_sends_nothing_twice(
    broker: ExchangeBroker, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = broker._journal._file
    file.execute("PRAGMA query_only = ON")
    assert isinstance(await broker.place(protected("run")), Unknown)
    assert account.orders == []
    file.execute("PRAGMA query_only = OFF")

    def fail(*_: Any) -> None:
        raise StoreError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(broker._journal, "note", fail)
        assert isinstance(await broker.place(protected("run")), Unknown)
    assert (await broker.position(SYMBOL)).waiting_orders != ()
    assert isinstance(await broker.place(protected("run")), Placed)
    assert len(account.trades) == 1


@contextmanager
def locked(broker: ExchangeBroker, journal: Path) -> Iterator[None]:
    """Another connection writes to the journal, and the broker does not wait for it."""
    broker._journal._file.execute("PRAGMA busy_timeout = 1")
    with closing(sqlite3.connect(journal, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@pytest.mark.parametrize("answers", [True, False], ids=["answers", "does not answer"])
async def test_a_journal_locked_before_sending_is_unknown_and_nothing_is_sent(
    broker: ExchangeBroker,
    account: Account,
    exchange: FakeExchange,
    tmp_path: Path,
    answers: bool,
) -> None:
    with locked(broker, tmp_path / "orders.sqlite"):
        if not answers:
            exchange.faults.add("damaged", times=3)
        unknown = await broker.place(protected("run"))
    assert isinstance(unknown, Unknown)
    assert "the journal of orders at" in unknown.reason
    assert "is locked: another process" in unknown.reason
    assert account.orders == []
    assert isinstance(await broker.place(protected("run")), Placed)
    assert len(account.trades) == 1


async def test_a_journal_locked_after_sending_is_unknown_and_sends_nothing_twice(
    broker: ExchangeBroker, account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = broker._venue.send
    with ExitStack() as until_placed, monkeypatch.context() as patch:

        async def send_and_lock(intent: OrderIntent, signed_ms: int) -> VenueOrder | None:
            order = await send(intent, signed_ms)
            until_placed.enter_context(locked(broker, tmp_path / "orders.sqlite"))
            return order

        patch.setattr(broker._venue, "send", send_and_lock)
        unknown = await broker.place(protected("run"))
    assert isinstance(unknown, Unknown)
    assert "is locked: another process" in unknown.reason
    assert len(account.trades) == 1
    assert (await broker.position(SYMBOL)).waiting_orders != ()
    assert isinstance(await broker.place(protected("run")), Placed)
    assert len(account.trades) == 1


async def test_facts_that_the_exchange_does_not_tell_raise(
    broker: ExchangeBroker, exchange: FakeExchange
) -> None:
    for ask in (broker.balance, lambda: broker.position(SYMBOL), lambda: broker.quote(SYMBOL)):
        exchange.faults.add("damaged", times=3)
        with pytest.raises(ExchangeError):
            await ask()
        exchange.faults.waiting.clear()


async def test_fills_and_balance_are_those_of_the_exchange(
    broker: ExchangeBroker, account: Account, exchange: FakeExchange
) -> None:
    await broker.place(protected("in"))
    account.prices[SYMBOL] = Decimal(101)
    assert (await broker.balance()).unrealized == 2
    assert await broker.exposures() == {SYMBOL: 202}
    await broker.place(intent("out", "-2", kind="close"))
    opening, closing = await broker.fills(exchange.market.now_ms - 60_000)
    assert (opening.opens, opening.quantity, opening.fee) == (True, 2, Decimal("0.1"))
    assert (closing.opens, closing.realized) == (False, 2)
    assert (await broker.balance()).equity == account.wallet
    assert await broker.exposures() == {}


async def test_the_rules_of_the_contract_are_the_exchanges(
    broker: ExchangeBroker, venue: str
) -> None:
    rules = await broker.instrument(SYMBOL)
    assert (rules.quantity_step, rules.min_notional) == (Decimal("0.001"), 5)
    assert rules.price_tick == Decimal("0.01" if venue == "binance" else "0.10")


async def test_an_account_in_hedge_mode_is_refused(
    connection: AccountVenue, account: Account, venue: str
) -> None:
    account.hedge_mode = True
    if venue == "binance":
        with pytest.raises(ConfigurationError, match="one-way"):
            await connection.check()
    else:  # a mode of each symbol
        with pytest.raises(ExchangeError, match="one-way"):
            await connection.position(SYMBOL)


@pytest_asyncio.fixture(loop_scope="package")
async def drifting(
    exchange: FakeExchange, account: Account, venue: str, tmp_path: Path
) -> AsyncIterator[ExchangeBroker]:
    """A broker whose own clock stays behind by `exchange.market.skew_ms`."""
    exchange.market.skew_ms = 3_600_000
    broker = opened_broker(exchange, venue, tmp_path / "orders.sqlite")
    broker._venue._client._wall_clock = lambda: (  # type: ignore[attr-defined]
        (exchange.market.now_ms - exchange.market.skew_ms) / 1000
    )
    try:
        await broker.connect()
        yield broker
    finally:
        await broker.close()
        exchange.market.skew_ms = 0


async def test_a_wrong_clock_is_set_by_the_exchanges_and_again_when_it_drifts(
    drifting: ExchangeBroker, exchange: FakeExchange
) -> None:
    assert isinstance(await drifting.place(protected("run")), Placed)
    exchange.market.skew_ms = 7_200_000
    assert (await drifting.position(SYMBOL)).quantity == 2
    exchange.market.skew_ms = -7_200_000
    assert isinstance(await drifting.place(intent("out", "-2", kind="close")), Placed)


async def test_a_clock_that_two_set_at_once_is_right(
    drifting: ExchangeBroker, exchange: FakeExchange
) -> None:
    exchange.market.skew_ms = 7_200_000
    await asyncio.gather(drifting._venue.set_clock(), drifting._venue.set_clock())
    assert drifting._venue.now_ms() == exchange.market.now_ms


async def test_of_several_slow_readings_of_the_clock_the_quickest_counts(
    drifting: ExchangeBroker, exchange: FakeExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = drifting._venue._client  # type: ignore[attr-defined]
    send, delays_ms = client.send, [900, 300, 600]

    async def slow(*request: Any) -> Any:
        told = await send(*request)
        exchange.market.clock += delays_ms.pop(0)
        return told

    monkeypatch.setattr(client, "send", slow)
    await drifting._venue.set_clock()
    assert delays_ms == []
    assert exchange.market.now_ms - drifting._venue.now_ms() == 300 // 2


async def test_an_order_refused_for_its_time_is_looked_up_and_sent_once_more(
    drifting: ExchangeBroker,
    exchange: FakeExchange,
    account: Account,
    venue: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    send = drifting._venue.send

    async def send_after_a_drift(*order: Any) -> Any:
        exchange.market.skew_ms += 60_000
        monkeypatch.undo()
        return await send(*order)

    monkeypatch.setattr(drifting._venue, "send", send_after_a_drift)
    before = sent(exchange, venue)
    assert isinstance(await drifting.place(protected("run")), Placed)
    assert sent(exchange, venue) - before == 2
    assert len(account.trades) == 1
    await assert_held(drifting, account, 2)


async def test_an_order_that_is_refused_for_its_time_again_may_be_placed_by_its_run_later(
    drifting: ExchangeBroker,
    exchange: FakeExchange,
    account: Account,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    send = drifting._venue.send

    async def send_after_a_drift(*order: Any) -> Any:
        exchange.market.skew_ms += 60_000
        return await send(*order)

    monkeypatch.setattr(drifting._venue, "send", send_after_a_drift)
    refused = await drifting.place(protected("run"))
    assert isinstance(refused, Rejected)
    assert refused.code in ("-1021", "10002")
    assert account.trades == []
    monkeypatch.undo()
    assert isinstance(await drifting.place(protected("run")), Placed)
    await assert_held(drifting, account, 2)


async def test_a_position_is_not_closed_because_its_stop_was_refused_for_its_time(
    drifting: ExchangeBroker,
    exchange: FakeExchange,
    account: Account,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    protect = drifting._venue.protect

    async def protect_after_a_drift(*order: Any) -> None:
        exchange.market.skew_ms += 60_000
        monkeypatch.undo()
        await protect(*order)

    monkeypatch.setattr(drifting._venue, "protect", protect_after_a_drift)
    assert isinstance(await drifting.place(protected("run")), Placed)
    assert len(account.trades) == 1
    await assert_held(drifting, account, 2)


async def test_a_refusal_that_is_seen_late_does_not_free_an_order_that_another_process_sends(
    broker: ExchangeBroker,
    account: Account,
    exchange: FakeExchange,
    connection: AccountVenue,
    venue: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = broker_of(connection, exchange, tmp_path / "orders.sqlite")
    others: list[asyncio.Task[OrderResult]] = []

    async def refused_after_a_stall(*_: Any) -> None:
        monkeypatch.undo()
        exchange.market.now_ms += 60_000
        exchange.faults.add("late_request", path=ORDERS[venue], method="POST", late_ms=4500)
        others.append(asyncio.create_task(other.place(protected("run"))))
        while exchange.faults.waiting:  # noqa: ASYNC110  the exchange has no event of it
            await asyncio.sleep(0)
        raise RefusedRequestError("outside of the receive window", "10002")

    monkeypatch.setattr(connection, "send", refused_after_a_stall)
    before = sent(exchange, venue)
    assert isinstance(await broker.place(protected("run")), Unknown)
    assert isinstance(await others[0], Placed)
    exchange.market.now_ms += 10_000
    await broker.quote(SYMBOL)  # lets the late one in, if it is still on its way
    assert sent(exchange, venue) - before == 1
    assert len(account.trades) == 1
    assert isinstance(await broker.place(protected("run")), Placed)
    other._journal.close()
