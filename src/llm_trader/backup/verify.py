"""Checks that a backup is whole, and that its copies open and answer."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from llm_trader.backup.contents import Findings, check_copy
from llm_trader.backup.files import OnBytes, digest, disk_errors, with_progress
from llm_trader.backup.manifest import (
    ANSWERS,
    INDEX,
    MARKET,
    Manifest,
    StoredFile,
    read_manifest,
)
from llm_trader.errors import ConfigurationError
from llm_trader.progress import Progress, no_progress


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
    findings = await _check_copies(folder, manifest, {problem.file for problem in problems})
    problems += [Problem(file, text) for file, f in findings.items() for text in f.problems]
    notes = [*manifest.notes, *(note for f in findings.values() for note in f.notes)]
    if manifest.qdrant is not None:
        notes.append("the snapshots' files were compared; they are opened when they are restored")
    return VerifyReport(
        name=manifest.name,
        created_at=manifest.created_at,
        parts=manifest.parts,
        files=len(manifest.files),
        bytes=manifest.bytes,
        answers=sum(f.identical for f in findings.values()),
        problems=problems,
        notes=notes,
    )


async def damaged_files(
    folder: Path, manifest: Manifest, progress: Progress = no_progress, parts: Iterable[str] = ()
) -> list[Problem]:
    """Files of some parts, or of all, that differ from what was written."""
    prefixes = tuple(f"{part}/" for part in parts)
    files = {
        file: file.bytes
        for file in manifest.files
        if not prefixes or file.path.startswith((*prefixes, ANSWERS))
    }
    problems = []
    for file, on_bytes in with_progress(files, "comparing", progress):
        with disk_errors(folder):
            damage = _link(folder, file) or await _damage(folder / file.path, file, on_bytes)
        if damage is not None:
            problems.append(Problem(file.path, damage))
    return problems


def _link(folder: Path, file: StoredFile) -> str | None:
    """A backup holds its files itself; what a link leads to is somebody else's."""
    path = folder / file.path
    within = [path, *path.parents][: len(Path(file.path).parts)]
    return "is or lies in a linked folder or file" if any(map(Path.is_symlink, within)) else None


async def _damage(path: Path, expected: StoredFile, on_bytes: OnBytes) -> str | None:
    """How a file differs from what was written; None if it does not."""
    if problem := _size_problem(path, expected.bytes):
        return problem
    if await digest(path, on_bytes) != expected.sha256:
        return "is not what was written: its SHA-256 differs"
    return None


def _size_problem(path: Path, expected: int) -> str | None:
    if not path.is_file():
        return "is missing"
    size = path.stat().st_size
    return None if size == expected else f"has {size} bytes, not {expected}"


async def _check_copies(folder: Path, manifest: Manifest, damaged: set[str]) -> dict[str, Findings]:
    """Opens the copies, by their data file; LMDB must not be given a damaged one."""
    findings = {}
    for part in (MARKET, INDEX):
        data, needed = f"{part}/data.mdb", {ANSWERS} if part == INDEX else set()
        if part in manifest.parts and not damaged & {data, *needed}:
            findings[data] = await check_copy(part, folder / part, manifest, folder)
    return findings


def refuse_damaged(folder: Path, problems: list[Problem]) -> None:
    """Raises `ConfigurationError` where there are problems."""
    if problems:
        listed = "; ".join(f"{problem.file} {problem.problem}" for problem in problems[:5])
        raise ConfigurationError(f"the backup at {folder} is damaged: {listed}; use another backup")
