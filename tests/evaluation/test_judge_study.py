"""Anybody's forecasts are read, judged and kept as this program's own are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from llm_trader.errors import InvalidInputError
from llm_trader.evaluation import judge_study
from llm_trader.evaluation.dataset import Dataset
from llm_trader.evaluation.forecast.ensembles import HorizonOutcomes, forecast_quantiles
from llm_trader.evaluation.forecast.given_forecasts import (
    Given,
    GivenForecasts,
    read_forecasts,
)
from llm_trader.evaluation.judge_study import PLANTED, SHUFFLED, judge_forecasts, judge_symbol
from llm_trader.evaluation.plan import ForecastRule, StudyPlan
from llm_trader.evaluation.results import Control, Skill
from llm_trader.evaluation.study import StudyRun
from llm_trader.evaluation.symbol_study import Subject, SymbolStudy
from llm_trader.evaluation.verdict.multiple_testing import Ledger
from llm_trader.progress import no_progress
from llm_trader.timeframe import HOUR_MS, M5, iso8601
from tests.evaluation.small_market import SEARCH, made_walk
from tests.index.builders import SYMBOL

HEAD = "symbol,time,horizon,q10,q50,q90"
ROW = "BTCUSDT,2026-03-20T12:00:00Z,1h,-0.5,0.0,0.6"
LEVELS = np.arange(1, 20) / 20
PLAN = StudyPlan(step_minutes=60, search=SEARCH, reps=100)


def written(folder: Path, *lines: str) -> Path:
    path = folder / "mine.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize("times", ["text", "milliseconds"])
def test_rows_are_read_in_the_order_of_time(tmp_path: Path, form: str, times: str) -> None:
    stamps = [1_774_008_000_000 + i * HOUR_MS for i in (2, 0, 1)]
    table = pl.DataFrame(
        {
            "symbol": "BTCUSDT",
            "time": stamps if times == "milliseconds" else [iso8601(t) for t in stamps],
            "horizon": "4h",
            "q90": [1.0, 2.0, 3.0],
            "q2.5": [-1.0, -2.0, -3.0],
        }
    )
    path = tmp_path / f"mine.{form}"
    table.write_csv(path) if form == "csv" else table.write_parquet(path)
    read = read_forecasts(path)
    found = read.forecasts["BTCUSDT"]["4h"]
    assert found.time_ms.tolist() == sorted(stamps)
    assert found.values.tolist() == [[-2.0, 2.0], [-3.0, 3.0], [-1.0, 1.0]]
    assert found.levels is not None
    assert found.levels.tolist() == [0.025, 0.9]
    assert (read.horizons, read.step_ms()) == (["4h"], HOUR_MS)
    assert read.span_ms() == (min(stamps), max(stamps))


def test_samples_need_no_order(tmp_path: Path) -> None:
    path = written(tmp_path, "symbol,time,horizon,s1,s2,s3", f"{ROW[:31]},2,-1,0.5")
    found = read_forecasts(path).forecasts["BTCUSDT"]["1h"]
    assert found.values.tolist() == [[-1.0, 0.5, 2.0]]
    assert found.levels is None


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ((HEAD,), "holds no forecast"),
        (("symbol,time,q10,q90", "BTCUSDT,2026-03-20T12:00:00Z,1,2"), "no column horizon"),
        ((f"{HEAD},s1,s2", f"{ROW},1,2"), "has 3 quantiles and 2 samples"),
        (("symbol,time,horizon,q50", ROW[:31] + ",0.1"), "has 1 quantiles and 0 samples"),
        ((HEAD, ROW, ROW.replace("0.6", "-0.6")), "quantiles that do not ascend: row 2"),
        ((HEAD, ROW, ROW.replace("0.6", "")), "no number in q90: row 2"),
        ((HEAD, ROW.replace("1h", "2h")), "a horizon that is none of 15m, 1h, 4h, 24h: row 1"),
        ((HEAD, ROW, ROW), "a second forecast of BTCUSDT over 1h at a time: row 2"),
        ((HEAD, ROW.replace("2026-03-20T12:00:00Z", "noon")), "neither RFC 3339 nor"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_row(
    tmp_path: Path, lines: tuple[str, ...], problem: str
) -> None:
    with pytest.raises(InvalidInputError, match=problem):
        read_forecasts(written(tmp_path, *lines))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="there is no file"):
        read_forecasts(tmp_path / "none.csv")


def subject() -> Subject:
    points = made_walk().points
    stamps = made_walk().queries.timestamp_ms
    dataset = Dataset({SYMBOL: points}, M5, None, int(stamps[0]), int(stamps[-1]))
    return Subject(dataset, Path("none"))


Values = Callable[[np.ndarray, np.ndarray], np.ndarray]


def given_of(values: np.ndarray, levels: np.ndarray | None = LEVELS) -> GivenForecasts:
    given = Given(made_walk().queries.timestamp_ms, np.sort(values, axis=1), levels)
    return GivenForecasts("mine.csv", "d16e57", {SYMBOL: {"4h": given}})


def of_model() -> np.ndarray:
    """The volatility model's own quantiles at each query."""
    walk = made_walk()
    outcomes = HorizonOutcomes(walk.points, walk.queries, walk.neighbours, "4h")
    alone = ForecastRule(weight_of_neighbours=0.0)
    quantiles = forecast_quantiles(outcomes, walk.neighbours, alone, LEVELS)
    return np.asarray(quantiles * outcomes.scale_pct[:, None])


def judged(given: GivenForecasts) -> tuple[SymbolStudy, list[Control]]:
    return judge_symbol(subject(), SYMBOL, given.forecasts[SYMBOL], given.name, PLAN, no_progress)


def skills(given: GivenForecasts) -> dict[str, Skill]:
    study, _ = judged(given)
    return {skill.reference: skill for skill in study.findings.skills}


def test_the_volatility_models_own_quantiles_are_as_good_as_it_is() -> None:
    found = skills(given_of(of_model()))
    assert list(found) == [
        *("base rate", "rescaled base rate", "volatility model", "random neighbours"),
        "served forecast",
    ]
    assert found["volatility model"].skill.value == pytest.approx(0, abs=1e-12)
    assert found["served forecast"].skill.below(0)  # states tell of what follows in this market


@pytest.mark.soak
def test_forecasts_that_know_are_better_and_those_that_are_noise_are_worse() -> None:
    model, observed = of_model(), made_walk().queries.column("outcome_4h")[:, None]
    assert skills(given_of(model + 0.5 * (observed - model)))["served forecast"].skill.above(0)
    noise = np.random.default_rng(0).standard_normal((len(model), 1))
    assert skills(given_of(model + 3 * noise * np.ptp(model, axis=1, keepdims=True)))[
        "base rate"
    ].skill.below(0)


def test_samples_are_judged_beside_the_exact_scores_of_the_references() -> None:
    found = skills(given_of(of_model(), None))
    # 19 samples of equal weight are a rougher forecast than the window they stand for.
    assert -0.05 < found["volatility model"].skill.value < 0


def test_forecasts_of_some_of_the_times_are_judged_at_these() -> None:
    whole = given_of(of_model())
    some = whole.forecasts[SYMBOL]["4h"].take(np.arange(0, 400))
    part = GivenForecasts("mine.csv", "d16e57", {SYMBOL: {"4h": some}})
    assert {skill.queries for skill in skills(part).values()} == {400}


def test_their_own_controls_find_nothing_in_shuffled_outcomes_and_what_is_planted() -> None:
    _, controls = judged(given_of(of_model()))
    assert [(one.name, one.kind, one.passed) for one in controls] == [
        (SHUFFLED, "negative", True),
        (PLANTED, "positive", True),
    ]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("market_controls", "simulated_controls"):
        monkeypatch.setattr(judge_study, name, lambda *of: [])
    return


@pytest.mark.soak
def test_a_judged_file_is_a_trial_and_its_study_says_so(quick: None, tmp_path: Path) -> None:
    run = StudyRun(Ledger(tmp_path), 1, no_progress, "2026-01-01T00:00:00Z")
    for _ in range(2):  # judged again it is no further trial
        study = judge_forecasts(subject(), given_of(of_model()), PLAN, run)
    assert study.metrics.command == "judge"
    assert study.metrics.trials.so_far == 1
    assert [trial.label for trial in Ledger(tmp_path).trials()] == ["mine.csv"]
    assert {control.name for control in study.metrics.controls} == {SHUFFLED, PLANTED}
    assert [steps.variant for steps in study.steps] == ["mine.csv"]
    assert any("mine.csv" in reading for reading in study.metrics.readings)
