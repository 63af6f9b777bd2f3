"""What an evaluation does, as it is read from a file, and the digest that goes into every result.

A file of TOML has the keys of `StudyPlan`; what it leaves out is as the server searches, or the
default. Of a sweep each entry is the plan with some of its keys replaced: one configuration tried.
"""

from __future__ import annotations

import datetime
import hashlib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from llm_trader.errors import ConfigurationError, InvalidInputError
from llm_trader.evaluation.backtest.simulator import Costs, TradingRules
from llm_trader.evaluation.forecast.ensembles import ForecastRule
from llm_trader.evaluation.forecast.neighbour_search import Search
from llm_trader.llm.aggregator import AggregatorConfig
from llm_trader.snapshot.outcome import HORIZONS
from llm_trader.timeframe import MINUTE_MS, Millis

Described = dict[str, Any]

# Names that a study gives to what it tries by itself.
NONE: Final = "none"
PROTOTYPE: Final = "prototype"
VARIANTS: Final = (NONE, "random", "state", "text", "hybrid", PROTOTYPE)
AS_IT_IS: Final = "as it is"

_MINUTES_A_DAY: Final = 1440

# Volatility reverts: the longer the horizon, the less today's tells of it.
DEFAULT_RULES: Final = {
    "15m": ForecastRule(rescale=0.75, neighbour_share=0.5),
    "1h": ForecastRule(rescale=0.75, neighbour_share=0.5),
    "4h": ForecastRule(rescale=0.75, neighbour_share=0.5),
    "24h": ForecastRule(rescale=0.25, neighbour_share=0.5),
}

# One thing changed at a time: how many neighbours, how far apart, how far back, how alike.
DEFAULT_SWEEP: Final[list[Described]] = [
    {"label": "25 episodes", "search": {"episodes": 25}},
    {"label": "100 episodes", "search": {"episodes": 100}},
    {"label": "no gap", "search": {"min_gap_hours": 0.0}},
    {"label": "gap 12 h", "search": {"min_gap_hours": 12.0}},
    {"label": "lookback 30 days", "search": {"lookback_days": 30}},
    {"label": "lookback 60 days", "search": {"lookback_days": 60}},
    {"label": "similarity from 0.7", "least_similarity": 0.7},
    {"label": "similarity from 0.8", "least_similarity": 0.8},
    {"label": "neighbours alone", "neighbour_share": 1.0},
    {"label": "neighbours a quarter", "neighbour_share": 0.25},
    {"label": "not rescaled", "rescale": 0.0},
    {"label": "fully rescaled", "rescale": 1.0},
]


class StudyPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Times are days ago or RFC 3339, as on the command line; no symbols are all of the store.

    `least_similarity`: where a query's neighbours are less alike on average, the forecast is the
    base rate. `sweep` lists further configurations, each with a label and the keys it replaces;
    `neighbour_share` and `rescale` replace those of all horizons.
    """

    symbols: tuple[str, ...] = ()
    start: str | None = None
    end: str = "now"
    step_minutes: Annotated[int, msgspec.Meta(ge=1, le=_MINUTES_A_DAY)] = 15
    search: Search = Search()
    rules: dict[str, ForecastRule] = msgspec.field(default_factory=lambda: dict(DEFAULT_RULES))
    least_similarity: Annotated[float, msgspec.Meta(ge=-1, le=1)] | None = None
    decider: Literal["aggregator"] = "aggregator"
    aggregator: AggregatorConfig = AggregatorConfig()
    trading: TradingRules = TradingRules()
    costs: Costs = Costs()
    reps: Annotated[int, msgspec.Meta(ge=100, le=100_000)] = 1000
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**31)] = 0
    sweep: tuple[Described, ...] = ()

    def __post_init__(self) -> None:
        unknown = [name for name in self.rules if name not in HORIZONS]
        if unknown or not self.rules:
            told = ", ".join(unknown) or "none"
            raise InvalidInputError(f"rules of {told}: the horizons are {', '.join(HORIZONS)}")
        if _MINUTES_A_DAY % self.step_minutes:
            raise InvalidInputError(f"step_minutes {self.step_minutes} does not divide a day")

    @property
    def step_ms(self) -> Millis:
        return self.step_minutes * MINUTE_MS

    def configuration(self, *spaces: str | None) -> str:
        """12 hex digits of the SHA-256 of what decides the forecasts and decisions, and of the ids
        of the vector spaces it was tried in.

        When and on what they are asked, and how often chance is, does not count: that makes no
        other configuration.
        """
        of = (self.search, self.rules, self.least_similarity)
        return _digest([of, self.decider, self.aggregator, self.trading, self.costs, spaces])

    def digest(self) -> str:
        """12 hex digits of the SHA-256 of the whole plan."""
        return _digest(self)

    def variants(self) -> dict[str, StudyPlan]:
        """The configurations of the sweep by label, without a sweep of their own."""
        found: dict[str, StudyPlan] = {}
        for entry in self.sweep:
            changes = dict(entry)
            label = changes.pop("label", None)
            if not isinstance(label, str) or label in ("", AS_IT_IS, *VARIANTS, *found):
                raise ConfigurationError(
                    f"each entry of the sweep has a label of its own, and none of "
                    f"{', '.join((AS_IT_IS, *VARIANTS))}: {entry}"
                )
            found[label] = self._with(label, changes)
        return found

    def _with(self, label: str, changes: Described) -> StudyPlan:
        of_rules = {
            key: changes.pop(key)
            for key in ("neighbour_share", "rescale", "kernel")
            if key in changes
        }
        plain = msgspec.to_builtins(self) | {"sweep": []}
        if of_rules:
            plain["rules"] = {name: rule | of_rules for name, rule in plain["rules"].items()}
        return plan_of(_merged(plain, changes), f"the sweep's {label!r}")


def plan_of(described: Mapping[str, Any], source: str) -> StudyPlan:
    """Raises `ConfigurationError`, naming the source and the key."""
    try:
        return msgspec.convert(described, StudyPlan)
    except (msgspec.ValidationError, InvalidInputError) as error:
        raise ConfigurationError(
            f"{source} cannot be used: {error}; every key is in config/evaluation/binance-2023.toml"
        ) from None


def read_plan(path: Path | None, *overrides: Mapping[str, Any]) -> StudyPlan:
    """The plan of a file, or the default one. Of `overrides` the first lies beneath the file, the
    others above it; in them `None` is not given. A rule is what the file says of it, over the
    default one.

    Raises `ConfigurationError` where the file is not there, is no TOML, or no plan.
    """
    beneath, *above = overrides or ({},)
    rules = {"rules": msgspec.to_builtins(DEFAULT_RULES)}
    described = _merged(_merged(rules, _given(beneath)), _toml(path))
    for more in above:
        described = _merged(described, _given(more))
    return plan_of(described, str(path) if path else "the evaluation")


def _toml(path: Path | None) -> Described:
    if path is None:
        return {}
    try:
        described = tomllib.loads(path.read_text("utf-8"))
        return {key: _moment(value) for key, value in described.items()}
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not TOML: {error}") from None


def _moment(value: Any) -> Any:
    """TOML has times of its own; those without a zone are UTC."""
    if not isinstance(value, datetime.datetime | datetime.date):
        return value
    if not isinstance(value, datetime.datetime):
        return f"{value.isoformat()}T00:00:00Z"
    return value.isoformat() if value.tzinfo else f"{value.isoformat()}Z"


def _given(described: Mapping[str, Any]) -> Described:
    return {
        key: _given(value) if isinstance(value, Mapping) else value
        for key, value in described.items()
        if value is not None
    }


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> Described:
    """`above` goes before `below`, table by table."""
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _digest(value: Any) -> str:
    ordered = msgspec.json.encode(value, order="deterministic")
    return hashlib.sha256(ordered).hexdigest()[:12]
