"""Every view in a real Chromium, with real data: what it shows, and what it asks the server for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llm_trader.llm.record.decisions import Veto
from llm_trader.llm.record.record import DecisionRecord
from llm_trader.timeframe import HOUR_MS, M5, Millis, iso8601
from tests.cli.corridor import Corridor
from tests.llm.record.decisions import recorded
from tests.serving.page.browser.conftest import AT_MS, SHOTS, Visit, beside
from tests.serving.page.test_page_methods import HOLE_MS, JUMP_MS, write_incomplete
from tests.serving.server_process import Server, server_of

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

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
    assert seen.serious() == []


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
        gaps = seen.rows("The newest, up to 20 of each series")
        missing = ["candles_5m", "missing", minute(HOLE_MS), minute(HOLE_MS + HOUR_MS)]
        refused = ["candles_5m", "refused", minute(HOLE_MS), minute(HOLE_MS + M5.ms)]
        assert gaps == [missing, refused, ["high below low"]]
        (jump,) = seen.rows("1 jump of the price")
        assert jump[:2] == [minute(JUMP_MS), "5m"]
        assert float(jump[-1]) == pytest.approx(10, rel=0.05)
        seen.page.screenshot(path=SHOTS / f"incomplete-{width}.png", full_page=True)
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
        assert seen.serious() == []
        assert seen.errors == []


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
        assert seen.serious() == []
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
    skill = {"skill": interval(0.031, 0.02)}
    skill |= {"time": days, "rolling": shares, "rolling_low": shares, "rolling_high": shares}
    miss = {"symbol": "ETHUSDT", "as_of": AT_MS, "horizon": "4h", "low": -1.2, "high": 1.1}
    miss |= {"outcome": -2.4, "p_up": 0.48, "forecast_at": AT_MS}
    names = ("15m", "1h", "4h", "24h")
    scored = {"base_rate": 2000, "rescaled": 1200, "volatility": 2000, "random": 1200}
    skills = [skill | {"reference": name, "scored": n} for name, n in scored.items()]
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
        "skill": [{"horizon": name, **skill} for name in names for skill in skills],
        "references": [{"name": name, "available": True, "reason": ""} for name in scored],
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
    seen.see("Against random neighbours: +3.1 % (+1.1 to +5.1), over the 1,200 of 2,000 forecasts")
    headings = seen.page.locator("main h2").all_inner_texts()
    assert headings[:3] == ["Evidence quality", "Misses", "By horizon"]
    assert seen.page.locator(".uplot canvas").count() == 12
    seen.page.screenshot(path=SHOTS / f"quality-drawn-{width}.png", full_page=True)
    assert seen.errors == []
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
    assert seen.serious() == []
    seen.page.get_by_role("link", name="2026-03-20 12:00").click()
    seen.see("24h after")
    assert seen.page.locator("#symbol").input_value() == "ETHUSDT"
