"""Which Host and Origin a request may name. A web page that a browser shows must not reach the
server: neither from its own origin, nor by a name that its owner lets lead to this address.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final, NamedTuple
from urllib.parse import urlsplit

_LOOPBACK_NAMES: Final = frozenset({"localhost", "localhost.localdomain", "ip6-localhost"})


class Objection(NamedTuple):
    """The HTTP status of a refused request, and why it is refused."""

    status: int
    message: str


class AllowedCallers:
    """`hosts` and `origins` are those of the settings, beside loopback and the server's own."""

    def __init__(self, hosts: Iterable[str], origins: Iterable[str]) -> None:
        self._hosts = frozenset(host.lower().rstrip(".") for host in hosts)
        self._origins = frozenset(origin.lower().rstrip("/") for origin in origins)

    def objection(
        self, hosts: list[str], origins: list[str], own_address: str | None
    ) -> Objection | None:
        """Why a request with these headers is refused; None if it is not.

        `own_address` is where the client connected to.
        """
        if len(hosts) != 1 or len(origins) > 1:
            return Objection(400, "send exactly one Host header, and at most one Origin")
        (host,) = hosts
        name = _host_name(host)
        if name is None:
            return Objection(400, "the Host header is not a host name with an optional port")
        if not self._is_own(name, own_address):
            return Objection(
                421,
                f"this server does not answer to the host name {name[:100]!r}; call it by "
                "127.0.0.1 or localhost, or add the name to serving.http_allowed_hosts",
            )
        if origins and not self._may_call(origins[0].lower(), host.lower()):
            return Objection(
                403,
                f"web pages of {origins[0][:100]!r} may not call this server; add the origin to "
                "serving.http_allowed_origins if they should",
            )
        return None

    def _is_own(self, name: str, own_address: str | None) -> bool:
        if name in _LOOPBACK_NAMES or name in self._hosts:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        # A page can choose a name that leads here, but not what the browser's user typed.
        return address.is_loopback or name == (own_address or "").lower()

    def _may_call(self, origin: str, host: str) -> bool:
        try:
            return origin in self._origins or urlsplit(origin).netloc == host
        except ValueError:  # such as http://[
            return False


def _host_name(host: str) -> str | None:
    """The name or address of a Host header, in lower case; None if it is neither."""
    try:
        parts = urlsplit(f"//{host}")
        name, _ = parts.hostname, parts.port
    except ValueError:
        return None
    if not name or parts.netloc != host or "@" in host:
        return None
    return name.rstrip(".")
