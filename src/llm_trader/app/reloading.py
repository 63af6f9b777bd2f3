"""Reads the settings of a running server again: on SIGHUP, and when `admin.reload` is called.

1. Settings and the files that they name are read and checked as a whole; a mistake in any of them
   leaves everything as it was, and all mistakes are named.
2. What can change in a running server changes.
3. What needs a restart is listed, and stays listed until then.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator
from typing import Protocol

import structlog

from llm_trader.errors import ConfigurationError, LlmTraderError
from llm_trader.retrieval.calibration import read_calibration
from llm_trader.rpc.key_file import read_keys
from llm_trader.rpc.tls import ServerTls
from llm_trader.serving.admin import AdminMethods, ChangedSetting, Reloaded
from llm_trader.settings.reload import SettingChanges, changes, with_settings_of
from llm_trader.settings.tree import Settings
from llm_trader.settings.values import SettingDifference
from llm_trader.timeframe import Millis

_log = structlog.get_logger(__name__)


class Configurable(Protocol):
    """What `ServerParts` is to a reload."""

    admin: AdminMethods

    def configure(self, settings: Settings) -> list[str]: ...


class SettingsFile:
    """The settings in use, and where they come from. `read` raises `ConfigurationError`."""

    def __init__(
        self, settings: Settings, read: Callable[[], Settings], clock: Callable[[], Millis]
    ) -> None:
        self.in_use = settings
        self._read = read
        self._clock = clock

    def read_again(self) -> tuple[Settings, SettingChanges]:
        """New settings, and how they differ from those in use.

        Raises `ConfigurationError` with all mistakes in `details["problems"]`.
        """
        try:
            after = self._read()
        except ConfigurationError as error:
            problems = error.details.get("problems", [error.message])
            raise _not_reloaded(problems) from None
        if problems := list(_problems_of_files(after, self._clock)):
            raise _not_reloaded(problems)
        return after, changes(self.in_use, after)


def follow_settings(parts: Configurable, file: SettingsFile) -> None:
    """From now on SIGHUP and `admin.reload` reload the settings of this one process."""

    async def reload() -> Reloaded:
        after, changed = file.read_again()
        effective = with_settings_of(file.in_use, after, ["live", "unread"])
        if problems := parts.configure(effective):  # a file has changed since it was checked
            parts.configure(file.in_use)
            raise _not_reloaded(problems)
        file.in_use = effective
        return Reloaded(
            applied=shown(changed.live),
            restarting=[],
            needs_restart=shown([*changed.restart, *changed.parent]),
            files=files_read(effective),
        )

    parts.admin.reload = logged(reload)
    reload_on_hangup(parts.admin.reload)


def logged(reload: Callable[[], Awaitable[Reloaded]]) -> Callable[[], Awaitable[Reloaded]]:
    """The log says what changed, or why nothing did. Reloads wait for one another."""
    lock = asyncio.Lock()

    async def reload_and_tell() -> Reloaded:
        async with lock:
            try:
                reloaded = await reload()
            except LlmTraderError as error:
                _log.error(
                    "settings_not_reloaded",
                    problems=error.details.get("problems", [error.message]),
                    effect="the settings from before stay in use",
                )
                raise
        _log.info(
            "settings_reloaded",
            applied=[f"{c.key} = {c.after}" for c in reloaded.applied],
            restarting_workers_for=[c.key for c in reloaded.restarting],
            files=reloaded.files,
        )
        if reloaded.needs_restart:
            _log.warning(
                "settings_need_restart", settings=[change.key for change in reloaded.needs_restart]
            )
        return reloaded

    return reload_and_tell


def reload_on_hangup(reload: Callable[[], Awaitable[Reloaded]]) -> None:
    """SIGHUP reloads; the log has told of a reload that failed."""
    loop, running = asyncio.get_running_loop(), set[asyncio.Task[None]]()

    async def quietly() -> None:
        try:
            await reload()
        except LlmTraderError:
            pass
        except Exception as error:  # noqa: BLE001  a bug here must not pass unseen
            _log.error("settings_not_reloaded", exc_info=error)

    def start() -> None:
        task = loop.create_task(quietly())
        running.add(task)
        task.add_done_callback(running.discard)

    loop.add_signal_handler(signal.SIGHUP, start)


def shown(differences: list[SettingDifference]) -> list[ChangedSetting]:
    return [ChangedSetting(d.key, d.first, d.second) for d in differences]


def files_read(settings: Settings) -> list[str]:
    serving = settings.serving
    paths = (
        *(serving.keys_file, serving.tls_certificate, serving.tls_key, serving.tls_client_ca),
        settings.retrieval.calibration,
    )
    return [str(path) for path in paths if path is not None]


def _problems_of_files(settings: Settings, clock: Callable[[], Millis]) -> Iterator[str]:
    serving, calibration = settings.serving, settings.retrieval.calibration
    checks: list[Callable[[], object]] = []
    if (keys_file := serving.keys_file) is not None:
        checks.append(lambda: read_keys(keys_file))
    if serving.tls_certificate is not None:
        checks.append(lambda: ServerTls(serving, clock).load())
    if calibration is not None:
        checks.append(lambda: read_calibration(calibration))
    for check in checks:
        try:
            check()
        except LlmTraderError as error:
            yield error.message


def _not_reloaded(problems: list[str]) -> ConfigurationError:
    listed = "".join(f"\n  {problem}" for problem in problems)
    return ConfigurationError(
        f"the settings were not reloaded, those from before stay in use:{listed}",
        problems=problems,
    )
