"""Loads the settings.

The command line overrides the environment, the environment overrides the TOML file, and the file
overrides the defaults. The file is the one after `--config`, else the one of `LLM_TRADER_CONFIG`,
else `llm-trader.toml` in the working directory if it exists. The variable of a setting is its key
in capitals, such as `LLM_TRADER_SERVING__PORT`; an empty variable counts as missing.
"""

from __future__ import annotations

import difflib
import functools
import json
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, get_origin

import msgspec
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import EnvSettingsSource, InitSettingsSource

from llm_trader.errors import ConfigurationError
from llm_trader.settings.tree import (
    ENV_PREFIX,
    HIDDEN_VALUE,
    SECTIONS,
    SETTINGS,
    Settings,
    SettingsModel,
    env_name,
)
from llm_trader.storage.files import read_whole

DEFAULT_CONFIG: Final = Path("llm-trader.toml")
CONFIG_ENV: Final = "LLM_TRADER_CONFIG"

# Variables with our prefix that are not settings; tests and benchmarks read the last two.
_OTHER_VARIABLES: Final = frozenset({CONFIG_ENV, "LLM_TRADER_TEST_DATA", "LLM_TRADER_TEXT_MODEL"})

# Values of settings that have few values are short; keys and tokens have 20 characters or more.
_LONGEST_SHOWN: Final = 16

_KEY_OF_ENV: Final = {env_name(key): key for key in SETTINGS}


def load_settings(
    config: Path | None = None,
    *,
    environ: Mapping[str, str],
    overrides: Mapping[str, Any] | None = None,
) -> Settings:
    """The settings of command line (`overrides`, by dotted key), environment and file.

    An override of None counts as missing. Raises ConfigurationError that names all mistakes at
    once, in its message and as the list `details["problems"]`.
    """
    return read_settings(config, environ=environ, overrides=overrides).settings


class ReadSettings(NamedTuple):
    """Settings, where those that were given come from, by dotted key, and the file read, if any."""

    settings: Settings
    origins: Mapping[str, str]
    file: Path | None


def read_settings(
    config: Path | None = None,
    *,
    environ: Mapping[str, str],
    overrides: Mapping[str, Any] | None = None,
) -> ReadSettings:
    """As `load_settings`, with the origin of each setting."""
    flags = {key: value for key, value in (overrides or {}).items() if value is not None}
    variables = {_KEY_OF_ENV[name]: environ[name] for name in _KEY_OF_ENV if environ.get(name)}
    path: Path | None = None
    toml: dict[str, Any] = {}
    problems: list[str] = []
    try:
        path = _config_file(config, environ)
        toml = _read_toml(path) if path else {}
    except ConfigurationError as error:
        # Without the file the other sources are still checked, so that all mistakes show at once.
        problems.append(error.message)
    problems += _unknown_variables(environ, flags, variables, toml)
    origin = partial(_origin, flags=flags, variables=variables, path=path)
    try:
        model = _validated(flags, variables, toml)
    except ValidationError as error:
        details = error.errors(include_url=False)
        problems += [_problem(detail, origin) for detail in details]
    if problems:
        listed = "".join(f"\n  {problem}" for problem in problems)
        raise ConfigurationError(f"the settings cannot be used:{listed}", problems=problems)
    given = [
        key
        for key in SETTINGS
        if key in flags or key in variables or _toml_value(toml, key) is not None
    ]
    settings = msgspec.convert(model.model_dump(), Settings)
    return ReadSettings(settings, {key: origin(key) for key in given}, path)


def _origin(
    key: str, *, flags: Mapping[str, Any], variables: Mapping[str, str], path: Path | None
) -> str:
    return "the command line" if key in flags else env_name(key) if key in variables else str(path)


def _config_file(config: Path | None, environ: Mapping[str, str]) -> Path | None:
    if config is not None:
        path, origin = config, "named after --config"
    elif environ.get(CONFIG_ENV):
        path, origin = Path(environ[CONFIG_ENV]), f"named in {CONFIG_ENV}"
    else:
        return DEFAULT_CONFIG if DEFAULT_CONFIG.is_file() else None
    if not path.exists():
        raise ConfigurationError(f"no settings file {path} ({origin})")
    return path


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_whole(path).decode())
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not TOML: {error}") from None


def _validated(
    flags: Mapping[str, Any], variables: Mapping[str, str], toml: dict[str, Any]
) -> BaseModel:
    nested: dict[str, Any] = {}
    for key, value in flags.items():
        *sections, name = key.split(".")
        functools.reduce(lambda tree, part: tree.setdefault(part, {}), sections, nested)[name] = (
            value
        )
    environment = EnvSettingsSource(SettingsModel)
    # The library reads the environment of the process; here it is an argument.
    environment.env_vars = {
        env_name(key).lower(): _in_json(key, value) for key, value in variables.items()
    }
    flag_source, file_source = (InitSettingsSource(SettingsModel, t) for t in (nested, toml))
    # pydantic-settings documents the parameter; type checkers see only the fields.
    return SettingsModel(_build_sources=((flag_source, environment, file_source), {}))  # type: ignore[call-arg]


def _in_json(key: str, value: str) -> str:
    """The library expects a list as JSON; people also separate by commas."""
    if get_origin(SETTINGS[key].annotation) is not tuple or value.lstrip().startswith("["):
        return value
    return json.dumps([part.strip() for part in value.split(",") if part.strip()])


def _unknown_variables(
    environ: Mapping[str, str],
    flags: Mapping[str, Any],
    variables: Mapping[str, str],
    toml: dict[str, Any],
) -> list[str]:
    """Variables with our prefix that are neither settings nor named by one, such as for tokens."""
    known: set[str | None] = {*_OTHER_VARIABLES, *_KEY_OF_ENV}
    for key in SETTINGS:
        values = flags.get(key), variables.get(key), _toml_value(toml, key)
        if key.endswith("_env"):
            known |= {*values}
        if key == "delivery.intakes":  # each may name the variable of its token
            known |= {*re.findall(r"(\w+)@", str(values))}
    return [
        f"unknown setting {name}{_variable_suggestion(name)} (from the environment)"
        for name in sorted(environ)
        if name.startswith(ENV_PREFIX) and name not in known
    ]


def _toml_value(tree: Any, key: str) -> Any:
    for name in key.split("."):
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree


def _problem(error: ErrorDetails, origin_of: Callable[[str], str]) -> str:
    key = ".".join(part for part in error["loc"] if isinstance(part, str))  # without a position
    origin = origin_of(key)
    if error["type"] == "extra_forbidden":
        meant = _nearest_setting(key)
        suggestion = f"; did you mean {meant}?" if meant not in (None, key) else ""
        return f"unknown setting {key}{suggestion} (from {origin})"
    if error["type"] == "model_type":
        return f"{key} is a section, not a value (from {origin})"
    shown = "" if _may_be_secret(key, error) else f" = {error['input']!r}"
    message = error["msg"].removeprefix("Input ").removeprefix("String ")
    return f"{key}{shown} {message} (from {origin})"


def _may_be_secret(key: str, error: ErrorDetails) -> bool:
    """A URL may have a password before the @, and a key pasted in the wrong place is long."""
    value = str(error["input"])
    return (
        key.endswith("_env")
        or error["type"] == HIDDEN_VALUE
        or "@" in value
        or len(value) > _LONGEST_SHOWN
    )


def _variable_suggestion(variable: str) -> str:
    # A single underscore instead of two is the likeliest slip. A cutoff below 0.9 would suggest
    # LLM_TRADER_SERVING__PORT for LLM_TRADER_SERVING.
    names = {name.replace("__", "_"): name for name in (*_KEY_OF_ENV, CONFIG_ENV)}
    meant = names.get(_nearest(variable.upper().replace("__", "_"), names, cutoff=0.9) or "")
    if meant is None:
        key = _nearest_setting(variable.removeprefix(ENV_PREFIX).lower().replace("__", "."))
        meant = env_name(key) if key in SETTINGS else None
    return f"; did you mean {meant}?" if meant else ""


def _nearest_setting(key: str) -> str | None:
    """The same name in another section, else the nearest name in this section, else in any."""
    section, _, name = key.rpartition(".")
    # Of the sections that share a name, the first is meant: `serving` before `intake`.
    by_name = {setting.rpartition(".")[2]: setting for setting in reversed([*SETTINGS])}
    if name in by_name:
        return by_name[name]
    if not section and (nearest := _nearest(name, SECTIONS)):
        return nearest
    if section in SECTIONS and (nearest := _nearest(name, SECTIONS[section].model_fields)):
        return f"{section}.{nearest}"
    return by_name.get(_nearest(name, by_name) or "")


def _nearest(word: str, words: Iterable[str], cutoff: float = 0.7) -> str | None:
    return next(iter(difflib.get_close_matches(word, list(words), n=1, cutoff=cutoff)), None)
