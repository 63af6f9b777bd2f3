"""The lines of a chain, and its files. Nothing is written here.

A line is a JSON object whose last member is the SHA-256 of all bytes before that member; one of
these members is the hash of the line before. So no line can be changed, left out or moved without
changing all that follow. The `head` file has the number and hash of the last line, so that lines
which are cut off at the end are missed.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Annotated, Any, Final, Generic, NamedTuple, TypeVar

import msgspec
from msgspec import Meta, Struct

from llm_trader.timeframe import Millis

GENESIS: Final = "0" * 64
_SEAL: Final = b',"hash":"'
# The seal, 64 hex digits, and the end of the string and of the object.
_SEAL_BYTES: Final = len(_SEAL) + 64 + 2
_HEAD_BYTES: Final = 160

# Events that the writer itself adds; `opened`: a process began to write; `gap`: lines were lost,
# because the disk was full, say.
OWN_EVENTS: Final = frozenset({"opened", "gap", "closed"})


class ChainLine(Struct, omit_defaults=True, kw_only=True):
    """`seq` counts the lines of a chain from 0, and `prev` is the hash of the one before.

    `torn_bytes` and `torn_sha256` vouch for bytes between the last sealed line and this one: what a
    killed process or a full disk left of a line. `lost` counts lines that were never written.
    `head_seq` is set where the head knew of a later line than the files have.
    """

    seq: int
    prev: str
    event: str
    at_ms: Millis
    lost: int = 0
    torn_bytes: int = 0
    torn_sha256: str | None = None
    head_seq: int | None = None


L = TypeVar("L", bound=ChainLine)


class ChainConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a next file is begun, and how many stay."""

    max_file_mib: Annotated[
        int, Meta(ge=1, le=4096, description="Size at which a next file is begun, MiB.")
    ] = 64
    keep_files: Annotated[
        int,
        Meta(ge=0, le=100_000, description="Number of files to keep, the newest; 0 keeps all."),
    ] = 50


class Sealed(NamedTuple, Generic[L]):
    line: L
    hash: str


class Head(Struct):
    """The last line of a chain, and the first one that was not removed for its age."""

    oldest: int
    seq: int
    hash: str


_ENCODER: Final = msgspec.json.Encoder()


class ChainKind(Generic[L]):
    """What chains are of: the type of their lines and the names of their files.

    `name` begins the names of files and of log events; `words` and `setting`, the key of the
    folder, are for messages.
    """

    def __init__(self, name: str, line_type: type[L], *, words: str, setting: str) -> None:
        self.name, self.line_type, self.words, self.setting = name, line_type, words, setting
        self._decoder = msgspec.json.Decoder(line_type)
        self._segment = re.compile(rf"{name}-(\d+)\.(\d{{12}})\.jsonl")
        self._head = re.compile(rf"{name}-(\d+)\.head")

    def unseal(self, raw: bytes) -> Sealed[L] | None:
        """A line without its end; None if it is not what was sealed."""
        body, seal_bytes = raw[:-_SEAL_BYTES], raw[-_SEAL_BYTES:]
        digest = hashlib.sha256(body).hexdigest()
        if seal_bytes != b'%b%b"}' % (_SEAL, digest.encode()):
            return None
        try:
            return Sealed(self._decoder.decode(body + b"}"), digest)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None

    def segment_path(self, folder: Path, chain: int, first_seq: int) -> Path:
        return folder / f"{self.name}-{chain}.{first_seq:012d}.jsonl"

    def head_path(self, folder: Path, chain: int) -> Path:
        return folder / f"{self.name}-{chain}.head"

    def lock_path(self, folder: Path, chain: int) -> Path:
        return folder / f"{self.name}-{chain}.lock"

    def chains_of(self, folder: Path) -> dict[int, list[Path]]:
        """The files of each chain, oldest first; a chain that has only a head left has none."""
        found: dict[int, list[Path]] = {}
        for path in sorted(folder.iterdir()):
            if match := self._segment.fullmatch(path.name):
                found.setdefault(int(match[1]), []).append(path)
            elif match := self._head.fullmatch(path.name):
                found.setdefault(int(match[1]), [])
        return found


AnyKind = ChainKind[Any]


def seal(line: ChainLine) -> tuple[bytes, str]:
    """The bytes of a line with its end, and its hash."""
    body = _ENCODER.encode(line)[:-1]
    digest = hashlib.sha256(body).hexdigest()
    return b'%b%b%b"}\n' % (body, _SEAL, digest.encode()), digest


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


def first_seq_of(segment: Path) -> int:
    return int(segment.name.split(".")[1])
