"""What commands hand to the functions of `app/`, and coroutines as plain functions."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar

from llm_trader.errors import ConfigurationError
from llm_trader.progress import Progress, no_progress
from llm_trader.timeframe import Millis

if TYPE_CHECKING:
    from llm_trader.settings.tree import Settings

P = ParamSpec("P")
T = TypeVar("T")


class Job(NamedTuple):
    """The surroundings of a command's work; `environ` has the secrets that settings name."""

    settings: Settings
    environ: Mapping[str, str]
    now_ms: Millis
    progress: Progress = no_progress
    # Reads the settings again, from the same flags, environment and file.
    read_settings: Callable[[], Settings] | None = None


def blocking(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Runs the coroutine to its end in an event loop of its own; commands have none."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        # Every command imports this module, and `--help` should not wait for an event loop.
        import asyncio

        return asyncio.run(function(*args, **kwargs))

    return run


def checked_text(value: str, name: str, setting: str) -> str:
    """The value of a variable; its bytes may be no text, which could never be sent."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ConfigurationError(
            f"{setting} names {name}, but that environment variable is not UTF-8 text; set it anew"
        ) from None
    return value
