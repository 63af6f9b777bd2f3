"""Restores a backup to empty places, after proving that it answers as before.

Each folder is filled under another name beside its place, opened, and asked the recorded questions;
then it is renamed. A restore that is killed leaves nothing at the place itself, or the whole part.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from llm_trader.backup.contents import Findings, check_copy, read_answers
from llm_trader.backup.files import copy, digest, disk_errors, with_progress
from llm_trader.backup.manifest import INDEX, MARKET, QDRANT, Manifest, Places, read_manifest
from llm_trader.backup.verify import damaged_files, refuse_damaged
from llm_trader.errors import ConfigurationError, InvalidInputError
from llm_trader.progress import Progress, no_progress
from llm_trader.storage.files import sync_to_disk
from llm_trader.storage.writer_lock import WriterLock

if TYPE_CHECKING:
    from llm_trader.backup.cluster import RestoredCollection


class RestoreReport(msgspec.Struct, frozen=True, kw_only=True):
    """`restored` has the place of each part; `answers` counts those equal to the last bit."""

    name: str
    created_at: str
    restored: dict[str, str]
    answers: int
    notes: list[str]


async def restore_backup(
    folder: Path, targets: Places, *, swap: bool = False, progress: Progress = no_progress
) -> RestoreReport:
    """Restore the parts of a backup that have a target.

    Raises `ConfigurationError`, before anything is written, for a backup that is unfinished or
    damaged, for a folder that is not empty, and for a Qdrant alias that leads to a collection,
    unless `swap` has it lead to the restored one.
    """
    manifest = read_manifest(folder)
    folders = {MARKET: targets.market, INDEX: targets.index}
    fillings = [
        _Filling(part, target.resolve())
        for part, target in folders.items()
        if part in manifest.parts and target is not None
    ]
    collection = _collection(manifest, targets)
    if not fillings and collection is None:
        raise InvalidInputError(
            f"the backup {manifest.name} holds {' and '.join(manifest.parts)}, and for none of "
            "these a place is named"
        )
    if len({filling.target for filling in fillings}) < len(fillings):
        raise ConfigurationError(
            f"{fillings[0].target} is named as both the market store and the index; they are two "
            "folders"
        )
    # Taken places are refused before anything is copied, as that may take an hour.
    restored_earlier = await _restored_earlier(manifest, fillings)
    fillings = [filling for filling in fillings if filling not in restored_earlier]
    for filling in fillings:
        _refuse_taken(filling.target)
    if collection is not None:
        await collection.refuse_live(swap=swap)
    parts = [*(filling.part for filling in fillings), *([QDRANT] if collection else [])]
    refuse_damaged(folder, await damaged_files(folder, manifest, progress, parts))
    restored, findings = await _restored(folder, manifest, fillings, collection, progress)
    restored |= {filling.part: str(filling.target) for filling in restored_earlier}
    return RestoreReport(
        name=manifest.name,
        created_at=manifest.created_at,
        restored=restored,
        answers=sum(finding.identical for finding in findings),
        notes=[note for finding in findings for note in finding.notes],
    )


@dataclass(frozen=True, slots=True)
class _Filling:
    """A part that becomes a folder."""

    part: str
    target: Path

    @property
    def beside(self) -> Path:
        return self.target.with_name(f".{self.target.name}.restoring")


def _collection(manifest: Manifest, targets: Places) -> RestoredCollection | None:
    if manifest.qdrant is None or targets.qdrant is None:
        return None
    from llm_trader.backup.cluster import RestoredCollection

    return RestoredCollection(targets.qdrant, manifest.qdrant)


async def _restored_earlier(manifest: Manifest, fillings: list[_Filling]) -> list[_Filling]:
    """The parts that a restore of this backup put in place before it was killed.

    The others still stand beside their places. A part that was written to since is not one.
    """
    if not any(filling.beside.is_dir() for filling in fillings):
        return []
    digests = {file.path: file.sha256 for file in manifest.files}
    earlier = []
    for filling in fillings:
        data = filling.target / "data.mdb"
        if data.is_file() and not filling.beside.exists():
            with disk_errors(data):
                if await digest(data, lambda done: None) == digests[f"{filling.part}/data.mdb"]:
                    earlier.append(filling)
    return earlier


def _refuse_taken(target: Path) -> None:
    with disk_errors(target):
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise ConfigurationError(
                f"{target} is not empty, and a restore overwrites nothing; move it away, or name "
                "another folder"
            )


async def _restored(
    folder: Path,
    manifest: Manifest,
    fillings: Sequence[_Filling],
    collection: RestoredCollection | None,
    progress: Progress,
) -> tuple[dict[str, str], list[Findings]]:
    """All parts are copied and proven before the first one is put in its place."""
    places, findings = {}, []
    with ExitStack() as undone, disk_errors(folder):
        for filling in fillings:
            undone.enter_context(_empty_folder(filling.beside))
            await _fill(folder, manifest, filling, progress)
            copied = await check_copy(filling.part, filling.beside, manifest, folder)
            findings.append(_proven(filling.part, copied))
        if collection is not None:
            findings.append(await _uploaded(folder, collection, progress))
        if collection is not None:  # a server may still refuse; renaming hardly can
            places[QDRANT] = await collection.go_live()
        for filling in fillings:
            filling.beside.replace(filling.target)
            sync_to_disk(filling.target.parent)
            places[filling.part] = str(filling.target)
    return places, findings


async def _uploaded(folder: Path, collection: RestoredCollection, progress: Progress) -> Findings:
    try:
        await collection.upload(folder, progress)
        return _proven(QDRANT, await collection.check(read_answers(folder)))
    except BaseException:
        await collection.discard()
        raise


@contextmanager
def _empty_folder(beside: Path) -> Iterator[None]:
    """A folder that only this process fills, without the files that a killed restore left."""
    lock = WriterLock(beside)
    try:
        for name in ("data.mdb", "lock.mdb"):
            (beside / name).unlink(missing_ok=True)
        yield
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    finally:
        lock.release()


async def _fill(folder: Path, manifest: Manifest, filling: _Filling, progress: Progress) -> None:
    prefix = f"{filling.part}/"
    files = {file: file.bytes for file in manifest.files if file.path.startswith(prefix)}
    for file, on_bytes in with_progress(files, f"restoring {filling.part}", progress):
        path = folder / file.path
        if await copy(path, filling.beside / path.name, on_bytes) != file.sha256:
            raise ConfigurationError(f"{path} has changed while it was read; restore again")
    sync_to_disk(filling.beside)


def _proven(part: str, findings: Findings) -> Findings:
    if findings.problems:
        raise ConfigurationError(
            f"the {part} part of the backup does not hold what it should: "
            f"{'; '.join(findings.problems)}; nothing was put in its place, use another backup"
        )
    return findings
