"""The page and the sentences of a study of reading."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from llm_trader.evaluation.decisions.reading import measure_reading
from llm_trader.evaluation.decisions.results import READS_SCHEMA_VERSION, ReadsMetrics, StateRow
from llm_trader.evaluation.report.page import write_reads_report
from llm_trader.evaluation.report.reads_wording import reads_headline, reads_readings
from llm_trader.evaluation.results import Price
from tests.evaluation.decisions.test_reading import always, decided, follow, noisy
from tests.evaluation.report.metrics import made_up_metrics
from tests.evaluation.report.pages import Page

PRICE = Price(
    decisions=500,
    total_usd=1.25,
    new_usd=0.0,
    input_tokens=900_000,
    output_tokens=60_000,
    per_decision_usd=0.0025,
)


def made_up_reads(*, trusted: bool = True) -> ReadsMetrics:
    subject = measure_reading(
        "anthropic/some-model", decided(noisy(follow, 0.3), 100), reps=100, seed=0, price=PRICE
    )
    reader = measure_reading(
        "follower", decided(follow, 100), reps=100, seed=0, expected="reads it"
    )
    deaf = measure_reading(
        "rule", decided(always("LONG"), 100), reps=100, seed=0, expected="ignores it"
    )
    return ReadsMetrics(
        schema_version=READS_SCHEMA_VERSION,
        command="reads",
        created_at="2026-11-29T20:00:00Z",
        origin=made_up_metrics().origin,
        decider="anthropic/some-model",
        provider="anthropic",
        model="some-model",
        masked=False,
        states=100,
        candidates=400,
        subject=subject,
        controls=[reader, deaf if trusted else replace(deaf, verdict="reads it")],
        trusted=trusted,
        readings=reads_readings(subject, trusted),
        rows=[
            StateRow(
                symbol="BTCUSDT",
                time="2026-03-20T12:00:00Z",
                leans={"original": 0.4, "flip": -0.4},
                actions={"original": "LONG", "repeat": "LONG", "flip": "HOLD"},
                holds={"flip": "error"},
            )
        ],
        seconds=12.0,
    )


def page_of(metrics: ReadsMetrics, tmp_path: Path) -> Page:
    write_reads_report(metrics, tmp_path / "report.html")
    return Page((tmp_path / "report.html").read_text(encoding="utf-8"))


def test_the_page_shows_the_verdict_its_reason_the_noise_and_the_price(tmp_path: Path) -> None:
    page = page_of(made_up_reads(), tmp_path)
    assert "Some-model of anthropic reads its evidence." in page.text
    assert "With inverted outcomes" in page.text
    assert "Asked the same again, it decided otherwise on" in page.text
    assert "Its 500 decisions cost $1.25, $0.0025 each; this run paid $0.00." in page.text
    names = [row[0] for row in page.rows]
    for name in ("asked the same again", "outcomes inverted", "evidence removed"):
        assert names.count(name) == 3  # of the decider and both controls
    state = next(row for row in page.rows if row[0] == "BTCUSDT")
    assert state[1:3] == ["2026-03-20 12:00 UTC", "+0.40"]
    assert state[3:6] == ["LONG", "LONG", "HOLD (error)"]


def test_the_page_loads_nothing_and_runs_nothing(tmp_path: Path) -> None:
    page = page_of(made_up_reads(), tmp_path)
    assert not page.scripts
    assert not [tag for tag, of in page.tags if of.get("src") or of.get("href")]


def test_with_a_failed_control_nothing_counts(tmp_path: Path) -> None:
    metrics = made_up_reads(trusted=False)
    page = page_of(metrics, tmp_path)
    assert "This evaluation cannot be trusted" in page.text
    assert "expected “ignores it”, found “reads it”" in page.text
    assert metrics.readings[0].endswith("nothing here counts.")


def test_the_headline_names_the_model_and_whether_prompts_were_masked() -> None:
    metrics = made_up_reads()
    assert reads_headline(metrics) == "Some-model of anthropic reads its evidence"
    masked = replace(metrics, masked=True, subject=replace(metrics.subject, verdict="ignores it"))
    assert (
        reads_headline(masked) == "Some-model of anthropic with masked prompts ignores its evidence"
    )
    rule = replace(metrics, model=None, decider="macd-sign")
    assert reads_headline(rule) == "Macd-sign reads its evidence"
