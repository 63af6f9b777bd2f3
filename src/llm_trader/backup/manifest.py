"""The manifest of a backup, and the backups in a folder.

<backups>/<name>/manifest.json       written last, and as a whole
                 answers.json        questions to the index, and its answers
                 market/data.mdb
                 index/data.mdb      or, of a Qdrant server:
                 qdrant/<node>/<collection>.snapshot
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

import msgspec

from llm_trader.backup.files import disk_errors
from llm_trader.errors import ConfigurationError, InvalidInputError
from llm_trader.index.protocol import Collection, IngestionRun, SymbolPoints
from llm_trader.storage.files import write_atomically

if TYPE_CHECKING:
    from llm_trader.backup.cluster import QdrantNodes

SCHEMA_VERSION: Final = 1
MANIFEST: Final = "manifest.json"
ANSWERS: Final = "answers.json"
MARKET: Final = "market"
INDEX: Final = "index"
QDRANT: Final = "qdrant"


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where the parts of a backup come from or go to: folders, or the nodes of a Qdrant server.

    None leaves a part out.
    """

    market: Path | None = None
    index: Path | None = None
    qdrant: QdrantNodes | None = None


class StoredFile(msgspec.Struct, frozen=True):
    """`path` is relative to the backup's folder, with forward slashes."""

    path: str
    bytes: int
    sha256: str


class SeriesRows(msgspec.Struct, frozen=True):
    symbol: str
    kind: str
    timeframe: str | None
    rows: int
    first: str
    last: str


class MarketPart(msgspec.Struct, frozen=True, kw_only=True):
    """A copy of the market store that was at `location`."""

    location: str
    exchange: str | None
    series: list[SeriesRows]


class IndexPart(msgspec.Struct, frozen=True, kw_only=True):
    """The content of the index that was at `location`."""

    location: str
    collection: Collection
    symbols: list[SymbolPoints]
    runs: list[IngestionRun]


class NodePart(msgspec.Struct, frozen=True):
    """The snapshot of one node of a cluster, and its file in the backup."""

    url: str
    snapshot: str
    file: str


class QdrantPart(msgspec.Struct, frozen=True, kw_only=True):
    """A Qdrant collection: `version` is its own name, `alias` the one that was searched."""

    alias: str
    version: str
    index: IndexPart
    nodes: list[NodePart]


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A complete backup; it holds one kind of index at most.

    `notes` say what it lacks. Manifests of earlier versions have none.
    """

    schema_version: int
    name: str
    created_at: str
    package_version: str
    market: MarketPart | None
    index: IndexPart | None
    qdrant: QdrantPart | None
    files: list[StoredFile]
    notes: list[str] = []

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    @property
    def parts(self) -> list[str]:
        parts = {MARKET: self.market, INDEX: self.index, QDRANT: self.qdrant}
        return [name for name, part in parts.items() if part is not None]

    @property
    def indexed(self) -> IndexPart | None:
        """The content of the index, whichever kind it is."""
        return self.index or (self.qdrant.index if self.qdrant else None)


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """A folder of backups at a glance. `state` is complete, unfinished or unreadable."""

    name: str
    state: str
    created_at: str | None
    bytes: int
    parts: list[str]


def checked_name(name: str) -> str:
    """Raises `InvalidInputError` for anything but a plain name of a folder."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name, re.ASCII):
        raise InvalidInputError(
            f"{name!r} is no name for a backup; use letters, digits, dots, dashes and underscores"
        )
    return name


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Makes the backup complete."""
    content = msgspec.json.format(msgspec.json.encode(manifest))
    write_atomically(folder / MANIFEST, content + b"\n")


def read_manifest(folder: Path) -> Manifest:
    """Raises `ConfigurationError` for a folder that is no complete backup of this layout."""
    path = folder / MANIFEST
    if not folder.is_dir():
        raise ConfigurationError(f"there is no backup at {folder}; see: llm-trader backup list")
    if path.exists() and not path.is_file():
        raise ConfigurationError(f"{path} is no regular file; use another backup")
    if not path.exists():
        raise ConfigurationError(
            f"the backup at {folder} is unfinished, it was stopped before its end; delete the "
            "folder and make another"
        )
    with disk_errors(folder):
        content = path.read_bytes()
    try:
        # The version first: a manifest of another layout would only look damaged.
        version = msgspec.json.decode(content, type=_Versioned).schema_version
        if version == SCHEMA_VERSION:
            return _checked(msgspec.json.decode(content, type=Manifest), path)
    except msgspec.MsgspecError as error:
        raise ConfigurationError(f"{path} is damaged ({error}); use another backup") from error
    raise ConfigurationError(
        f"the backup at {folder} is of schema version {version}, this program reads "
        f"{SCHEMA_VERSION}; use the version of llm-trader-rag that made it"
    )


def _checked(manifest: Manifest, path: Path) -> Manifest:
    """Refuses a manifest that leads out of its folder, or lacks the files of its parts."""
    nodes = manifest.qdrant.nodes if manifest.qdrant else []
    files = {file.path for file in manifest.files}
    for name in (*files, *(node.file for node in nodes)):
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts or "\0" in name:
            raise ConfigurationError(
                f"{path} names {name!r}, which is no file of this backup: the manifest was "
                "altered; use another backup"
            )
    needed = {f"{part}/data.mdb" for part in manifest.parts if part != QDRANT}
    needed |= {node.file for node in nodes} | ({ANSWERS} if manifest.indexed else set())
    if not manifest.parts or not needed <= files:
        missing = ", ".join(sorted(needed - files)) or "any part"
        raise ConfigurationError(f"{path} does not name {missing}; use another backup")
    return manifest


class _Versioned(msgspec.Struct):
    schema_version: int


def backups_in(folder: Path) -> list[Listed]:
    """The backups sorted by name; none for a folder that does not exist."""
    if not folder.is_dir():
        return []
    with disk_errors(folder):
        folders = sorted(path for path in folder.iterdir() if path.is_dir())
        return [_listed(path) for path in folders if not path.name.startswith(".")]


def _listed(folder: Path) -> Listed:
    try:
        manifest = read_manifest(folder)
    except ConfigurationError:
        state = "unreadable" if (folder / MANIFEST).exists() else "unfinished"
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        return Listed(name=folder.name, state=state, created_at=None, bytes=size, parts=[])
    return Listed(
        name=folder.name,
        state="complete",
        created_at=manifest.created_at,
        bytes=manifest.bytes,
        parts=manifest.parts,
    )
