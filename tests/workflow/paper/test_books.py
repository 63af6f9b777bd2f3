"""The books balance, whatever is traded and whenever the process dies."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import AbstractContextManager, suppress
from decimal import Decimal
from pathlib import Path
from random import Random
from sqlite3 import Connection

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tests
from llm_trader.errors import InvalidInputError, StoreError
from llm_trader.storage.sqlite_file import SqliteFile
from llm_trader.workflow.orders import Unknown
from llm_trader.workflow.paper.accounting import Entry, charge
from llm_trader.workflow.paper.ledger import Ledger
from tests.workflow.builders import START_MS, SYMBOL, intent, paper_broker
from tests.workflow.paper.random_trading import random_broker, trade

PROJECT = Path(tests.__file__).parents[1]


@given(st.integers(0, 2**32))
async def test_the_books_balance_after_every_random_trading(seed: int) -> None:
    ledger = Ledger(None)
    broker = random_broker(ledger)
    await trade(broker, 0, 120, seed, tell=False)
    report = ledger.check()
    assert report.problems == ()
    assert report.fills > 30
    equity = (await broker.balance()).equity
    assert equity >= 0
    # What the account has is what was deposited, less what all others have of it.
    others = sum(
        amount
        for name, amount in report.balances.items()
        if name.endswith(" USDT") and not name.startswith(("wallet", "cost:"))
    )
    costs = sum(v for name, v in report.balances.items() if name.startswith("cost:"))
    assert ledger.balance("wallet", "USDT") + costs + others == 0


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_the_books_balance_after_a_hundred_thousand_fills_fundings_and_liquidations() -> None:
    ledger = Ledger(None)
    broker = random_broker(ledger)
    first, reasons = 0, Counter[str]()
    while sum(reasons.values()) < 100_000:
        await trade(broker, first, first + 20_000, 7, tell=False)
        first += 20_000
        assert ledger.check().problems == ()
        rows = ledger.execute("SELECT kind, count(*) FROM transactions GROUP BY kind")
        reasons = Counter(dict(rows))
    assert min(reasons[kind] for kind in ("open", "order", "stop", "target", "time", "funding",
                                          "liquidation")) > 100  # fmt: skip


@pytest.mark.parametrize("kills", [2, pytest.param(40, marks=pytest.mark.soak)])
async def test_a_process_killed_at_any_moment_leaves_what_an_unkilled_one_would(
    kills: int, tmp_path: Path
) -> None:
    """Each process repeats the step that the one before may have been killed in."""
    path, draw, steps_a_life, number = tmp_path / "books.sqlite", Random(5), 60, 0
    end = kills * steps_a_life
    for _ in range(kills):
        number = run_and_kill(path, number, end, draw.randrange(steps_a_life // 2, steps_a_life))
        ledger = Ledger(path)
        assert ledger.check().problems == ()
        ledger.close()
    killed, whole = (random_broker(Ledger(p)) for p in (path, None))
    await trade(killed, number, end, 3, tell=False)
    await trade(whole, 0, end, 3, tell=False)
    assert await killed.fills(0) == await whole.fills(0)
    assert await killed.balance() == await whole.balance()
    assert killed._ledger.check() == whole._ledger.check()
    await killed.close()


class Died(BaseException):
    """The process ends before it begins a transaction."""


@pytest.mark.parametrize("steps", [30, pytest.param(200, marks=pytest.mark.soak)])
async def test_an_end_before_any_transaction_leaves_what_an_unkilled_process_would(
    steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prices come again after it, also one at which a position was opened meanwhile."""
    whole, begin = random_broker(Ledger(None)), SqliteFile.write
    await trade(whole, 0, steps, 3, tell=False)
    expected = await whole.fills(0), await whole.balance()
    begun, last = 0, 0

    def dying(file: SqliteFile) -> AbstractContextManager[Connection]:
        nonlocal begun
        begun += not file._connection.in_transaction
        if begun > last:
            raise Died
        return begin(file)

    for last in range(4, 10_000):
        path, number, begun, died = tmp_path / f"{last}.sqlite", 0, 0, False
        broker = random_broker(Ledger(path, durable=False))
        monkeypatch.setattr(SqliteFile, "write", dying)
        with suppress(Died):
            for number in range(steps):
                await trade(broker, number, number + 1, 3, tell=False)
        died = begun > last
        monkeypatch.setattr(SqliteFile, "write", begin)
        broker._ledger.close()
        again = random_broker(Ledger(path, durable=False))
        await trade(again, max(number - 1, 0), steps, 3, tell=False)
        assert (await again.fills(0), await again.balance()) == expected, (last, number)
        await again.close()
        if not died:
            break
    assert last > steps


def run_and_kill(path: Path, first: int, end: int, steps: int) -> int:
    """The number of the last step that the process said it had done."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.workflow.paper.random_trading", path, str(first), str(end),
         "3"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    assert process.stdout is not None
    done = first
    for line in process.stdout:
        done = int(line)
        if done >= first + steps:
            process.send_signal(signal.SIGKILL)
            break
    rest = process.stdout.read().split()
    process.stdout.close()
    assert process.wait(10) == -signal.SIGKILL
    return int(rest[-1]) if rest else done


def test_entries_that_do_not_sum_to_zero_are_not_booked() -> None:
    ledger = Ledger(None)
    one_sided = [Entry("wallet", "USDT", Decimal("0.00000001"))]
    with pytest.raises(InvalidInputError, match="do not balance"):
        ledger.post(START_MS, "mistake", one_sided)
    assert ledger.check().transactions == 0


def test_the_same_reference_is_booked_once() -> None:
    ledger = Ledger(None)
    paid = charge("fees", "USDT", Decimal(3))
    booked = [ledger.post(START_MS, "fee", paid, symbol="X", reference="1") for _ in range(2)]
    assert booked == [True, False]
    assert ledger.balance("wallet", "USDT") == -3


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("UPDATE entries SET amount = '1' WHERE rowid = 3", "transaction 2 is off"),
        ("UPDATE balances SET amount = '7' WHERE account = 'wallet'", "wallet says 7 USDT"),
        ("DELETE FROM positions", "position:BTCUSDT says 2"),
        ("DELETE FROM fills", ""),
        ("DELETE FROM balances WHERE account = 'fees'", "fees has no balance of USDT"),
    ],
)
async def test_what_somebody_changed_in_the_file_is_found(
    statement: str, problem: str, tmp_path: Path
) -> None:
    path = tmp_path / "books.sqlite"
    broker = random_broker(Ledger(path))
    broker.on_price(SYMBOL, START_MS, Decimal(100))
    await broker.place(intent("in", "2"))
    if "fills" in statement:
        statement = "UPDATE fills SET fill = replace(fill, '\"2\"', '\"3\"')"
        problem = "the fills of BTCUSDT sum to 3"
    with sqlite3.connect(path) as other:
        other.execute(statement)
    other.close()
    problems = broker._ledger.check().problems
    assert any(problem in found for found in problems), problems


def test_a_file_that_is_no_ledger_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("no ledger at all, but long enough to be looked at by SQLite" * 20)
    refusal = r"the ledger at .*notes\.txt cannot be used: .* name another with workflow\.paper\."
    with pytest.raises(StoreError, match=refusal):
        Ledger(path)


def test_a_ledger_of_a_later_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "books.sqlite"
    Ledger(path).close()
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA user_version = 9")
    other.close()
    with pytest.raises(StoreError, match=r"the ledger at .* has version 9"):
        Ledger(path)


async def test_a_ledger_that_cannot_be_written_says_unknown(
    tmp_path: Path,
) -> None:
    broker = paper_broker(ledger=Ledger(tmp_path / "books.sqlite"))
    broker.on_price(SYMBOL, START_MS, Decimal(100))

    other = sqlite3.connect(tmp_path / "books.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    broker._ledger.execute("PRAGMA busy_timeout = 1")
    result = await broker.place(intent("in", "2"))
    other.execute("ROLLBACK")
    other.close()
    assert isinstance(result, Unknown)
    assert "is locked: another process" in result.reason
    assert (await broker.position(SYMBOL)).side == 0
    assert (await broker.place(intent("in", "2"))).filled == 2
