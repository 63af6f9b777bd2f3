"""`admin.reload`: the settings of a running server, read again."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from llm_trader.errors import ConfigurationError, InvalidInputError
from llm_trader.rpc.dispatcher import Method, RequestContext
from llm_trader.rpc.errors import UnauthorizedError


class ChangedSetting(Struct, frozen=True):
    key: Annotated[str, Meta(description="Its key, such as serving.rate_limit_per_s.")]
    before: Annotated[Any, Meta(description="Value in use until now.")]
    after: Annotated[Any, Meta(description="Value that was read.")]


class Reloaded(Struct, frozen=True):
    """What a reload of the settings did."""

    applied: Annotated[list[ChangedSetting], Meta(description="Settings that apply from now on.")]
    restarting: Annotated[
        list[ChangedSetting],
        Meta(description="Settings for which the workers are replaced one after the other."),
    ]
    needs_restart: Annotated[
        list[ChangedSetting],
        Meta(description="Settings that apply from the next start of the server on."),
    ]
    files: Annotated[
        list[str],
        Meta(description="Files that were read again: keys, certificate, calibration."),
    ]


class AdminMethods:
    """Answers `admin.*` calls; `reload` is set by whoever can read the settings again."""

    def __init__(self) -> None:
        self.reload: Callable[[], Awaitable[Reloaded]] | None = None

    def methods(self) -> list[Method]:
        return [replace(method, handler=partial(method.handler, self)) for method in ADMIN_METHODS]

    async def reload_settings(self, params: None, context: RequestContext) -> Reloaded:
        if self.reload is None:
            raise InvalidInputError(
                "this server cannot read its settings again; start it with rag-rpc-server"
            )
        if context.principal is None and not _is_loopback(context.session.address):
            raise UnauthorizedError(
                "unauthorized; without a key, only this machine itself may reload settings"
            )
        return await self.reload()


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return False


_UNBOUND: Final[Any] = AdminMethods

# The documents describe these; `AdminMethods.methods` binds them.
ADMIN_METHODS: Final = (
    Method(
        "admin.reload",
        None,
        _UNBOUND.reload_settings,
        "Reads the settings again, and reports what applies now and what needs a restart.",
        Reloaded,
        (ConfigurationError, UnauthorizedError),
        access="admin",
    ),
)
