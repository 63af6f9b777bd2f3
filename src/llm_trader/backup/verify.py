"""Whether a backup is whole, and its copies open and answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import msgspec

from llm_trader.backup import contents
from llm_trader.backup.contents import Findings
from llm_trader.backup.files import digest, disk_errors
from llm_trader.backup.manifest import (
    ANSWERS,
    INDEX,
    MARKET,
    Manifest,
    StoredFile,
    read_manifest,
)
from llm_trader.checks.agreement import RecordedAnswer
from llm_trader.errors import ConfigurationError
from llm_trader.progress import Progress, no_progress

_LOCK: Final = "lock.mdb"


class Problem(msgspec.Struct, frozen=True):
    """`file` is relative to the backup's folder."""

    file: str
    problem: str


class VerifyReport(msgspec.Struct, frozen=True, kw_only=True):
    """`answers` counts recorded questions that a copy of the index answered to the last bit.

    A snapshot of a Qdrant server cannot be opened here: its files are compared, and it is asked
    when it is restored.
    """

    name: str
    created_at: str
    parts: list[str]
    files: int
    bytes: int
    answers: int
    problems: list[Problem]
    notes: list[str]


async def verify_backup(folder: Path, progress: Progress = no_progress) -> VerifyReport:
    """Raises `ConfigurationError` for a folder that is no complete backup."""
    manifest = read_manifest(folder)
    problems = await damaged_files(folder, manifest, progress)
    found = await _looked_at(folder, manifest, {problem.file for problem in problems})
    problems += [Problem(file, told) for file, of in found.items() for told in of.problems]
    notes = [*manifest.notes, *(note for of in found.values() for note in of.notes)]
    if manifest.qdrant is not None:
        notes.append("the snapshots' files were compared; they are opened when they are restored")
    return VerifyReport(
        name=manifest.name,
        created_at=manifest.created_at,
        parts=manifest.parts,
        files=len(manifest.files),
        bytes=manifest.bytes,
        answers=sum(of.identical for of in found.values()),
        problems=problems,
        notes=notes,
    )


async def damaged_files(
    folder: Path, manifest: Manifest, progress: Progress = no_progress, parts: Iterable[str] = ()
) -> list[Problem]:
    """Files that are not as they were written, of some parts or of all."""
    wanted = tuple(f"{part}/" for part in parts)
    files = [f for f in manifest.files if not wanted or f.path.startswith((*wanted, ANSWERS))]
    total, before, problems = sum(file.bytes for file in files), 0, []
    for file in files:

        def told(done: int, before: int = before) -> None:
            progress("comparing", before + done, total)

        with disk_errors(folder):
            what = await _damage(folder / file.path, file, told)
        if what is not None:
            problems.append(Problem(file.path, what))
        before += file.bytes
    return problems


async def _damage(path: Path, wanted: StoredFile, told: Callable[[int], None]) -> str | None:
    """What is wrong with a file."""
    if problem := _other_size(path, wanted.bytes):
        return problem
    if await digest(path, told) != wanted.sha256:
        return "is not what was written: its SHA-256 differs"
    return None


def _other_size(path: Path, wanted: int) -> str | None:
    if not path.is_file():
        return "is missing"
    size = path.stat().st_size
    return None if size == wanted else f"has {size} bytes, not {wanted}"


async def _looked_at(folder: Path, manifest: Manifest, damaged: set[str]) -> dict[str, Findings]:
    """The copies opened, by their data file; LMDB must not be given one that is damaged."""
    found = {}
    market, index = f"{MARKET}/data.mdb", f"{INDEX}/data.mdb"
    if manifest.market is not None and market not in damaged:
        found[market] = contents.look_at_market(folder / MARKET, manifest.market)
    if manifest.index is not None and not damaged & {index, ANSWERS}:
        answers = read_answers(folder)
        found[index] = await contents.look_at_index(folder / INDEX, manifest.index, answers)
    for part in (MARKET, INDEX):
        (folder / part / _LOCK).unlink(missing_ok=True)
    return found


def read_answers(folder: Path) -> list[RecordedAnswer]:
    """The recorded questions and answers; none where a backup holds no index."""
    path = folder / ANSWERS
    if not path.exists():
        return []
    try:
        with disk_errors(folder):
            return msgspec.json.decode(path.read_bytes(), type=list[RecordedAnswer])
    except msgspec.MsgspecError as error:
        raise ConfigurationError(f"{path} is of another version ({error})") from error


def refuse_damaged(folder: Path, problems: list[Problem]) -> None:
    """Raises `ConfigurationError` where there are any."""
    if problems:
        listed = "; ".join(f"{of.file} {of.problem}" for of in problems[:5])
        raise ConfigurationError(f"the backup at {folder} is damaged: {listed}; use another backup")
