"""Settings as rows: each with its value, its default, and where the value comes from."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import msgspec

from llm_trader.errors import ConfigurationError
from llm_trader.llm.model_settings import resolve_model
from llm_trader.settings.loading import ReadSettings, read_settings
from llm_trader.settings.tree import SETTINGS, Settings


class SettingValue(msgspec.Struct, frozen=True):
    """`origin` is a file, an environment variable, or None for the default."""

    key: str
    value: Any
    default: Any
    origin: str | None


class SettingDifference(msgspec.Struct, frozen=True):
    """A setting whose value differs between two sources."""

    key: str
    first: Any
    second: Any


class CheckedSettings(msgspec.Struct, frozen=True):
    """Settings that can be used; `missing` says what they name and this machine lacks."""

    file: str | None
    digest: str
    differ_from_default: int
    missing: list[str]


def check_settings(
    files: Iterable[Path | None], environ: Mapping[str, str], today: date
) -> list[CheckedSettings]:
    """Of each file with the environment; None is the file that a command would read.

    Language models retire, so it takes the day. Raises `ConfigurationError` with the mistakes of
    all files.
    """
    checked, problems = [], []
    for path in files:
        try:
            read = read_settings(path, environ=environ)
            _check_model(read, today)
        except ConfigurationError as error:
            problems.append(error.message)
            continue
        changed = sum(one.value != one.default for one in setting_values(read))
        missing = list(_missing(read.settings, environ))
        name = None if read.file is None else str(read.file)
        checked.append(CheckedSettings(name, read.settings.digest(), changed, missing))
    if problems:
        raise ConfigurationError("\n".join(problems))
    return checked


def _check_model(read: ReadSettings, today: date) -> None:
    try:
        resolve_model(read.settings.llm, today)
    except ConfigurationError as error:
        raise ConfigurationError(f"{read.file or 'the environment'}: {error.message}") from None


def setting_values(read: ReadSettings) -> list[SettingValue]:
    """All settings, section by section."""
    return [
        SettingValue(key, _value(read.settings, key), _plain(field.default), read.origins.get(key))
        for key, field in SETTINGS.items()
    ]


def differences(first: Settings, second: Settings) -> list[SettingDifference]:
    return [
        SettingDifference(key, before, after)
        for key in SETTINGS
        if (before := _value(first, key)) != (after := _value(second, key))
    ]


def _missing(settings: Settings, environ: Mapping[str, str]) -> Iterator[str]:
    """What the settings name and this machine lacks: variables of secrets, and files to read."""
    for key in SETTINGS:
        value = _value(settings, key)
        if key.endswith("_env") and isinstance(value, str) and not environ.get(value):
            yield f"{key} names the environment variable {value}, which is not set here"
    read = {
        "retrieval.calibration": settings.retrieval.calibration,
        "embedding.text.model_path": settings.embedding.text.model_path,
        "serving.keys_file": settings.serving.keys_file,
        "serving.tls_certificate": settings.serving.tls_certificate,
        "serving.tls_key": settings.serving.tls_key,
        "serving.tls_client_ca": settings.serving.tls_client_ca,
    }
    for key, path in read.items():
        if path is not None and not path.exists():
            yield f"{key} names {path}, which does not exist here"


def _value(settings: Settings, key: str) -> Any:
    return _plain(functools.reduce(getattr, key.split("."), settings))


def _plain(value: Any) -> Any:
    """As JSON has it."""
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value
