"""Whatever was tried is counted once, and the best of many is tested as one of many."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import cache
from math import nan
from pathlib import Path

import msgspec
import numpy as np
import pytest

from llm_trader.arrays import Floats
from llm_trader.errors import InvalidInputError
from llm_trader.evaluation.dataset import Dataset
from llm_trader.evaluation.verdict.multiple_testing import (
    FOLDER,
    Ledger,
    Trial,
    daily_gains,
    queries_digest,
    superior_p_value,
)
from llm_trader.index.points import COLUMN_ROW, PointTable
from llm_trader.timeframe import DAY_MS, HOUR_MS, M5
from tests.evaluation.small_market import LOOKBACK_DAYS, made_market, made_score
from tests.index.builders import START_MS, SYMBOL, points_at
from tests.processes import run

DAYS = 80


def trial(configuration: str = "c1", queries: str = "q1", label: str = "a") -> Trial:
    return Trial(
        label=label,
        configuration=configuration,
        queries=queries,
        first_day_ms=START_MS,
        gains={"BTCUSDT 4h": [0.5, None, -0.25]},
    )


def with_gains(name: str, *columns: Floats) -> Trial:
    gains = {
        f"BTCUSDT {i}": [None if np.isnan(day) else float(day) for day in column]
        for i, column in enumerate(columns)
    }
    return msgspec.structs.replace(trial(name), gains=gains)


def noise(seed: int) -> Floats:
    return np.random.default_rng(seed).standard_normal(DAYS)


# --- The ledger


def test_a_trial_tried_twice_counts_once_and_the_last_is_kept(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    assert (ledger.trials(), ledger.configurations()) == ([], set())
    for label in ("first", "again"):
        ledger.add(trial(label=label))
    assert [one.label for one in ledger.trials()] == ["again"]
    assert ledger.configurations() == {"c1"}


def test_a_configuration_asked_of_other_queries_is_another_trial_but_no_further_one(
    tmp_path: Path,
) -> None:
    ledger = Ledger(tmp_path)
    for one in (trial("c1", "q1"), trial("c1", "q2"), trial("c2", "q2")):
        ledger.add(one)
    assert len(ledger.trials()) == 3
    assert ledger.configurations() == {"c1", "c2"}
    assert [one.configuration for one in ledger.trials_on("q1")] == ["c1"]
    assert [one.configuration for one in ledger.trials_on("q2")] == ["c1", "c2"]


def test_what_another_process_tried_is_counted(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.add(trial("c1"))
    code = (
        "import sys; from pathlib import Path\n"
        "from tests.evaluation.verdict.test_multiple_testing import Ledger, trial\n"
        "Ledger(Path(sys.argv[1])).add(trial('c2'))"
    )
    root = Path(__file__).resolve().parents[3]
    run([sys.executable, "-c", code, str(tmp_path)], cwd=root).check_returncode()
    assert ledger.configurations() == {"c1", "c2"}
    assert ledger.trials() == [trial("c1"), trial("c2")]


def test_half_a_file_of_a_process_that_was_killed_is_no_trial(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.add(trial())
    (tmp_path / FOLDER / "c2-q1.4711.tmp").write_bytes(b'{"label"')
    assert ledger.configurations() == {"c1"}


@pytest.mark.parametrize("content", [b"", b'{"label": "a"', b"{}", b"[]"])
def test_a_damaged_record_is_refused_for_a_count_without_it_would_lie(
    tmp_path: Path, content: bytes
) -> None:
    ledger = Ledger(tmp_path)
    ledger.add(trial())
    (path,) = (tmp_path / FOLDER).iterdir()
    path.write_bytes(content)
    for ask in (ledger.trials, ledger.configurations):
        with pytest.raises(InvalidInputError, match=rf"{path.name} is no record .* --out"):
            ask()


# --- What was asked


@cache
def dataset() -> Dataset:
    points = made_market().points
    end_ms = int(points.timestamp_ms[-1])
    return Dataset({SYMBOL: points}, M5, None, START_MS + LOOKBACK_DAYS * DAY_MS, end_ms)


def test_the_queries_are_others_by_their_time_step_symbol_or_outcomes() -> None:
    points, other = points_at(range(900)), points_at(range(900), 1, symbol="ETHUSDT")

    def digest(*of: PointTable, step_ms: int = HOUR_MS, start: int = 96) -> str:
        held = {table.symbol: table for table in of}
        asked = Dataset(held, M5, None, START_MS + start * 900_000, START_MS + 10 * DAY_MS)
        return queries_digest(asked, step_ms)

    changed = points.values.copy()
    changed[COLUMN_ROW["outcome_1h"], 100] += 1
    outcomes = replace(points, values=changed)
    digests = [
        digest(points),
        digest(other),
        digest(points, other),
        digest(points, step_ms=4 * HOUR_MS),
        digest(points, start=100),
        digest(outcomes),
    ]
    assert len(set(digests)) == len(digests)
    assert digest(other, points) == digest(points, other)
    # What is only looked back on is no part of the question.
    assert digest(points.take(slice(50, None))) == digest(points)


def test_gains_are_each_days_mean_of_what_was_lost_less_than_by_the_volatility_model() -> None:
    scored = made_score()
    (found,) = daily_gains([scored], dataset(), HOUR_MS).values()
    gain = scored.losses.volatility_model - scored.losses.forecast
    stamps = scored.walk.queries.timestamp_ms
    days = range(dataset().start_ms // DAY_MS, dataset().end_ms // DAY_MS + 1)
    assert len(found) == len(days)
    for day, told in zip(days, found, strict=True):
        assert told == pytest.approx(float(gain[stamps // DAY_MS == day].mean()))


def test_of_queries_more_often_only_those_on_the_step_count() -> None:
    often, (scored,) = made_score(step_ms=HOUR_MS), [made_score(step_ms=4 * HOUR_MS)]
    (told,) = daily_gains([often], dataset(), 4 * HOUR_MS).values()
    (expected,) = daily_gains([scored], dataset(), 4 * HOUR_MS).values()
    assert told == pytest.approx(expected)


def test_a_day_of_which_nothing_is_known_has_no_gain_and_is_not_zero() -> None:
    scored = made_score()
    day = scored.walk.queries.timestamp_ms // DAY_MS - dataset().start_ms // DAY_MS
    (found,) = daily_gains([scored.where(day != 3)], dataset(), HOUR_MS).values()
    (whole,) = daily_gains([scored], dataset(), HOUR_MS).values()
    assert found[3] is None
    assert found[:3] + found[4:] == whole[:3] + whole[4:]


# --- Whether the best is better than luck


def test_one_that_is_truly_better_is_found_among_those_that_are_not() -> None:
    others = [with_gains(str(n), noise(n), noise(n + 50)) for n in range(1, 6)]
    better = with_gains("better", noise(0) + 0.8, noise(99))
    found = superior_p_value([*others, better], reps=500, seed=1)
    assert found is not None
    assert found < 0.02


def test_luck_alone_is_not_found_better_more_often_than_the_level_says() -> None:
    p_values = [
        superior_p_value(
            [with_gains(str(n), noise(100 * run + n)) for n in range(6)], reps=100, seed=1
        )
        for run in range(40)
    ]
    assert None not in p_values
    assert sum(p <= 0.05 for p in p_values if p is not None) <= 6


def test_one_that_is_the_volatility_model_itself_neither_wins_nor_spoils_the_test() -> None:
    none = with_gains("none", np.zeros(DAYS))
    better = with_gains("better", noise(0) + 0.8)
    assert superior_p_value([none], reps=100, seed=1) == 1
    assert superior_p_value([none, better], reps=100, seed=1) == 0


def test_days_that_not_all_of_them_know_are_left_out() -> None:
    one, other = noise(1) + 0.3, noise(2)
    holes = one.copy()
    holes[::5] = nan
    kept = np.isfinite(holes)
    found = superior_p_value([with_gains("a", holes), with_gains("b", other)], reps=200, seed=1)
    alone = superior_p_value(
        [with_gains("a", one[kept]), with_gains("b", other[kept])], reps=200, seed=1
    )
    assert found == alone is not None


@pytest.mark.parametrize(
    "trials",
    [
        [],
        [with_gains("a", noise(1)[:20])],
        [with_gains("a", noise(1)), with_gains("b", noise(1)[:50])],
        [with_gains("a", np.full(DAYS, nan))],
    ],
    ids=["none", "few days", "other days", "nothing known"],
)
def test_too_little_to_test_is_no_p_value(trials: list[Trial]) -> None:
    assert superior_p_value(trials, reps=100, seed=1) is None
