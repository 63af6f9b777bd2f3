"""What the page shows of records that grow: the forecasts that were served, and a paper account."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llm_trader.app.server import query_server
from llm_trader.rpc.client import RpcClient
from llm_trader.timeframe import DAY_MS, HOUR_MS, Millis
from tests.cli.corridor import END_MS, SYMBOL, SYMBOLS, Corridor
from tests.serving.page.browser.conftest import SHOTS, Visit, free_port
from tests.serving.page.test_paper_account import traded

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

DAYS = 8


def _run_apart(steps: Coroutine[Any, Any, Any]) -> None:
    """In a thread, as Playwright has an event loop of this one."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, steps).result()


@pytest.fixture(scope="module")
def journal(corridor: Corridor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a server journalled that was asked every hour of eight days, about the hour itself."""
    folder = tmp_path_factory.mktemp("forecasts")
    _run_apart(_ask_hourly(corridor, folder))
    return folder


async def _ask_hourly(corridor: Corridor, folder: Path) -> None:
    now_ms = END_MS - (DAYS + 1) * DAY_MS
    settings = corridor.settings(forecasts__folder=folder)
    async with query_server(settings, {}, lambda: now_ms) as server:
        await server.start()
        async with await RpcClient.connect(*server.address) as client:
            while now_ms < END_MS - DAY_MS:
                for symbol in SYMBOLS:
                    moment = {"symbol": symbol, "timestamp": now_ms}
                    await client.call("rag.query_patterns", moment, dict[str, Any])
                now_ms += HOUR_MS
        await server.stop()


@contextmanager
def serving_as_of(corridor: Corridor, now_ms: Millis, **overrides: Any) -> Iterator[Any]:
    """A server whose present is `now_ms`, as the page's data end long before ours."""
    port, loop, started = free_port(), asyncio.new_event_loop(), threading.Event()
    settings = corridor.settings(serving__http_port=port, **overrides)
    over = asyncio.Event()

    async def serve() -> None:
        async with query_server(settings, {}, lambda: now_ms) as server:
            await server.start()
            started.set()
            await over.wait()
            await server.stop()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        assert started.wait(30)
        yield SimpleNamespace(http_port=port)
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.close()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_scored_forecasts_are_shown_with_the_misses_first(
    journal: Path, visit: Any, corridor: Corridor, width: int, scheme: str
) -> None:
    with serving_as_of(corridor, END_MS, forecasts__folder=journal) as server:
        seen: Visit = visit(server, width=width, scheme=scheme).open("quality")
        seen.see("outcomes of forecasts of")
        seen.page.locator(".uplot canvas").first.wait_for(timeout=90_000)
        for reference in ("the base rate", "random neighbours"):
            seen.see(f"Against {reference}: ")
        assert seen.page.get_by_text("nothing is scored yet").count() == 0
        headings = seen.page.locator("main h2").all_inner_texts()
        assert headings[:3] == ["Evidence quality", "Misses", "By horizon"]
        rows = seen.page.locator("[aria-label='By horizon'] tbody tr")
        scored = {row.split("\t")[0]: row.split("\t")[1] for row in rows.all_inner_texts()}
        assert scored == dict.fromkeys(("15m", "1h", "4h", "24h"), str(DAYS * 24 * len(SYMBOLS)))
        assert seen.page.locator("[aria-label='Misses'] tbody tr").count() == 50
        seen.page.screenshot(path=SHOTS / f"quality-real-{width}.png", full_page=True)
        assert seen.errors == []
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
        assert seen.serious() == []


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_paper_account_is_shown_with_its_orders_and_its_equity_against_holding(
    visit: Any, corridor: Corridor, tmp_path: Path, width: int, scheme: str
) -> None:
    ledger = tmp_path / "paper.sqlite"
    with serving_as_of(corridor, END_MS, workflow__paper__ledger=ledger) as server:
        seen: Visit = visit(server, width=width, scheme=scheme).open("decisions")
        seen.see("No workflow has traded on paper here")
        _run_apart(traded(ledger, corridor.histories))
        seen.open("now").see("24h after")
        seen.open("decisions")
        seen.see(f"holding {SYMBOL} instead")
        seen.page.locator(".uplot canvas").wait_for()
        assert seen.page.locator("[aria-label='Orders'] tbody tr:not(.below)").count() == 4
        assert seen.page.locator("[aria-label='Fills'] tbody tr").count() == 3
        assert seen.page.locator("[aria-label='Open positions'] tbody tr").count() == 1
        seen.see("is available")
        seen.page.screenshot(path=SHOTS / f"account-{width}.png", full_page=True)
        assert seen.errors == []
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
        assert seen.serious() == []
