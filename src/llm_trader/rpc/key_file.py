"""The file of API keys: read whole, replaced whole, and readable by its owner only."""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from llm_trader.errors import ConfigurationError, InvalidInputError
from llm_trader.rpc.keys import ApiKey, Scope, digest_of, new_key_id, new_token
from llm_trader.storage.files import read_whole, write_atomically, write_errors
from llm_trader.timeframe import Millis

_VERSION: Final = 1
_NAME: Final = re.compile(r"[\w@.+-][\w@.+ -]{0,63}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class _KeyFile(Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    keys: list[ApiKey]


def read_keys(path: Path) -> list[ApiKey]:
    """Raises `ConfigurationError` if the file is missing, damaged, or open to other writers."""
    try:
        content = read_whole(path)
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise ConfigurationError(
            f"there is no key file {path}; make a key with: "
            f"llm-trader keys create NAME --keys-file {path}"
        ) from None
    except OSError as error:
        raise ConfigurationError(f"cannot read the key file {path}: {error.strerror}") from None
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigurationError(
            f"other users may write to the key file {path} and let themselves in; "
            f"run: chmod 600 {path}"
        )
    try:
        file = msgspec.json.decode(content, type=_KeyFile)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not a key file: {error}") from None
    if file.version != _VERSION:
        raise ConfigurationError(
            f"the key file {path} has version {file.version}, and this program knows {_VERSION}; "
            "use the version of the program that wrote it"
        )
    for position, key in enumerate(file.keys, 1):
        if not _SHA256.fullmatch(key.sha256):
            raise ConfigurationError(
                f"{path}: key {position} ({key.name!r}) has no SHA-256 of 64 hex digits; "
                "remove it, and create it again"
            )
    return file.keys


def create_key(
    path: Path, name: str, scopes: Sequence[Scope], *, now_ms: Millis, expires_at_ms: Millis | None
) -> tuple[ApiKey, str]:
    """Adds a key to the file, which is made if need be; returns it with its token.

    The token is stored nowhere. Raises `InvalidInputError` if an active key has the name.
    """
    if not _NAME.fullmatch(name):
        raise InvalidInputError(
            f"the key's name {name!r} should have 1 to 64 letters, digits, spaces or @._+-"
        )
    if expires_at_ms is not None and expires_at_ms <= now_ms:
        raise InvalidInputError("the key would have ended already; choose a later --expires")
    token = new_token()
    with _changing(path):
        keys = read_keys(path) if path.exists() else []
        if any(key.name == name and key.status(now_ms) == "active" for key in keys):
            raise InvalidInputError(
                f"an active key is named {name!r}; choose another name, or revoke it first with: "
                f"llm-trader keys revoke {name!r}"
            )
        key = ApiKey(
            id=new_key_id(),
            name=name,
            sha256=digest_of(token).hex(),
            scopes=tuple(scopes),
            created_at_ms=now_ms,
            expires_at_ms=expires_at_ms,
        )
        _write(path, [*keys, key])
    return key, token


def revoke_keys(path: Path, name_or_id: str, *, now_ms: Millis) -> list[ApiKey]:
    """Revokes every key of the name or id that is not revoked yet. Raises `InvalidInputError` if
    there is none.
    """
    with _changing(path):
        keys = read_keys(path)
        revoked = {
            key.id: msgspec.structs.replace(key, revoked_at_ms=now_ms)
            for key in keys
            if name_or_id in (key.name, key.id) and key.revoked_at_ms is None
        }
        if not revoked:
            names = ", ".join(repr(k.name) for k in keys if k.revoked_at_ms is None) or "none"
            raise InvalidInputError(
                f"no key in {path} that could be revoked has the name or id {name_or_id!r}; "
                f"there are: {names}"
            )
        _write(path, [revoked.get(key.id, key) for key in keys])
    return list(revoked.values())


def _write(path: Path, keys: list[ApiKey]) -> None:
    content = msgspec.json.format(msgspec.json.encode(_KeyFile(_VERSION, keys)))
    write_atomically(path, content + b"\n", mode=0o600)


@contextmanager
def _changing(path: Path) -> Iterator[None]:
    """One change at a time, so that two commands at once lose no key."""
    with write_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        with write_errors(path.parent):
            yield
    finally:
        os.close(folder)
