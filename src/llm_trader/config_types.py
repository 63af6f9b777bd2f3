"""What the rooms' configs are declared with beyond `msgspec.Meta`: checks that bounds cannot say.

A room's config is a frozen Struct. `settings/` composes them, and applies these checks to what
comes from files, the environment and the command line; msgspec itself ignores them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import parse_qs, urlsplit

from msgspec import Meta


@dataclass(frozen=True, slots=True)
class Check:
    """`apply` returns the value to use, or raises ValueError with the rest of "the value …".

    The rejected value of a `secret` is never shown, as it may be a password.
    """

    apply: Callable[[Any], Any]
    secret: bool = False


class NotASetting:
    """Marks a field that code and tests choose, and that has no key in the settings."""


def _expanded_folder(path: Path) -> Path:
    if not path.parts:
        raise ValueError("should name a folder")
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError("should start with a known home folder") from None


def _expanded_file(path: Path) -> Path:
    if not path.name:
        raise ValueError("should name a file")
    return _expanded_folder(path)


def _divides_a_day(minutes: int) -> int:
    if 1440 % minutes:
        raise ValueError("should divide a day (1440 minutes) evenly")
    return minutes


def _variable_name(name: str) -> str:
    # Capitals only, so that a token pasted here by mistake is most likely refused.
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", name):
        raise ValueError("should be the name of an environment variable, in capitals")
    return name


def _url_without_secret(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:  # its message would repeat the value
        raise ValueError("should be a URL") from None
    if parts.password is not None or "password" in parse_qs(parts.query):
        raise ValueError("should hold no password; name the environment variable that has it")
    return url


Folder = Annotated[Path, Check(_expanded_folder)]
FilePath = Annotated[Path, Check(_expanded_file)]
MapSizeMib = Annotated[
    int,
    Meta(
        ge=1,
        le=2**24,
        description="Address space that a writer reserves for the file, in MiB. It takes no "
        "disk, and is doubled before it is full; lower it where ulimit -v is set.",
    ),
]
EnvName = Annotated[str, Check(_variable_name, secret=True)]
Url = Annotated[str, Check(_url_without_secret, secret=True)]
DIVIDES_A_DAY: Final = Check(_divides_a_day)
