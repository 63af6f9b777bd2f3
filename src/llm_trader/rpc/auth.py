"""Checks shared secrets, and refuses to listen to other machines without any."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Iterable

from llm_trader.errors import ConfigurationError


class TokenCheck:
    """Compares tokens in constant time; keeps only their digests, never the secrets."""

    def __init__(self, tokens: Iterable[str] = ()) -> None:
        self._digests = [_digest(token) for token in tokens]
        if _digest("") in self._digests:
            raise ConfigurationError("an empty token would let everyone in; remove it")

    @property
    def required(self) -> bool:
        return bool(self._digests)

    def accepts(self, token: str) -> bool:
        sent = _digest(token)
        # All are compared before any answer, so the time reveals nothing.
        matches = [hmac.compare_digest(sent, digest) for digest in self._digests]
        return any(matches)


def check_binding(host: str, has_tokens: bool, allow_unauthenticated_remote: bool) -> None:
    """Raises `ConfigurationError` if other machines could query without a token."""
    if has_tokens or allow_unauthenticated_remote or _is_loopback(host):
        return
    raise ConfigurationError(
        f"refusing to listen on {host or 'all interfaces'} without authentication: anyone who "
        "reaches this address could query the server. Listen on 127.0.0.1, ask for a token with "
        "--auth-tokens-env NAME_OF_VARIABLE, or, where the network itself is trusted, add "
        "--allow-unauthenticated-remote"
    )


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
