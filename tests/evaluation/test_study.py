"""An evaluation from a store to its metrics, on a small simulated market of two symbols."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace as replaced

from llm_trader.embedding.state import StateSpace
from llm_trader.errors import InvalidInputError
from llm_trader.evaluation import study
from llm_trader.evaluation.backtest.simulator import Trade
from llm_trader.evaluation.backtest.strategies import BASELINE, STRATEGIES
from llm_trader.evaluation.controls.negative_controls import ALTERATION_NAMES, NO_EDGE, PLANTED
from llm_trader.evaluation.controls.probes import CANARY, TRUNCATION
from llm_trader.evaluation.dataset import Dataset, read_dataset
from llm_trader.evaluation.plan import AS_IT_IS, VARIANTS, Search, StudyPlan, sweep_plans
from llm_trader.evaluation.result_files import Study
from llm_trader.evaluation.results import SCHEMA_VERSION, VERDICT_REFERENCE, Metrics
from llm_trader.evaluation.study import StudyRun, variant_of
from llm_trader.evaluation.symbol_study import Subject
from llm_trader.evaluation.verdict.multiple_testing import Ledger
from llm_trader.evaluation.verdict.verdicts import adjusted, arms_verdict, forecast_verdict
from llm_trader.index.ingestion import Spaces
from llm_trader.index.points import TEXT
from llm_trader.llm.aggregator import AggregatorConfig
from llm_trader.market.store import MarketStore
from llm_trader.progress import no_progress
from llm_trader.timeframe import DAY_MS, HORIZONS, HOUR_MS, M5, iso8601
from tests.cli.corridor import END_MS, START_MS, SYMBOLS, WARM_MS, Corridor
from tests.evaluation.report.metrics import made_up_metrics
from tests.index.builders import unit_vectors

LOOKBACK_DAYS = 10
PLAN = StudyPlan(
    step_minutes=60,
    search=Search(
        include_regime_filters=False, lookback_days=LOOKBACK_DAYS, neighbours=15, gap_hours=4.0
    ),
    aggregator=AggregatorConfig(least_mean_bp=10),
    reps=100,
    sweep=({"label": "few", "search": {"neighbours": 5}},),
)
REFERENCES = ("base rate", "rescaled base rate", "volatility model", "random neighbours")


def subject_of(corridor: Corridor, start_ms: int) -> Subject:
    with MarketStore.open(corridor.store) as store:
        dataset = read_dataset(
            store,
            Spaces(StateSpace(M5)),
            list(SYMBOLS),
            start_ms,
            END_MS,
            lookback_days=LOOKBACK_DAYS,
            interval_ms=HOUR_MS,
        )
    return Subject(dataset.trimmed(HOUR_MS), corridor.store)


@pytest.fixture(scope="module")
def subject(corridor: Corridor) -> Subject:
    return subject_of(corridor, WARM_MS + (LOOKBACK_DAYS + 13) * DAY_MS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evaluated")


@pytest.fixture(scope="module")
def evaluated(subject: Subject, folder: Path) -> Study:
    return study.evaluate(subject, PLAN, running(folder))


@contextmanager
def without_controls() -> Iterator[None]:
    """They take long, and some tests are not about them."""
    controls = made_up_metrics().controls
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "market_controls", lambda *of: controls[:4])
        patch.setattr(study, "simulated_controls", lambda *of: controls[4:])
        yield


@pytest.fixture
def uncontrolled() -> Iterator[None]:
    with without_controls():
        yield


def running(folder: Path, jobs: int = 1) -> StudyRun:
    return StudyRun(Ledger(folder), jobs, no_progress, "2026-01-01T00:00:00Z", "5e77195d19e5")


def told(metrics: Metrics) -> Any:
    """Everything but how long it took."""
    return msgspec.json.decode(msgspec.json.encode(replaced(metrics, seconds=0.0)))


def trades_of(made: Study) -> dict[tuple[str, str], list[Trade]]:
    return {(symbol, of.name): of.simulation.trades for symbol, of in made.backtests}


# --- evaluate


@pytest.mark.soak
def test_several_processes_find_what_one_does_and_equal_seeds_the_same(
    subject: Subject, evaluated: Study, tmp_path: Path
) -> None:
    again = study.evaluate(subject, PLAN, running(tmp_path, jobs=2))
    assert told(again.metrics) == told(evaluated.metrics)
    for one, other in zip(again.steps, evaluated.steps, strict=True):
        assert one[:3] == other[:3]
        assert np.array_equal(one.time_ms, other.time_ms)
        for name, column in one.columns.items():
            assert np.array_equal(column, other.columns[name], equal_nan=True)
    assert trades_of(again) == trades_of(evaluated)
    assert len(trades_of(again)) == len(SYMBOLS) * len(STRATEGIES)


def test_there_is_a_skill_of_each_symbol_and_horizon_against_each_reference(
    evaluated: Study,
) -> None:
    metrics = evaluated.metrics
    keys = [(one.symbol, one.horizon, one.reference) for one in metrics.skills]
    assert keys == [(s, h, r) for s in SYMBOLS for h in HORIZONS for r in REFERENCES]
    assert {one.variant for one in metrics.skills} == {"state"}
    pairs = [(symbol, horizon) for symbol in SYMBOLS for horizon in HORIZONS]
    assert [(one.symbol, one.horizon) for one in metrics.bands] == pairs
    # Over 24h the forecast is the volatility model, which names no direction.
    named = [pair for pair in pairs if PLAN.rules[pair[1]].weight_of_neighbours]
    assert [(one.symbol, one.horizon) for one in metrics.directions] == named
    assert len(named) == len(pairs) - len(SYMBOLS)
    cells = {(one.symbol, one.horizon, one.by) for one in metrics.band_cells}
    conditions = ("expected / last 24h", "hour (UTC)")
    assert cells == {(*pair, by) for pair in pairs for by in conditions}
    assert {one.symbol for one in metrics.histograms} == set(SYMBOLS)
    assert [one.name for one in metrics.arms] == 2 * list(STRATEGIES)
    assert [one.name for one in metrics.arms if one.difference is None] == 2 * [BASELINE]
    assert {one.symbol for one in metrics.slices} == set(SYMBOLS)
    curves = {(one.symbol, one.kind) for one in metrics.curves}
    kinds = ("equity", "similarity", "effective episodes", "coverage")
    assert curves == {(symbol, kind) for symbol in SYMBOLS for kind in kinds}


def test_the_verdict_is_of_adjusted_p_values_over_everything_that_was_compared(
    evaluated: Study,
) -> None:
    metrics = evaluated.metrics
    assert metrics.skills == adjusted(metrics.skills)
    assert metrics.verdict == forecast_verdict(metrics.skills, "state")
    assert metrics.readings


def test_controls_and_probes_are_run_each_time(evaluated: Study) -> None:
    controls = [(one.symbol, one.name) for one in evaluated.metrics.controls]
    expected = [(symbol, name) for symbol in SYMBOLS for name in ALTERATION_NAMES]
    expected += [("simulated", name) for name in (NO_EDGE, PLANTED)]
    assert controls == [one for one in expected for _ in ("1h", "4h")]
    assert all(one.passed for one in evaluated.metrics.controls)
    probes = [(one.symbol, one.name) for one in evaluated.metrics.probes]
    assert probes == [(symbol, name) for symbol in SYMBOLS for name in (CANARY, TRUNCATION)]
    assert all(one.problem is None and one.checked for one in evaluated.metrics.probes)


def test_the_origin_says_what_was_evaluated_and_with_what(
    evaluated: Study, subject: Subject
) -> None:
    metrics, dataset = evaluated.metrics, subject.dataset
    origin = metrics.origin
    assert (metrics.schema_version, metrics.command) == (SCHEMA_VERSION, "evaluate")
    assert origin.symbols == list(SYMBOLS)
    assert (origin.start, origin.end) == (iso8601(dataset.start_ms), iso8601(dataset.end_ms))
    assert (origin.data_digest, origin.settings_digest) == (dataset.digest(), PLAN.digest())
    assert origin.plan == PLAN
    assert START_MS + (20 + LOOKBACK_DAYS) * DAY_MS < dataset.start_ms < dataset.end_ms


def test_the_plan_and_its_sweep_are_tried_and_kept(
    evaluated: Study, subject: Subject, folder: Path
) -> None:
    trials = evaluated.metrics.trials
    assert (trials.so_far, trials.tested) == (2, 2)
    found = [(one.label, one.symbol, one.horizon) for one in trials.configurations]
    assert found == [
        (label, symbol, horizon)
        for symbol in SYMBOLS
        for label in (AS_IT_IS, "few")
        for horizon in HORIZONS
    ]
    kept = {one.label: one for one in Ledger(folder).trials()}
    plans = {"state": PLAN, **sweep_plans(PLAN)}
    spaces = StateSpace(M5).space_id, None
    assert {name: of.configuration(*spaces) for name, of in plans.items()} == {
        name: of.configuration for name, of in kept.items()
    }
    start_ms, end_ms = subject.dataset.start_ms, subject.dataset.end_ms
    length = end_ms // DAY_MS - start_ms // DAY_MS + 1
    for one in kept.values():
        assert set(one.gains) == {f"{s} {h}" for s in SYMBOLS for h in HORIZONS}
        assert {len(gains) for gains in one.gains.values()} == {length}
    # A Sharpe ratio is the best of what each arm on each symbol did in each of these.
    assert {one.performance.trials for one in evaluated.metrics.arms} == {2 * (2 + len(STRATEGIES))}


@pytest.mark.soak
def test_what_was_tried_before_counts_and_what_is_tried_again_does_not(
    subject: Subject, tmp_path: Path, uncontrolled: None
) -> None:
    plain = replaced(PLAN, sweep=())
    other = replaced(plain, search=replaced(PLAN.search, gap_hours=8.0))
    one = replace(
        subject, dataset=replace(subject.dataset, points={"BTCUSDT": bitcoin(subject.dataset)})
    )
    counts = []
    for plan in (plain, other, replaced(plain, seed=9), replaced(other, reps=101)):
        trials = study.evaluate(one, plan, running(tmp_path)).metrics.trials
        counts.append((trials.so_far, trials.tested))
    assert counts == [(1, 1), (2, 2), (2, 2), (2, 2)]


def bitcoin(dataset: Dataset) -> Any:
    return dataset.points["BTCUSDT"]


@pytest.mark.soak
def test_in_which_order_the_rules_stand_in_a_file_makes_no_difference(
    subject: Subject, tmp_path: Path, uncontrolled: None
) -> None:
    points = {"BTCUSDT": bitcoin(subject.dataset)}
    one_symbol = replace(subject, dataset=replace(subject.dataset, points=points))
    found = []
    for names in (("1h", "4h", "24h"), ("24h", "4h", "1h")):
        plan = replaced(PLAN, rules={name: PLAN.rules[name] for name in names}, sweep=())
        metrics = study.evaluate(one_symbol, plan, running(tmp_path)).metrics
        assert metrics.trials.so_far == 1
        found.append(
            [
                sorted(told(metrics)[part], key=str)
                for part in ("skills", "probabilities", "bands", "slices", "arms")
            ]
        )
    assert found[0] == found[1]


def test_a_damaged_ledger_is_refused_before_anything_is_done(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "trials").mkdir()
    (tmp_path / "trials" / "a-b.json").write_text("{")
    monkeypatch.setattr(study, "run_tasks", lambda *of: pytest.fail("something was done"))
    with pytest.raises(InvalidInputError, match=r"a-b\.json is no record"):
        study.evaluate(subject, PLAN, running(tmp_path))


# --- compare


@pytest.fixture(scope="module")
def with_texts(corridor: Corridor) -> Subject:
    """From where the first queries do not find all their neighbours; texts that say nothing."""
    early = subject_of(corridor, WARM_MS + DAY_MS)
    points = {
        symbol: replace(of, vectors={**of.vectors, TEXT: unit_vectors(len(of), number, 8)})
        for number, (symbol, of) in enumerate(early.dataset.points.items())
    }
    return replace(early, dataset=replace(early.dataset, points=points, text_space_id="t"))


@pytest.fixture(scope="module")
def compared(with_texts: Subject, tmp_path_factory: pytest.TempPathFactory) -> Metrics:
    plan = replaced(PLAN, sweep=())
    with without_controls():
        folder = tmp_path_factory.mktemp("compared")
        return study.compare(with_texts, plan, VARIANTS, running(folder)).metrics


@pytest.mark.soak
def test_variants_are_compared_by_queries_that_all_of_them_answer(
    compared: Metrics, with_texts: Subject
) -> None:
    asked = len(with_texts.dataset.queries("BTCUSDT", HOUR_MS))
    for symbol in SYMBOLS:
        for horizon in HORIZONS:
            of_one = [
                one for one in compared.skills if (one.symbol, one.horizon) == (symbol, horizon)
            ]
            assert len(of_one) == len(VARIANTS) * len(REFERENCES)
            (queries,) = {one.queries for one in of_one}
            assert 24 < asked - queries < 24 * 6
    assert compared.command == "compare"
    assert compared.arms == []
    assert {one.variant for one in compared.directions} == set(VARIANTS) - {"none"}
    assert compared.trials.so_far == len(VARIANTS)
    # Without the plan's own it would be the last.
    assert compared.verdict == forecast_verdict(compared.skills, "state")


def test_none_is_exactly_the_volatility_model(
    subject: Subject, tmp_path: Path, uncontrolled: None
) -> None:
    plan = replaced(PLAN, sweep=())
    found = study.compare(subject, plan, ["none", "random"], running(tmp_path)).metrics
    assert found.verdict == forecast_verdict(found.skills, "random")
    none = [
        one for one in found.skills if (one.variant, one.reference) == ("none", VERDICT_REFERENCE)
    ]
    assert len(none) == len(SYMBOLS) * len(HORIZONS)
    for one in none:
        bounds = (one.skill.value, one.skill.low, one.skill.high)
        known = [bound for bound in bounds if bound is not None]
        assert known == [0] * len(known)
        assert one.potential == 0
        assert one.verdict == "no evidence"


def test_the_prototype_is_five_overlapping_neighbours_by_text_as_they_were() -> None:
    plan = variant_of(PLAN, "prototype")
    search = plan.search
    assert (search.vector, search.neighbours, search.gap_hours) == ("text", 5, 0.0)
    rules = {(of.weight_of_neighbours, of.scale, of.kernel) for of in plan.rules.values()}
    assert rules == {(1.0, "none", 0.0)}
    assert plan.search.lookback_days == LOOKBACK_DAYS


def test_vectors_that_are_not_known_or_none_at_all_are_refused(
    subject: Subject, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInputError, match="there is no vector 'colour'; known: none, random"):
        study.compare(subject, PLAN, ["state", "colour"], running(tmp_path))
    with pytest.raises(InvalidInputError, match="name vectors to compare: none, random"):
        study.compare(subject, PLAN, [], running(tmp_path))


# --- ab


def test_ab_trades_two_arms_and_judges_the_second_by_the_first(
    subject: Subject, tmp_path: Path, uncontrolled: None
) -> None:
    found = study.ab(subject, replaced(PLAN, sweep=()), "hold", "macd-sign", running(tmp_path))
    metrics = found.metrics
    assert metrics.command == "ab"
    assert [(one.symbol, one.name) for one in metrics.arms] == [
        (symbol, name) for symbol in SYMBOLS for name in ("hold", "macd-sign")
    ]
    assert [one.difference is None for one in metrics.arms] == [True, False] * 2
    assert metrics.verdict == arms_verdict(metrics.arms, "macd-sign")
    for symbol in SYMBOLS:
        hold, macd = (len(trades_of(found)[symbol, name]) for name in ("hold", "macd-sign"))
        assert hold == 1 < macd


@pytest.mark.parametrize(
    ("arms", "refusal"),
    [
        (("rag", "oracle"), "there is no arm 'oracle'; known: rag, baseline"),
        (("oracle", "rag"), "there is no arm 'oracle'"),
        (("rag", "rag"), "both arms are 'rag'; name two different ones"),
    ],
)
def test_arms_that_cannot_be_compared_are_refused(
    subject: Subject, tmp_path: Path, arms: tuple[str, str], refusal: str
) -> None:
    with pytest.raises(InvalidInputError, match=refusal):
        study.ab(subject, PLAN, *arms, running(tmp_path))
