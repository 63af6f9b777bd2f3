"""The page beside a server that starts again, asks for keys, has limits, or has news."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llm_trader.market.store import MarketStore
from llm_trader.timeframe import M5, MINUTE_MS
from tests.cli.corridor import AT_MS, SYMBOL, Corridor, console_script, copied, write
from tests.serving.page.browser.conftest import SHOTS, Visit, free_port
from tests.serving.page.browser.test_views import VIEWS
from tests.serving.server_process import server_of

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

KEY = "a-key-of-the-tests"


def test_a_page_that_is_open_while_the_server_starts_again_recovers(
    visit: Any, real: Corridor
) -> None:
    flags = ("--http-port", str(free_port()))
    with server_of(real, *flags) as server:
        seen: Visit = visit(server).open("now")
        seen.see("24h after")
        address = seen.address
    seen.see("The server is away")
    # What a person does meanwhile ends in a message with a way out.
    seen.page.click("button[aria-label='A day back']")
    seen.see("The server does not answer")
    seen.page.get_by_role("button", name="Try again").wait_for()
    assert seen.serious() == []
    with server_of(real, *flags) as server:
        assert f"http://127.0.0.1:{server.http_port}" == address
        seen.see("24h after", timeout_s=40)
        seen.see("Stale: the newest candle is")
    assert all("ERR_CONNECTION" in error or "WebSocket" in error for error in seen.errors)


def test_no_view_waits_without_an_end_for_a_server_that_hangs(visit: Any, real: Corridor) -> None:
    with server_of(real, "--http-port", "0") as server:
        tabs: dict[str, Visit] = {}
        for view in VIEWS:
            seen: Visit = visit(server)
            seen.page.route("**/rpc", lambda route: None)
            tabs[view] = seen.open(view)
        for seen in tabs.values():
            seen.page.bring_to_front()
            seen.see("The server did not answer within 15 s", timeout_s=30)
            seen.page.get_by_role("button", name="Try again").first.wait_for()
            seen.page.locator(".waiting").wait_for(state="detached")
        seen = tabs["now"]
        seen.page.bring_to_front()
        seen.page.unroute("**/rpc")
        seen.page.get_by_role("button", name="Try again").click()
        seen.see("24h after")


def test_a_server_with_keys_is_asked_with_the_key_that_a_person_gives(
    visit: Any, real: Corridor
) -> None:
    settings = {"LLM_TRADER_SERVING__AUTH_TOKENS_ENV": "PAGE_TOKENS", "PAGE_TOKENS": KEY}
    with server_of(real, "--http-port", "0", settings=settings) as server:
        seen: Visit = visit(server).open("now")
        seen.see("This server asks for an API key")
        assert seen.calls() == []
        seen.page.fill("#key-value", "a wrong one")
        seen.page.click("text=Use this key")
        seen.see("does not accept this key")
        assert seen.serious() == []
        seen.page.fill("#key-value", KEY)
        seen.page.click("text=Use this key")
        seen.see("24h after")
        stored = "[sessionStorage.length, localStorage.length]"
        assert seen.page.evaluate(stored) == [1, 0]
        seen.page.reload()
        seen.see("24h after")
        assert not any(KEY in request.url for request in seen.requests)


@pytest.mark.parametrize(
    "limits",
    [
        {"RATE_LIMIT_PER_S": "4", "RATE_BURST": "12"},
        {"WORK_LIMIT_MS_PER_S": "50", "WORK_BURST_MS": "20"},
    ],
)
def test_it_asks_no_more_than_the_limits_allow(
    visit: Any, real: Corridor, limits: dict[str, str]
) -> None:
    settings = {f"LLM_TRADER_SERVING__{name}": value for name, value in limits.items()}
    with server_of(real, "--http-port", "0", settings=settings) as server:
        seen: Visit = visit(server)
        refusals: list[str] = []
        seen.page.on("response", lambda r: r.status == 429 and refusals.append(r.url))
        seen.open("now")
        seen.see("24h after", timeout_s=60)
        seen.page.wait_for_load_state("networkidle")
        bodies = [r.response().text() for r in seen.requests if r.url.endswith("/rpc")]
        assert refusals == []
        assert not any("-32011" in body for body in bodies)


def test_a_new_snapshot_is_shown_without_asking_for_it(
    visit: Any, corridor: Corridor, tmp_path: Path
) -> None:
    from playwright.sync_api import expect

    history = corridor.histories[SYMBOL]
    store, index = tmp_path / "store", copied(corridor.index, tmp_path / "index")
    with MarketStore.open(store, write=True, exchange="simulated") as opened:
        write(opened, history.known_at(AT_MS))
        with server_of(Corridor(store, index, {}), "--http-port", "0") as server:
            seen: Visit = visit(server).open("now")
            seen.see("24h after")
            seen.page.wait_for_load_state("networkidle")
            assert asked(seen) == 1
            write(opened, history.known_at(AT_MS + 15 * MINUTE_MS + M5.ms))
            expect(seen.page.locator("#at")).to_have_value("2025-02-25T12:20", timeout=30_000)
            seen.see("24h after")
            assert asked(seen) == 1
            seen.page.screenshot(path=SHOTS / "pushed.png")
            assert seen.errors == []


def test_the_demo_shows_the_page_until_ctrl_c_and_leaves_nothing_behind(
    visit: Any, tmp_path: Path
) -> None:
    command = [console_script("llm-trader"), "demo", "--page", "--http-port", "0"]
    # As at a person's terminal: the address is read while it runs, and no browser is opened.
    environ = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1", "BROWSER": "true"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ) as demo:
        try:
            assert demo.stdout is not None
            ports = (re.search(r"http://127\.0\.0\.1:(\d+)/", line) for line in demo.stdout)
            port = next(int(found[1]) for found in ports if found)
            seen: Visit = visit(SimpleNamespace(http_port=port))
            for view, text in {**VIEWS, "decisions": "12 HOLDs"}.items():
                seen.open(view).see(text)
            seen.open("now").see("These data are simulated")
            seen.see("Live; the newest candle is")
            assert seen.errors == []
        finally:
            demo.send_signal(signal.SIGINT)
            assert demo.wait(30) == 0
    seen.see("The server is away")
    assert list(tmp_path.iterdir()) == []


def asked(seen: Visit) -> int:
    return sum(call["method"] == "rag.query_patterns" for call in seen.calls())
