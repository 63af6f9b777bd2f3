"""Makes, lists and revokes API keys in the key file of the settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct

from llm_trader.app.job import Job
from llm_trader.errors import ConfigurationError, InvalidInputError
from llm_trader.rpc import key_file
from llm_trader.rpc.keys import SCOPES, ApiKey, Scope
from llm_trader.timeframe import Millis, iso8601


class ListedKey(Struct, frozen=True, kw_only=True):
    """A key without its digest."""

    id: str
    name: str
    scopes: tuple[Scope, ...]
    status: str
    created: str
    expires: str | None
    revoked: str | None


class CreatedKey(Struct, frozen=True, kw_only=True):
    """A new key, with the only sight of its `token`."""

    token: str
    key: ListedKey
    keys_file: str


class KeyList(NamedTuple):
    path: Path
    keys: list[ListedKey]


def create_key(
    job: Job, name: str, scopes: Sequence[str], expires_at_ms: Millis | None
) -> CreatedKey:
    path = _path(job)
    key, token = key_file.create_key(
        path, name, scopes_of(scopes), now_ms=job.now_ms, expires_at_ms=expires_at_ms
    )
    return CreatedKey(token=token, key=_listed(key, job.now_ms), keys_file=str(path))


def list_keys(job: Job) -> KeyList:
    path = _path(job)
    return KeyList(path, [_listed(key, job.now_ms) for key in key_file.read_keys(path)])


def revoke_keys(job: Job, name_or_id: str) -> list[ListedKey]:
    revoked = key_file.revoke_keys(_path(job), name_or_id, now_ms=job.now_ms)
    return [_listed(key, job.now_ms) for key in revoked]


def scopes_of(words: Sequence[str]) -> list[Scope]:
    """Raises `InvalidInputError` for a word that is no scope, and for none at all."""
    unknown = [word for word in words if word not in SCOPES]
    if unknown or not words:
        named = f"{unknown[0]!r} is no scope" if unknown else "a key needs a scope"
        raise InvalidInputError(f"{named}; the scopes are {', '.join(SCOPES)}")
    return [scope for scope in SCOPES if scope in words]


def _path(job: Job) -> Path:
    path = job.settings.serving.keys_file
    if path is None:
        raise ConfigurationError(
            "no key file is set; name one with --keys-file or with the setting serving.keys_file, "
            "and start the server with the same"
        )
    return path


def _listed(key: ApiKey, now_ms: Millis) -> ListedKey:
    return ListedKey(
        id=key.id,
        name=key.name,
        scopes=key.scopes,
        status=key.status(now_ms),
        created=iso8601(key.created_at_ms),
        expires=None if key.expires_at_ms is None else iso8601(key.expires_at_ms),
        revoked=None if key.revoked_at_ms is None else iso8601(key.revoked_at_ms),
    )
