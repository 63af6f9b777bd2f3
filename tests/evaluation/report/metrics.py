"""A made-up result of an evaluation, with everything in it that a report may have to show."""

from __future__ import annotations

import numpy as np

from llm_trader.evaluation.backtest.performance import Performance
from llm_trader.evaluation.plan import StudyPlan
from llm_trader.evaluation.results import (
    SCHEMA_VERSION,
    Arm,
    Band,
    Bin,
    Configuration,
    Control,
    Curve,
    Direction,
    Histogram,
    Metrics,
    Origin,
    Probability,
    Probe,
    Reference,
    RegimeSkill,
    Skill,
    Trials,
    UndirectedSkill,
)
from llm_trader.evaluation.significance import verdict
from llm_trader.retrieval.intervals import Interval
from llm_trader.snapshot.outcome import HORIZONS
from llm_trader.timeframe import DAY_MS
from tests.market.builders import START_MS

SYMBOLS = ("BTCUSDT", "ETHUSDT")
DAYS = 120
BEFORE, AFTER = Interval(0.724, 0.702, 0.746), Interval(0.803, 0.781, 0.825)

_REFERENCES: tuple[Reference, ...] = (
    "base rate",
    "base rate treated alike",
    "random neighbours",
)
_REGIMES = {
    "volatility": ["calm", "usual", "wild"],
    "hour": [f"{hour:02}" for hour in range(0, 24, 2)],
    "weekday": ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"],
}


def made_up_metrics(symbols: tuple[str, ...] = SYMBOLS) -> Metrics:
    """All controls passed; the last symbol's longest horizon has too little data."""
    chances = np.random.default_rng(7)
    return Metrics(
        schema_version=SCHEMA_VERSION,
        command="evaluate",
        created_at="2026-07-01T06:00:00Z",
        origin=_origin(symbols),
        verdict="no evidence",
        readings=[
            "There is no evidence that forecasts did better or worse than the base rate treated "
            "alike at any horizon.",
            "The band holds what it promises after correction.",
        ],
        skills=_skills(symbols, chances),
        undirected=[
            UndirectedSkill(symbol=of, horizon=name, skill=_interval(0.01, 0.008, chances))
            for of in symbols
            for name in HORIZONS
        ],
        directions=[
            Direction(
                variant="state",
                symbol=of,
                horizon=name,
                accuracy=_interval(0.51, 0.02, chances),
            )
            for of in symbols
            for name in HORIZONS
        ],
        probabilities=_probabilities(symbols, chances),
        bands=[
            Band(symbol=of, horizon=name, before=BEFORE, after=AFTER, queries=5400)
            for of in symbols
            for name in HORIZONS
        ],
        arms=_arms(symbols),
        controls=_controls(symbols[0]),
        probes=[
            Probe(name="future canary", symbol=of, checked=200, problem=None) for of in symbols
        ],
        slices=_slices(symbols, chances),
        trials=_trials(symbols, chances),
        histograms=[_histogram(of, chances) for of in symbols],
        curves=[curve for of in symbols for curve in _curves(of, chances)],
        seconds=83.4,
    )


def _origin(symbols: tuple[str, ...]) -> Origin:
    return Origin(
        package_version="0.1.0",
        exchange="bybit",
        symbols=list(symbols),
        start="2026-01-01T00:00:00Z",
        end="2026-05-01T00:00:00Z",
        feature_version="state-3",
        state_space_id="9f2c51aa03de",
        text_space_id=None,
        settings_digest="4be7f0c2a911",
        data_digest="d01c7f5e88b2",
        whole_lookback=dict.fromkeys(symbols, 0.75),
        plan=StudyPlan(symbols=symbols, seed=7),
    )


def _interval(centre: float, half: float, chances: np.random.Generator) -> Interval:
    value = centre + half * float(chances.normal()) / 2
    return Interval(value, value - half, value + half)


def _skills(symbols: tuple[str, ...], chances: np.random.Generator) -> list[Skill]:
    found = []
    for of in symbols:
        for name in HORIZONS:
            unknown = (of, name) == (symbols[-1], "24h")
            for reference in _REFERENCES:
                centre = 0.03 if reference == "base rate" else 0.0
                skill = _interval(centre, 0.015, chances)
                skill = Interval(skill.value, None, None) if unknown else skill
                found.append(
                    Skill(
                        variant="state",
                        symbol=of,
                        horizon=name,
                        reference=reference,
                        queries=11520,
                        skill=skill,
                        p_value=None if unknown else 0.0002 if centre else 0.4,
                        p_adjusted=None if unknown else 0.0004 if centre else 1.0,
                        detectable=None if unknown else 0.021,
                        verdict=verdict(skill),
                    )
                )
    return found


def _probabilities(symbols: tuple[str, ...], chances: np.random.Generator) -> list[Probability]:
    centres = np.arange(0.25, 0.8, 0.1)
    return [
        Probability(
            symbol=of,
            event=event,
            brier=0.2493,
            base_brier=0.2499,
            skill=_interval(0.002, 0.004, chances),
            bins=[
                Bin(float(at), float(at + 0.03 * chances.normal()), int(4000 * at * (1 - at)))
                for at in centres
            ],
        )
        for event in ("up in 1h", "up in 24h", "target before stop")
        for of in symbols
    ]


def performance(total_return_pct: float | None, trades: int) -> Performance:
    known = total_return_pct is not None
    return Performance(
        total_return_pct=total_return_pct,
        daily_returns=DAYS if known else 0,
        sharpe=0.84 if known else None,
        probabilistic_sharpe=0.71 if known else None,
        deflated_sharpe=0.22 if known else None,
        trials=12,
        max_drawdown_pct=-8.3 if known else None,
        trades=trades,
        win_rate=0.52 if trades else None,
        mean_net_pct=0.04 if trades else None,
        exposure=0.31 if known else None,
        turnover_per_day=1.7 if known else None,
    )


def _arms(symbols: tuple[str, ...]) -> list[Arm]:
    beside = Interval(0.012, -0.05, 0.074)
    return [
        arm
        for of in symbols
        for arm in (
            Arm(
                symbol=of,
                name="indicators alone",
                performance=performance(3.1, 140),
                difference=None,
                verdict=None,
            ),
            Arm(
                symbol=of,
                name="with evidence",
                performance=performance(4.6, 122),
                difference=beside,
                verdict=verdict(beside),
            ),
            Arm(
                symbol=of,
                name="never trades",
                performance=performance(None, 0),
                difference=Interval(None, None, None),
                verdict="no evidence",
            ),
        )
    ]


def _controls(symbol: str) -> list[Control]:
    none, planted = Interval(0.001, -0.012, 0.013), Interval(0.18, 0.15, 0.21)
    wide = Interval(0.001, -0.021, 0.022)
    return [
        Control(
            name=name,
            kind="negative",
            symbol=symbol,
            horizon="4h",
            skill=none,
            wide=wide,
            passed=True,
        )
        for name in ("shuffled outcomes", "shifted outcomes", "random vectors", "wrong symbol")
    ] + [
        Control(
            name="planted pattern",
            kind="positive",
            symbol=symbol,
            horizon="4h",
            skill=planted,
            wide=Interval(0.18, 0.13, 0.23),
            passed=True,
        )
    ]


def _slices(symbols: tuple[str, ...], chances: np.random.Generator) -> list[RegimeSkill]:
    return [
        RegimeSkill(
            symbol=of,
            horizon=name,
            by=by,
            value=value,
            queries=960,
            skill=None if value == "wild" else _interval(0.0, 0.03, chances),
        )
        for by, values in _REGIMES.items()
        for of in symbols
        for name in ("1h", "24h")
        for value in values
    ]


def _trials(symbols: tuple[str, ...], chances: np.random.Generator) -> Trials:
    labels = ("as the server", "25 episodes", "180 days", "text vector")
    return Trials(
        so_far=12,
        configurations=[
            Configuration(label=label, symbol=of, horizon="4h", skill=_interval(0.0, 0.02, chances))
            for label in labels
            for of in symbols
        ],
        superior_p_value=0.43,
        tested=len(labels),
    )


def _histogram(symbol: str, chances: np.random.Generator) -> Histogram:
    counts, edges = np.histogram(chances.normal(0.86, 0.03, 11520), bins=24, range=(0.7, 1.0))
    return Histogram(symbol=symbol, edges=edges.tolist(), counts=counts.tolist())


def _curves(symbol: str, chances: np.random.Generator) -> list[Curve]:
    times = [START_MS + day * DAY_MS for day in range(DAYS)]
    daily = {
        "indicators alone": np.cumprod(1 + 0.01 * chances.normal(size=DAYS)),
        "with evidence": np.cumprod(1 + 0.008 * chances.normal(size=DAYS)),
    }
    equity = [
        Curve(symbol=symbol, name=name, kind="equity", time_ms=times, value=values.tolist())
        for name, values in daily.items()
    ]
    gap: list[float | None] = [None] * 5
    near = 0.86 + 0.02 * chances.normal(size=DAYS - 5)
    return [
        *equity,
        Curve(
            symbol=symbol,
            name="similarity",
            kind="similarity",
            time_ms=times,
            value=gap + near.tolist(),
        ),
        Curve(
            symbol=symbol,
            name="effective episodes",
            kind="effective episodes",
            time_ms=times,
            value=gap + (38 + 3 * chances.normal(size=DAYS - 5)).tolist(),
        ),
        Curve(
            symbol=symbol,
            name="coverage",
            kind="coverage",
            time_ms=times,
            value=gap + (0.8 + 0.05 * chances.normal(size=DAYS - 5)).clip(0, 1).tolist(),
        ),
    ]
