"""Reads plans: a TOML file over the server's settings, and the further plans of a sweep.

The keys of the file are those of `StudyPlan`.
"""

from __future__ import annotations

import datetime
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from llm_trader.errors import ConfigurationError, InvalidInputError
from llm_trader.evaluation.plan import AS_IT_IS, DEFAULT_RULES, VARIANTS, StudyPlan

Keys = dict[str, Any]

# One thing changed at a time: how many neighbours, how far apart, how far back, how similar.
DEFAULT_SWEEP: Final[list[Keys]] = [
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

# In a sweep they replace those of every horizon's rule.
_RULE_KEYS: Final = ("neighbour_share", "rescale", "kernel")


def read_plan(path: Path | None, *overrides: Mapping[str, Any]) -> StudyPlan:
    """The plan of a file, or the default plan.

    The first of `overrides` holds defaults that the file overrides; the others override the file.
    A `None` in them counts as not given.

    Raises `ConfigurationError` where the file is missing, no TOML, or no plan.
    """
    defaults, *above = overrides or ({},)
    rules = {"rules": msgspec.to_builtins(DEFAULT_RULES)}
    keys = _merged(_merged(rules, _given(defaults)), _read_toml(path))
    for override in above:
        keys = _merged(keys, _given(override))
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
        plans[label] = _changed_plan(plan, changes, label)
    return plans


def _changed_plan(plan: StudyPlan, changes: Keys, label: str) -> StudyPlan:
    rule_changes = {key: changes.pop(key) for key in _RULE_KEYS if key in changes}
    keys = msgspec.to_builtins(plan) | {"sweep": []}
    keys["rules"] = {name: rule | rule_changes for name, rule in keys["rules"].items()}
    return parse_plan(_merged(keys, changes), f"the sweep's {label!r}")


def _read_toml(path: Path | None) -> Keys:
    if path is None:
        return {}
    try:
        keys = tomllib.loads(path.read_text("utf-8"))
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


def _given(keys: Mapping[str, Any]) -> Keys:
    return {
        key: _given(value) if isinstance(value, Mapping) else value
        for key, value in keys.items()
        if value is not None
    }


def _merged(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> Keys:
    """Table by table, the keys of `upper` replace those of `lower`."""
    merged = dict(lower)
    for key, value in upper.items():
        tables = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merged(merged[key], value) if tables else value
    return merged
