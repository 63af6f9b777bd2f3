"""The lines of an audit log, and the files of a chain. Nothing is written here.

A line is a JSON object whose last member is the SHA-256 of all bytes before that member; one of
these members is the hash of the line before. So no line can be changed, left out or moved without
changing all that follow. The `head` file has the number and hash of the last line, so that lines
which are cut off at the end are missed.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Final, Literal, NamedTuple

import msgspec
from msgspec import Struct

from llm_trader.timeframe import Millis

GENESIS: Final = "0" * 64
_SEAL: Final = b',"hash":"'
# The seal, 64 hex digits, and the end of the string and of the object.
_SEAL_BYTES: Final = len(_SEAL) + 64 + 2
_HEAD_BYTES: Final = 160
_SEGMENT: Final = re.compile(r"audit-(\d+)\.(\d{12})\.jsonl")

# `opened`: a process began to write; `gap`: lines were lost, because the disk was full, say.
Event = Literal["request", "opened", "gap", "closed"]


class AuditLine(Struct, omit_defaults=True, kw_only=True):
    """`seq` counts the lines of a chain from 0, and `prev` is the hash of the one before.

    `torn_bytes` and `torn_sha256` vouch for bytes between the last sealed line and this one: what a
    killed process or a full disk left of a line. `lost` counts lines that were never written.
    `head_seq` is set where the head knew of a later line than the files have.
    """

    seq: int
    prev: str
    event: Event
    at_ms: Millis
    request_id: str | None = None
    peer: str | None = None
    key_id: str | None = None
    method: str | None = None
    code: int | None = None
    duration_us: int | None = None
    request_bytes: int | None = None
    reply_bytes: int | None = None
    notification: bool = False
    batch_position: int | None = None
    lost: int = 0
    torn_bytes: int = 0
    torn_sha256: str | None = None
    head_seq: int | None = None


class Sealed(NamedTuple):
    line: AuditLine
    hash: str


class Head(Struct):
    """The last line of a chain, and the first one that was not removed for its age."""

    oldest: int
    seq: int
    hash: str


_ENCODER: Final = msgspec.json.Encoder()
_LINES: Final = msgspec.json.Decoder(AuditLine)


def seal(line: AuditLine) -> tuple[bytes, str]:
    """The bytes of a line with its end, and its hash."""
    body = _ENCODER.encode(line)[:-1]
    digest = hashlib.sha256(body).hexdigest()
    return b'%b%b%b"}\n' % (body, _SEAL, digest.encode()), digest


def unseal(raw: bytes) -> Sealed | None:
    """A line without its end; None if it is not what was sealed."""
    body, seal_bytes = raw[:-_SEAL_BYTES], raw[-_SEAL_BYTES:]
    digest = hashlib.sha256(body).hexdigest()
    if seal_bytes != b'%b%b"}' % (_SEAL, digest.encode()):
        return None
    try:
        return Sealed(_LINES.decode(body + b"}"), digest)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def torn_digest(torn: bytes) -> str:
    return hashlib.sha256(torn).hexdigest()


def encode_head(head: Head) -> bytes:
    """Always of one length, so that a new head replaces the old one in one write."""
    return _ENCODER.encode(head).ljust(_HEAD_BYTES - 1) + b"\n"


def read_head(path: Path) -> Head | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Head)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def segment_path(folder: Path, chain: int, first_seq: int) -> Path:
    return folder / f"audit-{chain}.{first_seq:012d}.jsonl"


def head_path(folder: Path, chain: int) -> Path:
    return folder / f"audit-{chain}.head"


def chains_of(folder: Path) -> dict[int, list[Path]]:
    """The files of each chain, oldest first; a chain that has only a head left has none."""
    chains: dict[int, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if match := _SEGMENT.fullmatch(path.name):
            chains.setdefault(int(match[1]), []).append(path)
        elif match := re.fullmatch(r"audit-(\d+)\.head", path.name):
            chains.setdefault(int(match[1]), [])
    return chains
