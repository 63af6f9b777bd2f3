"""Loads the settings.

The command line overrides the environment, the environment overrides the TOML file, and the file
overrides the defaults. The file is the one after `--config`, else the one of `LLM_TRADER_CONFIG`,
else `llm-trader.toml` in the working directory if it exists. The variable of a setting is its key
in capitals, such as `LLM_TRADER_SERVING__PORT`; an empty variable counts as missing.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import EnvSettingsSource, InitSettingsSource, TomlConfigSettingsSource

from llm_trader.errors import ConfigurationError
from llm_trader.settings.models import HIDDEN_VALUE, struct_of
from llm_trader.settings.tree import (
    ENV_PREFIX,
    SECTIONS,
    SETTINGS,
    Settings,
    SettingsModel,
    env_name,
)

DEFAULT_CONFIG: Final = Path("llm-trader.toml")
CONFIG_ENV: Final = "LLM_TRADER_CONFIG"

# Variables with our prefix that are not settings; tests and benchmarks read the last two.
_OTHER_VARIABLES: Final = frozenset({CONFIG_ENV, "LLM_TRADER_TEST_DATA", "LLM_TRADER_TEXT_MODEL"})

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
    flags = {key: value for key, value in (overrides or {}).items() if value is not None}
    variables = {_KEY_OF_ENV[name]: environ[name] for name in _KEY_OF_ENV if environ.get(name)}
    toml = TomlConfigSettingsSource(SettingsModel, toml_file=None)
    path: Path | None = None
    problems: list[str] = []
    try:
        path = _config_file(config, environ)
        toml = _read_toml(path)
    except ConfigurationError as error:
        problems.append(error.message)
    problems += _unknown_flags(flags) + _unknown_variables(environ, flags, variables, toml)
    try:
        settings = _merged(flags, variables, toml)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            problems.append(_problem(detail, flags, variables, path))
    if problems:
        listed = "".join(f"\n  {problem}" for problem in problems)
        raise ConfigurationError(f"the settings cannot be used:{listed}", problems=problems)
    return settings


def _config_file(config: Path | None, environ: Mapping[str, str]) -> Path | None:
    if config is not None:
        path, origin = config, "named after --config"
    elif environ.get(CONFIG_ENV):
        path, origin = Path(environ[CONFIG_ENV]), f"named in {CONFIG_ENV}"
    else:
        return DEFAULT_CONFIG if DEFAULT_CONFIG.is_file() else None
    if not path.is_file():
        raise ConfigurationError(f"no settings file {path} ({origin})")
    return path


def _read_toml(path: Path | None) -> TomlConfigSettingsSource:
    try:
        return TomlConfigSettingsSource(SettingsModel, toml_file=path)
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not TOML: {error}") from None


def _merged(
    flags: Mapping[str, Any], variables: Mapping[str, str], toml: TomlConfigSettingsSource
) -> Settings:
    sources = (
        InitSettingsSource(SettingsModel, _nested(flags)),
        _environment_source(variables),
        toml,
    )
    # pydantic-settings documents the parameter; type checkers see only the fields.
    return struct_of(Settings, SettingsModel(_build_sources=(sources, {})))  # type: ignore[call-arg]


def _environment_source(variables: Mapping[str, str]) -> EnvSettingsSource:
    source = EnvSettingsSource(SettingsModel)
    # The library reads the environment of the process; here it is an argument.
    source.env_vars = {env_name(key).lower(): value for key, value in variables.items()}
    return source


def _nested(flags: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key in flags.keys() & SETTINGS.keys():
        *sections, name = key.split(".")
        branch = tree
        for section in sections:
            branch = branch.setdefault(section, {})
        branch[name] = flags[key]
    return tree


def _unknown_flags(flags: Mapping[str, Any]) -> list[str]:
    return [
        f"unknown setting {key}{_suggestion(key)} (from the command line)"
        for key in flags
        if key not in SETTINGS
    ]


def _unknown_variables(
    environ: Mapping[str, str],
    flags: Mapping[str, Any],
    variables: Mapping[str, str],
    toml: TomlConfigSettingsSource,
) -> list[str]:
    """Variables with our prefix that are neither settings nor named by one, such as for tokens."""
    naming = [key for key in SETTINGS if key.endswith("_env")]
    named = {
        value
        for key in naming
        for value in (flags.get(key), variables.get(key), _toml_value(toml.toml_data, key))
    }
    named |= _OTHER_VARIABLES | _KEY_OF_ENV.keys()
    return [
        f"unknown setting {name}{_variable_suggestion(name)} (from the environment)"
        for name in sorted(environ)
        if name.startswith(ENV_PREFIX) and name not in named
    ]


def _toml_value(tree: Any, key: str) -> Any:
    for name in key.split("."):
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree


def _problem(
    error: ErrorDetails,
    flags: Mapping[str, Any],
    variables: Mapping[str, str],
    path: Path | None,
) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"unknown setting {key}{_suggestion(key)} (from {path})"
    if error["type"] == "model_type":
        return f"{key} is a section, not a value (from {path})"
    origin = str(path)
    if key in flags:
        origin = "the command line"
    elif key in variables:
        origin = env_name(key)
    # A URL may have a password before the @.
    secret = key.endswith("_env") or error["type"] == HIDDEN_VALUE or "@" in str(error["input"])
    shown = "" if secret else f" = {error['input']!r}"
    message = error["msg"].removeprefix("Input ").removeprefix("String ")
    return f"{key}{shown} {message} (from {origin})"


def _suggestion(key: str) -> str:
    meant = _nearest_setting(key)
    return f"; did you mean {meant}?" if meant not in (None, key) else ""


def _variable_suggestion(variable: str) -> str:
    # A single underscore instead of two is the likeliest slip.
    by_single_underscores = {name.replace("__", "_"): name for name in (*_KEY_OF_ENV, CONFIG_ENV)}
    meant = by_single_underscores.get(variable.upper().replace("__", "_"))
    if meant is None and _nearest(variable, [CONFIG_ENV], cutoff=0.9):
        meant = CONFIG_ENV
    if meant is None:
        key = _nearest_setting(variable.removeprefix(ENV_PREFIX).lower().replace("__", "."))
        meant = env_name(key) if key and key in SETTINGS else None
    return f"; did you mean {meant}?" if meant else ""


def _nearest_setting(key: str) -> str | None:
    """The same name in another section, else the nearest name in this section, else in any."""
    section, _, name = key.rpartition(".")
    by_name = {setting.rpartition(".")[2]: setting for setting in SETTINGS}
    if name in by_name:
        return by_name[name]
    if not section and (nearest := _nearest(name, SECTIONS)):
        return nearest
    if section in SECTIONS and (nearest := _nearest(name, SECTIONS[section].model_fields)):
        return f"{section}.{nearest}"
    return by_name.get(_nearest(name, by_name) or "")


def _nearest(word: str, words: Iterable[str], cutoff: float = 0.7) -> str | None:
    return next(iter(difflib.get_close_matches(word, list(words), n=1, cutoff=cutoff)), None)
