"""What an evaluation does: every key of a plan, and the digests that go into its results.

A plan is read from TOML, over the server's settings. It lies below all inner rooms: each takes its
part of it.
"""

from __future__ import annotations

import datetime
import hashlib
import tomllib
from collections.abc import Collection, Mapping
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from llm_trader.embedding.features import FEATURES
from llm_trader.errors import ConfigurationError, InvalidInputError
from llm_trader.llm.aggregator import AggregatorConfig
from llm_trader.retrieval.forecast import NEIGHBOURS, WEIGHT_OF_NEIGHBOURS
from llm_trader.retrieval.search_spec import NeighbourSearch
from llm_trader.storage.files import read_whole
from llm_trader.timeframe import HORIZONS, MINUTE_MS, Millis
from llm_trader.trading.rules import Costs, TradingRules

Vector = Literal["state", "text", "hybrid", "random"]
Scale = Literal["expected", "last_24h", "none"]
Share = Annotated[float, Meta(ge=0, le=1)]

# Variants of a plan that a comparison knows by name.
NONE: Final = "none"
PROTOTYPE: Final = "prototype"
VARIANTS: Final = (NONE, "random", "state", "text", "hybrid", PROTOTYPE)
# The label of the unchanged plan in its own sweep.
AS_IT_IS: Final = "as it is"

Keys = dict[str, Any]

_MINUTES_PER_DAY: Final = 1440


def check_feature_weights(weights: Mapping[str, float], features: Collection[str]) -> None:
    """Raises `InvalidInputError` unless weights of known features are finite and not negative."""
    unknown = sorted(set(weights) - set(features))
    if unknown:
        raise InvalidInputError(
            f"there is no feature {', '.join(unknown)}; known: {', '.join(features)}"
        )
    for name, weight in weights.items():
        if not (isfinite(weight) and weight >= 0):
            raise InvalidInputError(
                f"the weight {weight} of the feature {name} must be a number of 0 or more"
            )


class Search(NeighbourSearch, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The server's search for the neighbours of a forecast, and what only an evaluation tries.

    `neighbours` are at least `gap_hours` apart. `feature_weights` multiply the usual weights of
    features by name. They are part of the vectors, so points and queries go through
    `reweight_features` before a search.
    """

    vector: Vector = "state"  # type: ignore[assignment]  # a server never searches at random
    lookback_days: Annotated[int, Meta(ge=1, le=3650)] = 90
    neighbours: Annotated[int, Meta(ge=2, le=1000)] = NEIGHBOURS
    gap_hours: Annotated[float, Meta(ge=0, le=168)] = 0.0
    embargo_hours: Annotated[float, Meta(ge=0, le=720)] = 0.0
    feature_weights: dict[str, float] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        check_feature_weights(self.feature_weights, [feature.name for feature in FEATURES])


class ForecastRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the forecast of one horizon is made from the neighbours and the window.

    Outcomes are multiplied by (volatility now / then): the volatility that was `expected` for the
    horizon, or the realised one of the `last_24h`. `weight_of_neighbours` is their weight; the
    whole window has the rest. A neighbour weighs exp(`kernel` * similarity).
    """

    scale: Scale = "expected"
    weight_of_neighbours: Share = 0.25
    # Above 300 the weight of a far neighbour could underflow to 0.
    kernel: Annotated[float, Meta(ge=0, le=300)] = 0.0


# The forecast that a server gives.
DEFAULT_RULES: Final = {
    name: ForecastRule(weight_of_neighbours=weight) for name, weight in WEIGHT_OF_NEIGHBOURS.items()
}


# One thing changed at a time: how many neighbours, how far apart, how far back, how similar.
DEFAULT_SWEEP: Final[list[Keys]] = [
    {"label": "50 neighbours", "search": {"neighbours": 50}},
    {"label": "100 neighbours", "search": {"neighbours": 100}},
    {"label": "gap 1 h", "search": {"gap_hours": 1.0}},
    {"label": "gap 4 h", "search": {"gap_hours": 4.0}},
    {"label": "lookback 30 days", "search": {"lookback_days": 30}},
    {"label": "lookback 60 days", "search": {"lookback_days": 60}},
    {"label": "similarity from 0.7", "least_similarity": 0.7},
    {"label": "similarity from 0.8", "least_similarity": 0.8},
    {"label": "neighbours alone", "weight_of_neighbours": 1.0},
    {"label": "neighbours a half", "weight_of_neighbours": 0.5},
    {"label": "scaled by the last 24h", "scale": "last_24h"},
    {"label": "not scaled", "scale": "none"},
]

# In a sweep they replace those of every horizon's rule.
_RULE_KEYS: Final = ("weight_of_neighbours", "scale", "kernel")


class StudyPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Times are days ago or RFC 3339, as on the command line; no symbols means all of the store.

    A query whose neighbours are on average less similar than `least_similarity` gets the volatility
    model's forecast. Each entry of `sweep` is a further configuration: a label, and the keys it
    replaces; `weight_of_neighbours`, `scale` and `kernel` replace those of all horizons.
    """

    symbols: tuple[str, ...] = ()
    start: str | None = None
    end: str = "now"
    step_minutes: Annotated[int, Meta(ge=1, le=_MINUTES_PER_DAY)] = 15
    search: Search = Search()
    rules: dict[str, ForecastRule] = msgspec.field(default_factory=lambda: dict(DEFAULT_RULES))
    least_similarity: Annotated[float, Meta(ge=-1, le=1)] | None = None
    decider: Literal["aggregator", "llm"] = "aggregator"
    aggregator: AggregatorConfig = AggregatorConfig()
    trading: TradingRules = TradingRules()
    costs: Costs = Costs()
    # The equity at the start that a language model's bills are set against; no part of a trial.
    account_usd: Annotated[float, Meta(gt=0)] = 10_000.0
    # 100 resamples leave the bounds of an interval to 2 or 3 of them.
    reps: Annotated[int, Meta(ge=100, le=100_000)] = 1000
    seed: Annotated[int, Meta(ge=0, le=2**31)] = 0
    sweep: tuple[dict[str, Any], ...] = ()

    def __post_init__(self) -> None:
        unknown = [name for name in self.rules if name not in HORIZONS]
        if unknown or not self.rules:
            names = ", ".join(unknown) or "none"
            raise InvalidInputError(f"rules of {names}: the horizons are {', '.join(HORIZONS)}")
        if _MINUTES_PER_DAY % self.step_minutes:
            raise InvalidInputError(f"step_minutes {self.step_minutes} does not divide a day")

    @property
    def step_ms(self) -> Millis:
        return self.step_minutes * MINUTE_MS

    def configuration(self, *space_ids: str | None) -> str:
        """12 hex digits of the SHA-256 of what decides forecasts and decisions.

        The ids of the vector spaces it is tried in count; times, symbols, resamples and the seed
        do not, as they make no other configuration.
        """
        forecasts = (self.search, self.rules, self.least_similarity)
        decisions = (self.decider, self.aggregator, self.trading, self.costs)
        return _digest([forecasts, *decisions, space_ids])

    def digest(self) -> str:
        """12 hex digits of the SHA-256 of the whole plan."""
        return _digest(self)


def _digest(value: Any) -> str:
    ordered = msgspec.json.encode(value, order="deterministic")
    return hashlib.sha256(ordered).hexdigest()[:12]


def read_plan(path: Path | None, *overrides: Mapping[str, Any]) -> StudyPlan:
    """The plan of a file, or the default plan.

    The first of `overrides` holds defaults that the file overrides; the others override the file.
    A `None` in them counts as not given.

    Raises `ConfigurationError` where the file is missing, no TOML, or no plan.
    """
    defaults, *later = overrides or ({},)
    keys: Keys = {"rules": msgspec.to_builtins(DEFAULT_RULES)}
    for layer in (defaults, _read_toml(path), *later):
        keys = _merged(keys, layer)
    return parse_plan(keys, str(path) if path else "the evaluation")


def parse_plan(keys: Mapping[str, Any], source: str) -> StudyPlan:
    """Raises `ConfigurationError` that names the source and the key."""
    try:
        return msgspec.convert(keys, StudyPlan)
    except (msgspec.ValidationError, InvalidInputError) as error:
        raise ConfigurationError(
            f"{source} cannot be used: {error}; every key is in config/evaluation/binance-2023.toml"
        ) from None


def sweep_plans(plan: StudyPlan) -> dict[str, StudyPlan]:
    """The configurations of a plan's sweep by label, without a sweep of their own."""
    plans: dict[str, StudyPlan] = {}
    for entry in plan.sweep:
        changes = dict(entry)
        label = changes.pop("label", None)
        if not isinstance(label, str) or label in ("", AS_IT_IS, *VARIANTS, *plans):
            raise ConfigurationError(
                f"each entry of the sweep needs a label of its own, none of "
                f"{', '.join((AS_IT_IS, *VARIANTS))}: {entry}"
            )
        rule_changes = {key: changes.pop(key) for key in _RULE_KEYS if key in changes}
        keys = msgspec.to_builtins(plan) | {"sweep": []}
        keys["rules"] = {name: rule | rule_changes for name, rule in keys["rules"].items()}
        plans[label] = parse_plan(_merged(keys, changes), f"the sweep's {label!r}")
    return plans


def _read_toml(path: Path | None) -> Keys:
    if path is None:
        return {}
    try:
        keys = tomllib.loads(read_whole(path).decode())
        return {key: _time_as_text(value) for key, value in keys.items()}
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not TOML: {error}") from None


def _time_as_text(value: Any) -> Any:
    """TOML has a type for times; those without a zone are UTC."""
    if not isinstance(value, datetime.datetime | datetime.date):
        return value
    if not isinstance(value, datetime.datetime):
        return f"{value.isoformat()}T00:00:00Z"
    return value.isoformat() if value.tzinfo else f"{value.isoformat()}Z"


def _merged(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> Keys:
    """Table by table, the keys of `upper` that are not None replace those of `lower`."""
    merged = dict(lower)
    for key, value in upper.items():
        if isinstance(value, Mapping):
            table = merged.get(key)
            merged[key] = _merged(table if isinstance(table, Mapping) else {}, value)
        elif value is not None:
            merged[key] = value
    return merged
