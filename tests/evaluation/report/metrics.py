"""A made-up result of an evaluation, with everything in it that a report may have to show."""

from __future__ import annotations

from math import nan

import numpy as np
from msgspec.structs import replace

from llm_trader.evaluation.plan import StudyPlan
from llm_trader.evaluation.report import wording
from llm_trader.evaluation.results import (
    SCHEMA_VERSION,
    VERDICT_REFERENCE,
    Arm,
    Band,
    BandCell,
    Bin,
    Command,
    Configuration,
    Control,
    Curve,
    Direction,
    Histogram,
    Metrics,
    Origin,
    Performance,
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
from llm_trader.timeframe import DAY_MS, HORIZONS
from tests.market.builders import START_MS

SYMBOLS = ("BTCUSDT", "ETHUSDT")
DAYS = 120
COMMANDS: tuple[Command, ...] = ("evaluate", "compare", "ab", "calibrate")
VARIANTS = ("none", "random", "text", "hybrid", "prototype", "state")
UNKNOWN = Interval(None, None, None)
SAME = Interval(0.0, 0.0, 0.0)
BEFORE, AFTER = Interval(0.724, 0.702, 0.746), Interval(0.803, 0.781, 0.825)

_REFERENCES: tuple[Reference, ...] = (
    "base rate",
    "rescaled base rate",
    VERDICT_REFERENCE,
    "random neighbours",
)
# Forecasts over 24h give neighbours no weight: they are those of the volatility model.
_WITH_NEIGHBOURS = [name for name in HORIZONS if name != "24h"]
_BAND_CELLS = {
    "expected / last 24h": [f"fifth {number} of 5" for number in range(1, 6)],
    "hour (UTC)": [f"{hour:02d}-{hour + 4:02d}" for hour in range(0, 24, 4)],
}
_REGIMES = {
    "volatility": ["calm", "usual", "wild"],
    "hour": [f"{hour:02}" for hour in range(0, 24, 2)],
    "weekday": ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"],
}


def made_up_metrics(symbols: tuple[str, ...] = SYMBOLS) -> Metrics:
    """All controls passed; the last symbol's longest horizon has too little data.

    Over the longest horizon the volatility model forecasts alone.
    """
    rng = np.random.default_rng(7)
    return Metrics(
        schema_version=SCHEMA_VERSION,
        command="evaluate",
        created_at="2026-07-01T06:00:00Z",
        origin=_origin(symbols),
        verdict="no evidence",
        readings=[
            "There is no evidence that forecasts did better or worse than the volatility model "
            "at any horizon.",
            "The band holds what it promises after correction.",
        ],
        skills=_skills(symbols, rng),
        undirected=[
            UndirectedSkill(symbol=symbol, horizon=name, skill=_interval(0.01, 0.008, rng))
            for symbol in symbols
            for name in HORIZONS
        ],
        directions=[
            Direction(
                variant="state",
                symbol=symbol,
                horizon=name,
                accuracy=_interval(0.51, 0.02, rng),
            )
            for symbol in symbols
            for name in _WITH_NEIGHBOURS
        ],
        probabilities=_probabilities(symbols, rng),
        bands=[
            Band(symbol=symbol, horizon=name, before=BEFORE, after=AFTER, queries=5400)
            for symbol in symbols
            for name in HORIZONS
        ],
        band_cells=[
            BandCell(
                symbol=symbol,
                horizon=name,
                by=by,
                value=value,
                before=0.71 + 0.02 * number,
                after=0.79 + 0.01 * number,
                queries=900 + number,
            )
            for by, values in _BAND_CELLS.items()
            for symbol in symbols
            for name in HORIZONS
            for number, value in enumerate(values)
        ],
        arms=_arms(symbols),
        controls=_controls(symbols[0]),
        probes=[
            Probe(name="future canary", symbol=symbol, checked=200, problem=None)
            for symbol in symbols
        ],
        slices=_slices(symbols, rng),
        trials=_trials(symbols, rng),
        histograms=[_histogram(symbol, rng) for symbol in symbols],
        curves=[curve for symbol in symbols for curve in _curves(symbol, rng)],
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
        lookback_filled=dict.fromkeys(symbols, 0.75),
        plan=StudyPlan(symbols=symbols, seed=7),
    )


def _interval(centre: float, half: float, rng: np.random.Generator) -> Interval:
    value = centre + half * float(rng.normal()) / 2
    return Interval(value, value - half, value + half)


def _skills(symbols: tuple[str, ...], rng: np.random.Generator) -> list[Skill]:
    skills = []
    for symbol in symbols:
        for name in HORIZONS:
            unknown = (symbol, name) == (symbols[-1], "24h")
            for reference in _REFERENCES:
                centre = 0.03 if reference == "base rate" else 0.0
                skill = _interval(centre, 0.015, rng)
                same = name == "24h" and reference in (VERDICT_REFERENCE, "random neighbours")
                skill = SAME if same else skill
                skill = Interval(skill.value, None, None) if unknown else skill
                skills.append(
                    Skill(
                        variant="state",
                        symbol=symbol,
                        horizon=name,
                        reference=reference,
                        queries=11520,
                        skill=skill,
                        potential=(skill.value or 0.0) + 0.0065,
                        p_value=None if unknown or same else 0.0002 if centre else 0.4,
                        p_adjusted=None if unknown or same else 0.0004 if centre else 1.0,
                        detectable=None if unknown else 0.0 if same else 0.021,
                        verdict=verdict(skill) if centre else "no evidence",
                    )
                )
    return skills


def _probabilities(symbols: tuple[str, ...], rng: np.random.Generator) -> list[Probability]:
    centres = np.arange(0.25, 0.8, 0.1)
    return [
        Probability(
            symbol=symbol,
            event=event,
            brier=0.2493,
            base_brier=0.2499,
            skill=_interval(0.002, 0.004, rng),
            bins=[
                Bin(
                    float(share),
                    float(share + 0.03 * rng.normal()),
                    int(4000 * share * (1 - share)),
                )
                for share in centres
            ],
        )
        for event in ("up in 1h", "up in 24h", "target before stop")
        for symbol in symbols
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
    difference = Interval(0.012, -0.05, 0.074)
    return [
        arm
        for symbol in symbols
        for arm in (
            Arm(
                symbol=symbol,
                name="indicators alone",
                performance=performance(3.1, 140),
                difference=None,
                verdict=None,
            ),
            Arm(
                symbol=symbol,
                name="with evidence",
                performance=performance(4.6, 122),
                difference=difference,
                verdict=verdict(difference),
            ),
            Arm(
                symbol=symbol,
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


def _slices(symbols: tuple[str, ...], rng: np.random.Generator) -> list[RegimeSkill]:
    return [
        RegimeSkill(
            symbol=symbol,
            horizon=name,
            by=by,
            value=value,
            queries=960,
            skill=None if value == "wild" else _regime_skill(name, rng),
        )
        for by, values in _REGIMES.items()
        for symbol in symbols
        for name in ("1h", "24h")
        for value in values
    ]


def _regime_skill(horizon: str, rng: np.random.Generator) -> Interval:
    return _interval(0.0, 0.03, rng) if horizon in _WITH_NEIGHBOURS else SAME


def _trials(symbols: tuple[str, ...], rng: np.random.Generator) -> Trials:
    labels = ("as the server", "50 neighbours", "180 days", "text vector")
    return Trials(
        so_far=12,
        configurations=[
            Configuration(label=label, symbol=symbol, horizon="4h", skill=_interval(0.0, 0.02, rng))
            for label in labels
            for symbol in symbols
        ],
        superior_p_value=0.43,
        tested=len(labels),
    )


def _histogram(symbol: str, rng: np.random.Generator) -> Histogram:
    counts, edges = np.histogram(rng.normal(0.86, 0.03, 11520), bins=24, range=(0.7, 1.0))
    return Histogram(symbol=symbol, edges=edges.tolist(), counts=counts.tolist())


def _curves(symbol: str, rng: np.random.Generator) -> list[Curve]:
    times = [START_MS + day * DAY_MS for day in range(DAYS)]
    daily = {
        "indicators alone": np.cumprod(1 + 0.01 * rng.normal(size=DAYS)),
        "with evidence": np.cumprod(1 + 0.008 * rng.normal(size=DAYS)),
    }
    equity = [
        Curve(symbol=symbol, name=name, kind="equity", time_ms=times, value=values.tolist())
        for name, values in daily.items()
    ]
    gap: list[float | None] = [None] * 5
    similarity = 0.86 + 0.02 * rng.normal(size=DAYS - 5)
    return [
        *equity,
        Curve(
            symbol=symbol,
            name="similarity",
            kind="similarity",
            time_ms=times,
            value=gap + similarity.tolist(),
        ),
        Curve(
            symbol=symbol,
            name="effective episodes",
            kind="effective episodes",
            time_ms=times,
            value=gap + (38 + 3 * rng.normal(size=DAYS - 5)).tolist(),
        ),
        Curve(
            symbol=symbol,
            name="coverage",
            kind="coverage",
            time_ms=times,
            value=gap + (0.8 + 0.05 * rng.normal(size=DAYS - 5)).clip(0, 1).tolist(),
        ),
    ]


def metrics_of_command(command: Command) -> Metrics:
    """The result that a command would have, with its readings."""
    metrics = replace(made_up_metrics(), command=command)
    if command in ("compare", "calibrate"):
        curves = [curve for curve in metrics.curves if curve.kind != "equity"]
        trials = replace(metrics.trials, configurations=[])
        metrics = replace(metrics, arms=[], curves=curves, trials=trials)
    if command == "compare":
        skills, directions = (
            [replace(result, variant=variant) for variant in VARIANTS for result in results]
            for results in (metrics.skills, metrics.directions)
        )
        metrics = replace(metrics, skills=skills, directions=directions)
    if command == "ab":
        metrics = replace(metrics, arms=[a for a in metrics.arms if a.name != "never trades"])
    if command == "calibrate":
        metrics = replace(
            metrics,
            skills=[replace(skill, potential=None) for skill in metrics.skills],
            controls=[],
            probes=[],
            slices=[],
            directions=[],
            probabilities=[],
        )
    return with_readings(metrics)


def with_readings(metrics: Metrics) -> Metrics:
    return replace(metrics, readings=wording.readings(metrics))


def unknown(metrics: Metrics) -> Metrics:
    """The same result, in which every number is unknown."""
    return replace(
        metrics,
        skills=[
            replace(
                skill, skill=UNKNOWN, potential=None, p_value=None, p_adjusted=nan, detectable=None
            )
            for skill in metrics.skills
        ],
        directions=[replace(hits, accuracy=UNKNOWN) for hits in metrics.directions],
        probabilities=[
            replace(result, brier=nan, base_brier=nan, skill=UNKNOWN, bins=[])
            for result in metrics.probabilities
        ],
        bands=[replace(band, before=UNKNOWN, after=UNKNOWN) for band in metrics.bands],
        arms=[
            replace(arm, performance=performance(None, 0), difference=arm.difference and UNKNOWN)
            for arm in metrics.arms
        ],
        controls=[replace(control, skill=UNKNOWN, wide=UNKNOWN) for control in metrics.controls],
        slices=[replace(regime, skill=UNKNOWN) for regime in metrics.slices],
        trials=replace(
            metrics.trials,
            superior_p_value=nan,
            configurations=[
                replace(trial, skill=UNKNOWN) for trial in metrics.trials.configurations
            ],
        ),
        curves=[replace(curve, value=[None] * len(curve.value)) for curve in metrics.curves],
    )
