"""What stands in the journal, and what comes out of it in the order of time."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from llm_trader.forecasts.quality import quality_of
from llm_trader.forecasts.reading import JournalReader
from llm_trader.forecasts.scoring import ForecastScores
from llm_trader.timeframe import DAY_MS, HORIZONS, HOUR_MS
from tests.forecasts.builders import (
    NOW_MS,
    QUARTER_MS,
    SYMBOL,
    Clock,
    all_lines,
    answer,
    verify,
    writing,
)

# Four forecasts, written before lines had `rescaled` and `random`.
FORMER: Final = Path(__file__).parents[1] / "golden" / "forecasts"


def test_a_line_has_the_numbers_that_the_answer_named(tmp_path: Path) -> None:
    with writing(tmp_path, Clock()) as journal:
        journal.record(SYMBOL, NOW_MS - 60_000, answer(), "r-1")
        (line,) = all_lines(tmp_path)  # before anything is closed
    assert (line.symbol, line.as_of_ms, line.at_ms) == (SYMBOL, NOW_MS - 60_000, NOW_MS)
    assert (line.request_id, line.verdict) == ("r-1", "none")
    numbers = line.horizons["4h"]
    assert numbers.forecast == pytest.approx([-0.8, -0.5, 0.0, 0.5, 0.8])
    assert numbers.base_rate == pytest.approx([-1.6, -1.0, 0.0, 1.0, 1.6])
    assert numbers.volatility_model == pytest.approx([-1.2, -0.75, 0.0, 0.75, 1.2])


def test_an_answer_that_is_given_again_names_the_line_of_the_first(tmp_path: Path) -> None:
    with writing(tmp_path, Clock()) as journal:
        for number, spread in enumerate((1.0, 1.0, 2.0, 1.0)):
            journal.record(SYMBOL, NOW_MS, answer(spread), f"r-{number}")
    lines = all_lines(tmp_path)
    assert [line.request_id for line in lines] == ["r-0", "r-1", "r-2", "r-3"]
    assert [line.same_as for line in lines] == [None, 1, None, 1]
    assert [bool(line.horizons) for line in lines] == [True, False, True, False]


def test_the_first_line_of_a_quarter_hour_has_the_references_and_no_other_wants_them(
    tmp_path: Path,
) -> None:
    clock = Clock()
    with writing(tmp_path, clock) as journal:
        assert journal.wants_references(SYMBOL, NOW_MS)
        journal.record(SYMBOL, NOW_MS, answer(with_references=True), "r-0")
        assert not journal.wants_references(SYMBOL, NOW_MS + 1000)
        journal.record(SYMBOL, NOW_MS, answer(), "r-1")
        for symbol, as_of_ms in (("ETHUSDT", NOW_MS), (SYMBOL, NOW_MS + QUARTER_MS)):
            assert journal.wants_references(symbol, as_of_ms)
        assert not journal.wants_references(SYMBOL, NOW_MS - HOUR_MS - 1)  # a replay
    first, second = all_lines(tmp_path)
    for numbers in first.horizons.values():
        assert numbers.rescaled == pytest.approx([-2.4, -1.5, 0.0, 1.5, 2.4])
        assert numbers.random == pytest.approx([-3.2, -2.0, 0.0, 2.0, 3.2])
    # The same answer, though it came without references.
    assert (second.same_as, second.horizons) == (first.seq, {})


def test_a_journal_of_a_former_version_verifies_and_is_scored_without_what_it_lacks(
    tmp_path: Path,
) -> None:
    for path in FORMER.iterdir():
        shutil.copy(path, tmp_path)
    assert verify(tmp_path).passed
    lines = list(JournalReader(tmp_path).all())
    assert [line.request_id for line in lines] == ["r-0", "r-1", "r-2", "r-3"]
    scores = ForecastScores()
    for line in lines:
        line.add_to(scores)
    newest_ms = NOW_MS + DAY_MS + HOUR_MS
    for due in scores.due({SYMBOL: newest_ms}, newest_ms):
        scores.resolve(due, np.full((4, len(due.times_ms)), 0.3), newest_ms)
    skills = {
        (one.horizon, one.reference): one for one in quality_of(scores, None, 3, newest_ms).skill
    }
    for name in HORIZONS:
        for reference in ("base_rate", "volatility"):
            assert skills[name, reference].scored == 4
            assert skills[name, reference].skill.value is not None
        for reference in ("rescaled", "random"):
            assert skills[name, reference].scored == 0
            assert skills[name, reference].skill.value is None


def test_replays_of_the_past_are_no_forecasts(tmp_path: Path) -> None:
    with writing(tmp_path, Clock()) as journal:
        for age_ms in (HOUR_MS + 1, -HOUR_MS - 1):
            journal.record(SYMBOL, NOW_MS - age_ms, answer(), "r")
    assert all_lines(tmp_path) == []


def test_lines_of_all_processes_are_read_in_the_order_of_time_and_later_ones_follow(
    tmp_path: Path,
) -> None:
    clock = Clock()
    reader = JournalReader(tmp_path)
    with writing(tmp_path, clock) as one, writing(tmp_path, clock) as two:
        for number in range(40):  # several files each
            clock.now_ms = NOW_MS + number * QUARTER_MS
            (one, two)[number % 3 == 0].record(SYMBOL, clock.now_ms, answer(), f"r-{number}")
        first, rest = reader.read(7), list(reader.all())
        assert [line.request_id for line in first + rest] == [f"r-{n}" for n in range(40)]
        assert reader.read(10) == []
        two.record(SYMBOL, NOW_MS + 50 * QUARTER_MS, answer(), "other time")
        one.record("ETHUSDT", clock.now_ms, answer(), "r-40")
        assert [line.request_id for line in reader.read(10)] == ["r-40"]
    assert len(list(tmp_path.glob("*.jsonl"))) > 4
    assert verify(tmp_path).passed


def test_a_changed_line_is_found_and_not_scored(tmp_path: Path) -> None:
    with writing(tmp_path, Clock(), max_bytes=1 << 20) as journal:
        journal.record(SYMBOL, NOW_MS, answer(), "r-1")
        journal.record("ETHUSDT", NOW_MS, answer(), "r-2")
    (path,) = tmp_path.glob("*.jsonl")
    path.write_bytes(path.read_bytes().replace(b'"forecast":[-0.8', b'"forecast":[-0.9', 1))
    (chain,) = verify(tmp_path).chains
    assert (chain.problems[0].line, "was changed" in chain.problems[0].problem) == (2, True)
    assert [line.request_id for line in JournalReader(tmp_path).all()] == ["r-2"]


def test_of_two_processes_the_first_forecast_of_a_quarter_hour_is_scored(tmp_path: Path) -> None:
    clock = Clock()
    with writing(tmp_path, clock) as one, writing(tmp_path, clock) as two:
        for journal, spread in ((two, 1.0), (one, 3.0)):
            clock.now_ms += 1000
            journal.record(SYMBOL, NOW_MS, answer(spread), "r")
    scores = ForecastScores()
    for line in JournalReader(tmp_path).all():
        line.add_to(scores)
    assert scores.waiting == 1
    assert float(next(iter(scores._waiting.values())).numbers[0, 4]) == pytest.approx(0.8)
