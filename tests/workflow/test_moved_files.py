from __future__ import annotations

from pathlib import Path

import pytest

from llm_trader.clock import WallClock
from llm_trader.errors import ConfigurationError
from llm_trader.workflow.config import (
    ExchangeAccountConfig,
    GuardConfig,
    PaperConfig,
    WorkflowConfig,
)
from llm_trader.workflow.exchange.opening import open_exchange_broker
from llm_trader.workflow.kill_switch import KillSwitch
from llm_trader.workflow.opening import open_broker
from llm_trader.workflow.paper.reading import read_books
from tests.workflow.builders import START_MS

CLOCK = WallClock(lambda: START_MS)


@pytest.fixture(autouse=True)
def old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


async def test_the_books_of_a_paper_account_at_the_old_place_are_never_passed_over(
    old_folder: Path,
) -> None:
    (old_folder / "paper.sqlite").write_bytes(b"")
    message = r"workflow.paper.ledger is var/paper.sqlite .* data/paper.sqlite: .* move it"
    with pytest.raises(ConfigurationError, match=message):
        await open_broker(WorkflowConfig(), {}, CLOCK)
    with pytest.raises(ConfigurationError, match=message):
        read_books(PaperConfig().ledger, None, 1)
    new_folder = old_folder.with_name("var")
    new_folder.mkdir()  # which nothing has made before
    (old_folder / "paper.sqlite").rename(new_folder / "paper.sqlite")
    await (await open_broker(WorkflowConfig(), {}, CLOCK)).close()


async def test_a_path_that_is_set_is_an_answer(old_folder: Path) -> None:
    (old_folder / "paper.sqlite").write_bytes(b"")
    kept = WorkflowConfig(paper=PaperConfig(ledger=Path("data/paper.sqlite")))
    await (await open_broker(kept, {}, CLOCK)).close()
    assert (old_folder / "paper.sqlite").stat().st_size > 0


def test_a_journal_of_orders_at_the_old_place_is_never_passed_over(old_folder: Path) -> None:
    (old_folder / "orders.sqlite").write_bytes(b"")
    config = ExchangeAccountConfig(api_key_env="KEY", api_secret_env="SECRET")
    with pytest.raises(ConfigurationError, match=r"data/orders.sqlite: .* move it"):
        open_exchange_broker("binance", config, {"KEY": "k", "SECRET": "s"}, CLOCK)
    assert not Path("var").exists()


async def test_no_broker_is_opened_beside_a_kill_switch_at_the_old_place(old_folder: Path) -> None:
    (old_folder / "kill-switch").touch()
    with pytest.raises(ConfigurationError, match=r"data/kill-switch: .* move it"):
        await open_broker(WorkflowConfig(), {}, CLOCK)


def test_a_kill_switch_at_the_old_place_stops_trading_until_it_is_moved(old_folder: Path) -> None:
    switch = KillSwitch(GuardConfig().kill_switch)
    assert switch.reason() is None
    (old_folder / "kill-switch").write_text("by hand")
    for question in (switch.reason, switch.turn_off):
        with pytest.raises(ConfigurationError, match=r"var/kill-switch .* data/kill-switch: "):
            question()
    # Whoever wants to stop trading is never refused.
    switch.turn_on("now", START_MS)
    assert "now" in str(switch.reason())
    with pytest.raises(ConfigurationError, match="data/kill-switch"):
        switch.turn_off()
    (old_folder / "kill-switch").unlink()
    assert switch.reason() is None
