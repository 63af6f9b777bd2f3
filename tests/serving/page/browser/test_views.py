"""Every view in a real Chromium, with real data: what it shows, and what it asks the server for."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from llm_trader.llm.record.decisions import Veto
from llm_trader.llm.record.record import DecisionRecord
from llm_trader.timeframe import HOUR_MS, M5, Millis, iso8601, parse_rfc3339
from tests.cli.corridor import Corridor
from tests.llm.record.decisions import recorded
from tests.serving.page.browser.conftest import SHOTS, Visit, beside
from tests.serving.page.test_page_methods import HOLE_MS, JUMP_MS, write_incomplete
from tests.serving.server_process import Server, server_of

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

AT = "2026-03-20T12:00Z"
AT_MS: Millis = parse_rfc3339("2026-03-20T12:00:00Z")
# A text that each view shows when it is complete.
VIEWS = {
    "now": "24h after",
    "quality": "Evidence quality",
    "data": "Gaps and refused rows",
    "decisions": "llm-trader decide",
    "evaluations": "llm-trader evaluate",
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_a_view_renders_without_errors_and_for_everybody(
    visit: Any, serving: Server, view: str, width: int, scheme: str
) -> None:
    seen: Visit = visit(serving, width=width, scheme=scheme).open(view)
    seen.see(VIEWS[view])
    seen.page.wait_for_load_state("networkidle")
    SHOTS.mkdir(parents=True, exist_ok=True)
    seen.page.screenshot(path=SHOTS / f"{view}-{width}-{scheme}.png", full_page=True)
    assert seen.errors == []
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
    assert serious(seen) == []


def serious(seen: Visit) -> list[str]:
    """What axe-core finds that keeps people out."""
    from axe_playwright_python.sync_playwright import Axe

    # It is put into the page by the driver, so the page's own policy does not refuse it.
    found = Axe().run(seen.page).response["violations"]
    return [
        f"{violation['id']}: {node['html'][:120]} {node.get('failureSummary', '')}"
        for violation in found
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


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
    assert rows(seen, "What to expect")[-1][2] == "−10.00 … +20.00"
    sentence = seen.page.locator(".verdict p").first.inner_text()
    prices = re.findall(r"\d{2},\d{3}\.\d", sentence)
    now, low, high = (float(text.replace(",", "")) for text in prices)
    assert (low / now, high / now) == pytest.approx((0.9, 1.2), abs=1e-4)
    seen.page.screenshot(path=SHOTS / f"{verdict}-{scheme}.png")
    assert serious(seen) == []


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
    seen.page.keyboard.press("[")
    seen.page.wait_for_url(re.compile("T11%3A00"))
    seen.page.click("button[aria-label='A day ahead']")
    seen.page.wait_for_url(re.compile("21T11%3A00"))
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


def test_old_data_are_called_stale_and_a_server_that_is_not_ready_so(
    visit: Any, serving: Server
) -> None:
    seen: Visit = visit(serving).open("now")
    seen.see("Stale: the newest candle is")
    seen.open("data")
    seen.see("The server is not ready")
    seen.see("longer ago than 30 minutes")


@pytest.mark.parametrize("width", [1280, 390])
def test_gaps_refused_rows_and_jumps_are_listed(
    visit: Any, corridor: Corridor, tmp_path: Path, width: int
) -> None:
    write_incomplete(tmp_path / "market", corridor)
    incomplete = Corridor(tmp_path / "market", corridor.index, {})
    with server_of(incomplete, "--http-port", "0") as server:
        seen: Visit = visit(server, width=width).open("data")
        seen.see("1 jump of the price")
        gaps = rows(seen, "The newest, up to 20 of each series")
        missing = ["candles_5m", "missing", minute(HOLE_MS), minute(HOLE_MS + HOUR_MS)]
        refused = ["candles_5m", "refused", minute(HOLE_MS), minute(HOLE_MS + M5.ms)]
        assert gaps == [missing, refused, ["high below low"]]
        (jump,) = rows(seen, "1 jump of the price")
        assert jump[:2] == [minute(JUMP_MS), "5m"]
        assert float(jump[-1]) == pytest.approx(10, rel=0.05)
        seen.page.screenshot(path=SHOTS / f"incomplete-{width}.png", full_page=True)
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
        assert serious(seen) == []
        assert seen.errors == []


def rows(seen: Visit, label: str) -> list[list[str]]:
    found = seen.page.locator(f"[aria-label^='{label}'] tbody tr").all_inner_texts()
    return [row.split("\t") for row in found]


def minute(time_ms: Millis) -> str:
    return iso8601(time_ms)[:16].replace("T", " ")


def record_decisions(folder: Path) -> None:
    """Three, of which guards refused the newest."""
    with DecisionRecord.open(folder) as record:
        for number in range(3):
            labels = {"run": f"run-{number}"} if number else {}
            decision = recorded(key=str(number), as_of_ms=AT_MS + number * HOUR_MS, labels=labels)
            record.decisions.add(decision)
        record.decisions.set_vetoes("2", [Veto("kill_switch", "it is on", {})])


@pytest.mark.parametrize("width", [1280, 390])
def test_a_decision_is_shown_with_its_reason_and_what_the_guards_said(
    visit: Any, real: Corridor, tmp_path: Path, width: int
) -> None:
    record_decisions(tmp_path / "decisions")
    with server_of(real, "--http-port", "0", settings=beside(tmp_path)) as server:
        seen: Visit = visit(server, width=width).open("decisions")
        seen.see("3 trades, 1 of them refused by guards, 0 HOLDs")
        actions = seen.page.locator("tr.pick .tag").all_inner_texts()
        assert actions == ["LONG (refused)", "LONG", "LONG"]
        reason = seen.page.locator("tr.below div").first.bounding_box()
        assert reason["x"] + reason["width"] <= width
        for row, said in enumerate(
            ("refused it: kill_switch: it is on", "no veto is on record", "was not asked")
        ):
            seen.page.locator("tr.pick button").nth(row).click()
            seen.see(said)
        assert seen.page.get_by_role("heading", name="Decision 1").bounding_box()["y"] < 900
        seen.page.screenshot(path=SHOTS / f"decision-{width}.png", full_page=True)
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
        assert serious(seen) == []
        assert seen.errors == []


def test_evaluations_are_shown_with_their_reports(
    visit: Any, real: Corridor, tmp_path: Path
) -> None:
    folder = tmp_path / "reports" / "autumn"
    folder.mkdir(parents=True)
    metrics = {
        "command": "evaluate",
        "created_at": "2026-11-29T12:00:00Z",
        "origin": {"symbols": ["BTCUSDT"], "start": "2026-01-01", "end": "2026-03-01"},
        "readings": ["Similar states show nothing beyond chance."],
    }
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "report.html").write_text("<script>document.title = 'it ran'</script><p>Report</p>")
    with server_of(real, "--http-port", "0", settings=beside(tmp_path)) as server:
        seen: Visit = visit(server).open("evaluations")
        seen.see("Similar states show nothing beyond chance.")
        with seen.page.expect_popup() as opened:
            seen.page.click("text=Open the report")
        opened.value.wait_for_load_state()
        assert opened.value.title() == "it ran"
        # It has no origin of its own, so it cannot ask the server for anything.
        assert opened.value.evaluate("window.origin") == "null"
        assert seen.errors == []


def interval(value: float, width: float = 0.05) -> dict[str, float]:
    return {"value": value, "low": value - width, "high": value + width}


def quality() -> dict[str, Any]:
    """An answer of `rag.forecast_quality` about thirty days."""
    days = [AT_MS - (29 - day) * 24 * HOUR_MS for day in range(30)]
    horizon = {"scored": 2000, "days": 30, "coverage_50": interval(0.48), "crps": 0.31}
    horizon |= {"coverage_80": interval(0.77), "rises": interval(0.5)}
    horizon |= {"calibrated_scored": 0, "calibrated_coverage_80": dict.fromkeys(interval(0))}
    shares = [0.7 + 0.004 * day for day in range(30)]
    rolling = {"time": days, "scored": [90] * 30, "coverage_80": shares}
    rolling |= {"coverage_50": [None, *(share - 0.3 for share in shares[1:])]}
    rolling |= {"coverage_80_low": [share - 0.06 for share in shares]}
    rolling |= {"coverage_80_high": [share + 0.06 for share in shares]}
    rolling |= {"calibrated_coverage_80": [None] * 30}
    said = [0.35, 0.45, 0.55, 0.65]
    reliability = {"p_up": said, "observed": [0.4, 0.44, 0.53, 0.6], "count": [20, 900, 980, 100]}
    reliability |= {"low": [0.2, 0.4, 0.5, 0.5], "high": [0.6, 0.48, 0.56, 0.7]}
    skill = {"reference": "base_rate", "scored": 2000, "skill": interval(0.031, 0.02)}
    skill |= {"time": days, "rolling": shares, "rolling_low": shares, "rolling_high": shares}
    miss = {"symbol": "ETHUSDT", "as_of": AT_MS, "horizon": "4h", "low": -1.2, "high": 1.1}
    miss |= {"outcome": -2.4, "p_up": 0.48, "forecast_at": AT_MS}
    names = ("15m", "1h", "4h", "24h")
    return {
        "recorded": True,
        "since": days[0],
        "until": days[-1],
        "waiting": 96,
        "unscored": {"no_outcome": 4, "memory": 0},
        "catching_up": False,
        "window_days": 7,
        "interval_level": 0.9,
        "horizons": [{"horizon": name, **horizon} for name in names],
        "rolling": [{"horizon": name, **rolling} for name in names],
        "reliability": [{"horizon": name, **reliability} for name in names],
        "skill": [{"horizon": name, **skill} for name in names],
        "references": [{"name": "random", "available": False, "reason": "it is not served"}],
        "misses": [miss],
    }


@pytest.mark.parametrize("width", [1280, 390])
def test_the_quality_of_forecasts_is_drawn_with_the_misses_first(
    visit: Any, serving: Server, width: int
) -> None:
    seen: Visit = visit(serving, width=width)

    def answer(route: Any) -> None:
        sent = route.request.post_data_json
        if isinstance(sent, dict) and sent["method"] == "rag.forecast_quality":
            route.fulfill(json={"jsonrpc": "2.0", "id": sent["id"], "result": quality()})
        else:
            route.continue_()

    seen.page.route("**/rpc", answer)
    seen.open("quality")
    seen.see("Not compared with random neighbours")
    headings = seen.page.locator("main h2").all_inner_texts()
    assert headings[:3] == ["Evidence quality", "Misses", "By horizon"]
    assert seen.page.locator(".uplot canvas").count() == 12
    seen.page.screenshot(path=SHOTS / f"quality-drawn-{width}.png", full_page=True)
    assert seen.errors == []
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
    assert serious(seen) == []
    seen.page.get_by_role("link", name="2026-03-20 12:00").click()
    seen.see("24h after")
    assert seen.page.locator("#symbol").input_value() == "ETHUSDT"
