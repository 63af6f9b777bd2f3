"""Snapshots: a tar of the engine's files and of the collection's configuration."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .cluster import FIRST_PEER
from .errors import checksum_mismatch, not_found, wrong_input
from .store import Collection, Store
from .wire import pb

SIZES = "sizes.json"


@dataclass(frozen=True)
class Snapshot:
    path: Path

    @property
    def created(self) -> datetime:
        return datetime.fromtimestamp(self.path.stat().st_mtime, UTC)

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    def message(self) -> pb.SnapshotDescription:
        described = pb.SnapshotDescription(
            name=self.path.name, size=self.path.stat().st_size, checksum=self.checksum
        )
        described.creation_time.FromDatetime(self.created)
        return described

    def json(self) -> dict[str, Any]:
        return {
            "name": self.path.name,
            "creation_time": self.created.strftime("%Y-%m-%dT%H:%M:%S"),
            "size": self.path.stat().st_size,
            "checksum": self.checksum,
        }


class Snapshots:
    def __init__(self, store: Store) -> None:
        self._store = store

    def all(self, name: str) -> list[Snapshot]:
        folder = self._folder(name)
        return [Snapshot(path) for path in sorted(folder.glob("*.snapshot"))]

    def create(self, name: str) -> Snapshot:
        with self._store.lock:
            return self._create(name)

    def _create(self, name: str) -> Snapshot:
        collection = self._store.resolve(name)
        collection.shard.flush()
        # To the microsecond where the real server has seconds: tests are quick.
        now = datetime.now(UTC).strftime("%Y-%m-%d-%H-%M-%S-%f")
        path = self._folder(name) / f"{collection.name}-{FIRST_PEER}-{now}.snapshot"
        path.parent.mkdir(parents=True, exist_ok=True)
        half = path.with_suffix(".half")
        pack(collection.folder, half)
        half.replace(path)
        return Snapshot(path)

    def find(self, name: str, snapshot: str) -> Snapshot:
        path = self._folder(name) / snapshot
        if path.parent != self._folder(name) or not path.is_file():
            raise not_found(f"Snapshot {snapshot} not found")
        return Snapshot(path)

    def delete(self, name: str, snapshot: str) -> None:
        self.find(name, snapshot).path.unlink()

    def restore(self, name: str, content: bytes, checksum: str | None) -> None:
        """The snapshot's collection, under this name, in place of what was there."""
        actual = hashlib.sha256(content).hexdigest()
        if checksum is not None and checksum.lower() != actual:
            raise checksum_mismatch(actual, checksum)
        with self._store.lock:
            self._restore(name, content)

    def _restore(self, name: str, content: bytes) -> None:
        name = self._store.aliases.get(name, name)
        unpacked = self._store.restoring
        shutil.rmtree(unpacked, ignore_errors=True)
        unpack(content, unpacked)
        present = self._store.collections.get(name)
        if present is not None:
            self._require_same_vectors(present, unpacked)
            self._store.discard(self._store.collections.pop(name))
        path = self._store.path(name)
        unpacked.rename(path)
        self._store.collections[name] = Collection(path)

    def _require_same_vectors(self, present: Collection, unpacked: Path) -> None:
        restored = Collection(unpacked)
        restored.shard.close()
        if restored.request.vectors_config != present.request.vectors_config:
            shutil.rmtree(unpacked)
            raise wrong_input(
                "Snapshot is not compatible with existing collection: "
                f"Collection config: {present.request.vectors_config} "
                f"Snapshot config: {restored.request.vectors_config}"
            )

    def _folder(self, name: str) -> Path:
        return self._store.snapshots_path(self._store.resolve(name).name)


def pack(folder: Path, target: Path) -> None:
    """The engine's files are long and nearly empty: zeros at their ends are left out."""
    sizes: dict[str, int] = {}
    with tarfile.open(target, "w") as tar:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            name = path.relative_to(folder).as_posix()
            sizes[name] = path.stat().st_size
            _add(tar, name, _without_trailing_zeros(path))
        _add(tar, SIZES, json.dumps(sizes).encode())


def _without_trailing_zeros(path: Path) -> bytes:
    """Steps of a mebibyte from the end: the files are hundreds of times longer than their data."""
    step, end = 1 << 20, path.stat().st_size
    zeros = bytes(step)
    with path.open("rb") as file:
        while end > 0:
            start = max(0, end - step)
            file.seek(start)
            if file.read(end - start) != zeros[: end - start]:
                break
            end = start
        file.seek(0)
        return file.read(end).rstrip(b"\0")


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def unpack(content: bytes, folder: Path) -> None:
    folder.mkdir(parents=True)
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            # The first releases of Python 3.11 have no filters; what is read here was made here.
            safely: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
            tar.extractall(folder, **safely)
        sizes = json.loads((folder / SIZES).read_text())
    except (tarfile.TarError, OSError, ValueError) as error:
        shutil.rmtree(folder)
        raise wrong_input(f"Failed to read snapshot: {error}") from error
    (folder / SIZES).unlink()
    for name, size in sizes.items():
        with (folder / name).open("r+b") as file:
            file.truncate(size)
