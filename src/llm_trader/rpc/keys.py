"""API keys: who a token belongs to, and what that client may do. No files here.

A key is 256 random bits and is known by its SHA-256 only, so a copy of the key file lets nobody in.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Literal, get_args

from msgspec import Struct

from llm_trader.errors import ConfigurationError
from llm_trader.timeframe import Millis

Scope = Literal["query", "subscribe", "ingest", "admin"]
# What a method asks for: nothing at all, any valid key, or a key with a scope.
Access = Literal["open", "any_key", "query", "subscribe", "ingest", "admin"]

# How a client sends its key: on a connection that keeps it, or with each request of HTTP.
KEY_BY_CALL: Final = (
    'call rpc.authenticate with {"token": "…"} first on this connection, or send the key as '
    "params._meta.token"
)
KEY_BY_HEADER: Final = "send the header Authorization: Bearer KEY"

SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
# Programs that search for leaked secrets recognise a key by its beginning.
_PREFIX: Final = "llmt_"


class ApiKey(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key as the key file holds it. `revoked_at_ms` keeps its row for the record."""

    id: str
    name: str
    sha256: str
    scopes: tuple[Scope, ...]
    created_at_ms: Millis
    expires_at_ms: Millis | None = None
    revoked_at_ms: Millis | None = None

    def status(self, now_ms: Millis) -> Literal["active", "expired", "revoked"]:
        if self.revoked_at_ms is not None:
            return "revoked"
        expires_at_ms = self.expires_at_ms
        return "expired" if expires_at_ms is not None and expires_at_ms <= now_ms else "active"


class Principal(Struct, frozen=True):
    """The client that a valid key stands for. `id` is no secret and fits logs."""

    id: str
    name: str
    scopes: frozenset[Scope]
    digest: bytes
    expires_at_ms: Millis | None = None

    # A traceback or a log line may show it.
    def __repr__(self) -> str:
        return f"Principal(id={self.id!r}, name={self.name!r})"

    def may(self, access: Access) -> bool:
        return access in ("open", "any_key") or access in self.scopes


def new_token() -> str:
    return _PREFIX + secrets.token_urlsafe(32)


def new_key_id() -> str:
    return secrets.token_hex(4)


def digest_of(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


class KeyRing:
    """The keys of one server: tokens of its environment, and those of a key file if it has one.

    Tokens of the environment have every scope and no end. `now_ms` is the clock that ends keys;
    without one, a key that has an end is not accepted.
    """

    def __init__(
        self, tokens: Iterable[str] = (), *, now_ms: Callable[[], Millis] | None = None
    ) -> None:
        every_scope = frozenset(SCOPES)
        self._fixed = [
            Principal(f"token-{position}", f"token {position}", every_scope, digest_of(token))
            for position, token in enumerate(tokens, 1)
        ]
        if any(principal.digest == digest_of("") for principal in self._fixed):
            raise ConfigurationError("an empty token would let everyone in; remove it")
        self._now_ms = now_ms
        self._has_file = False
        self._by_digest = {principal.digest: principal for principal in self._fixed}

    @property
    def required(self) -> bool:
        """Whether a client needs a key. A key file requires one even while it holds none."""
        return bool(self._fixed) or self._has_file

    def follow_file(self, keys: Sequence[ApiKey]) -> None:
        """Replaces the keys of the file; connections keep only what their key still allows."""
        self._has_file = True
        listed = [_principal(key) for key in keys if key.revoked_at_ms is None]
        self._by_digest = {principal.digest: principal for principal in [*listed, *self._fixed]}

    def find(self, token: str) -> Principal | None:
        """Whom the token belongs to; takes the same time for every wrong one."""
        digest, owner = digest_of(token), None
        # All are compared before any answer, so the time reveals nothing.
        for principal in self._by_digest.values():
            if hmac.compare_digest(digest, principal.digest):
                owner = principal
        return owner and self.current(owner)

    def by_digest(self, digest: bytes) -> Principal | None:
        """Whom a key belonged to that another process has checked."""
        return self._by_digest.get(digest)

    def current(self, principal: Principal) -> Principal | None:
        """The principal as it stands now; None once its key is revoked or has ended."""
        current = self._by_digest.get(principal.digest)
        if current is None or current.expires_at_ms is None:
            return current
        return current if self._now_ms and self._now_ms() < current.expires_at_ms else None


def _principal(key: ApiKey) -> Principal:
    digest = bytes.fromhex(key.sha256)
    return Principal(key.id, key.name, frozenset(key.scopes), digest, key.expires_at_ms)
