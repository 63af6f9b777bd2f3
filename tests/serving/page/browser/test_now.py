"""The view of the present, or of a past moment: what it shows, and what it asks the server for."""

from __future__ import annotations

import re
from typing import Any

import pytest

from llm_trader.timeframe import HOUR_MS, Millis
from tests.serving.page.browser.conftest import AT, AT_MS, SHOTS, Visit
from tests.serving.server_process import Server

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


def test_it_asks_as_of_the_chosen_moment_and_for_the_outcome_on_request_only(
    visit: Any, serving: Server
) -> None:
    seen: Visit = visit(serving).open(f"now?symbol=ETHUSDT&at={AT}")
    seen.see("24h after")
    seen.page.wait_for_load_state("networkidle")
    seen.page.locator("tr.pick button").nth(1).click()
    seen.see("Most alike")
    seen.page.wait_for_load_state("networkidle")
    asked = [c for c in seen.calls() if c["method"] != "rag.stats"]
    assert {c["method"] for c in asked} >= {
        "rag.query_patterns",
        "rag.get_candles",
        "rag.compare_states",
    }
    assert max(times(asked)) == AT_MS
    seen.page.click("#happened")
    seen.see("What happened")
    after = [c for c in seen.calls() if c["method"] != "rag.stats"][len(asked) :]
    assert [c["method"] for c in after] == ["rag.get_candles"]
    assert times(after)[-1] == AT_MS + 24 * HOUR_MS
    assert seen.errors == []


def times(calls: list[dict[str, Any]]) -> list[Millis]:
    params = [c["params"] for c in calls]
    named = [p[name] for p in params for name in ("timestamp", "end") if name in p]
    return [*named, *(time for p in params for time in p.get("others", []))]


def test_a_match_shows_its_own_chart_and_which_features_made_it_alike(
    visit: Any, serving: Server
) -> None:
    seen: Visit = visit(serving).open(f"now?symbol=BTCUSDT&at={AT}")
    seen.see("24h after")
    seen.page.locator("tr.pick button").first.focus()
    seen.page.keyboard.press("Enter")
    seen.see("Least alike")
    seen.page.locator(".chart.small canvas").first.wait_for()
    alike = [
        float(v) for v in seen.page.locator("meter").evaluate_all("all => all.map(m => m.value)")
    ]
    half = len(alike) // 2
    assert min(alike[:half]) >= max(alike[half:])
    seen.page.screenshot(path=SHOTS / "match.png", full_page=True)
    # Who chose it sees it without looking for it.
    heading = seen.page.get_by_role("heading", name="The match of")
    assert heading.bounding_box()["y"] < seen.page.viewport_size["height"]
    assert seen.serious() == []
    seen.page.locator("tr.pick button").first.click()
    seen.page.get_by_text("Least alike").wait_for(state="detached")
    assert seen.errors == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("verdict", ["informative", "weak"])
def test_a_calibrated_range_and_a_verdict_are_called_so(
    visit: Any, serving: Server, scheme: str, verdict: str
) -> None:
    seen: Visit = visit(serving, scheme=scheme)

    def calibrate(route: Any) -> None:
        answered = route.fetch()
        replies = answered.json()
        for reply in replies if isinstance(replies, list) else [replies]:
            if "evidence" in reply["result"]:
                evidence = reply["result"]["evidence"]
                evidence |= {"verdict": verdict, "calibrated": True, "reason": "they moved more"}
                evidence["horizons"]["24h"] |= {"band_80": [-10.0, 20.0]}
                evidence["horizons"]["24h"]["scale"]["deviation"] = 9.0
        route.fulfill(response=answered, json=replies)

    seen.page.route("**/rpc", calibrate)
    seen.open(f"now?symbol=BTCUSDT&at={AT}")
    seen.see("24h after")
    assert seen.page.locator(f".word.{verdict}").inner_text() == verdict.capitalize()
    seen.see("They moved more. The range is calibrated.")
    seen.see("8 of 10 outcomes, calibrated")
    assert seen.rows("What to expect")[-1][2] == "−10.00 … +20.00"
    sentence = seen.page.locator(".verdict p").first.inner_text()
    prices = re.findall(r"\d{2},\d{3}\.\d", sentence)
    now, low, high = (float(text.replace(",", "")) for text in prices)
    assert (low / now, high / now) == pytest.approx((0.9, 1.2), abs=1e-4)
    seen.page.screenshot(path=SHOTS / f"{verdict}-{scheme}.png")
    assert seen.serious() == []


def test_the_paths_of_matches_are_drawn_in_expected_moves_or_in_percent(
    visit: Any, serving: Server
) -> None:
    seen: Visit = visit(serving).open(f"now?symbol=BTCUSDT&at={AT}")
    seen.page.locator("svg.spark").first.wait_for()
    drawn = {}
    for units in ("in %", "in expected moves", "in %"):
        button = seen.page.get_by_role("button", name=units)
        button.click()
        assert button.get_attribute("aria-pressed") == "true"
        seen.page.mouse.move(0, 0)
        seen.page.wait_for_timeout(500)
        picture = seen.page.locator(".chart").first.screenshot()
        assert drawn.setdefault(units, picture) == picture
    assert len(set(drawn.values())) == 2


def test_the_picker_and_the_keys_go_through_time(visit: Any, serving: Server) -> None:
    seen: Visit = visit(serving).open(f"now?symbol=BTCUSDT&at={AT}")
    seen.see("24h after")
    seen.page.click("body")
    # Each counts from the one before, whose answer may not be there yet.
    for _ in range(3):
        seen.page.keyboard.press("[")
    seen.page.click("button[aria-label='A day ahead']")
    seen.page.wait_for_url(re.compile("21T09%3A00"))
    seen.see("(09:00) should move")
    seen.page.select_option("#symbol", "ETHUSDT")
    seen.see("ETHUSDT at")
    seen.page.click("#latest")
    seen.page.wait_for_url(re.compile("symbol=ETHUSDT$"))
    seen.page.keyboard.press("3")
    seen.see("Gaps and refused rows")
    seen.page.keyboard.press("1")
    seen.see("24h after")
    assert seen.errors == []


def test_who_uses_the_keyboard_keeps_the_place_when_an_answer_comes(
    visit: Any, serving: Server
) -> None:
    seen: Visit = visit(serving).open(f"now?symbol=BTCUSDT&at={AT}")
    seen.see("24h after")
    seen.page.focus("button[aria-label='An hour back']")
    seen.page.keyboard.press("Enter")
    seen.see("(11:00) should move")
    assert focused(seen) == "An hour back"
    # Each digit changes the time; it is asked about when the last one is there.
    queries = sum(c["method"] == "rag.query_patterns" for c in seen.calls())
    seen.page.focus("#at")
    with seen.page.expect_request(lambda sent: "query_patterns" in (sent.post_data or "")):
        seen.page.keyboard.type("0318", delay=50)
    seen.page.wait_for_url(re.compile("2026-03-18T11%3A00"))
    seen.page.wait_for_load_state("networkidle")
    asked = [c["params"] for c in seen.calls() if c["method"] == "rag.query_patterns"][queries:]
    assert [params["timestamp"] for params in asked] == [AT_MS - 49 * HOUR_MS]
    assert focused(seen) == "at"
    seen.open("data")
    seen.see("Gaps and refused rows")
    seen.page.get_by_role("button", name="ETHUSDT").focus()
    seen.page.keyboard.press("Enter")
    seen.see("Series of ETHUSDT")
    assert focused(seen) == "ETHUSDT"
    assert seen.errors == []


def focused(seen: Visit) -> str:
    element = "document.activeElement"
    named = f"{element}.id || {element}.getAttribute('aria-label') || {element}.textContent"
    return str(seen.page.evaluate(named))


def test_the_chosen_theme_stays(visit: Any, serving: Server) -> None:
    seen: Visit = visit(serving).open("evaluations")
    theme = "document.documentElement.dataset.theme"
    assert seen.page.evaluate(theme) == "light"
    seen.page.click("#theme")
    assert seen.page.evaluate(theme) == "dark"
    seen.page.reload()
    seen.see("llm-trader evaluate")
    assert seen.page.evaluate(theme) == "dark"


def test_a_symbol_that_the_store_lacks_is_said_to_be_missing(visit: Any, serving: Server) -> None:
    seen: Visit = visit(serving).open(f"now?symbol=DOGEUSDT&at={AT}")
    seen.see("The store has no candles of DOGEUSDT; this is BTCUSDT.")
    seen.see("BTCUSDT at")
    seen.page.select_option("#symbol", "ETHUSDT")
    seen.see("ETHUSDT at")
    assert seen.page.get_by_text("The store has no candles").count() == 0
