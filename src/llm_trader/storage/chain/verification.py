"""Reads the chains of a folder again, and finds what was changed, removed, moved or cut off."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from msgspec import Struct

from llm_trader.errors import ConfigurationError
from llm_trader.storage.chain.lines import GENESIS, AnyKind, ChainLine, read_head, torn_digest
from llm_trader.timeframe import iso8601

# One screen; what comes after the first is mostly a consequence.
_MOST_PROBLEMS: Final = 100


class Problem(Struct, frozen=True):
    """`line` counts the lines of a file from 1; None where none of them is at fault."""

    file: str
    line: int | None
    problem: str


class ChainReport(Struct, kw_only=True):
    """`last_hash` names all lines up to `last_seq`: kept elsewhere, it proves them later.

    `lost_lines` counts lines that could not be written, as the chain itself says, and `torn_lines`
    what killed processes left of lines. Neither is a problem.
    """

    chain: int
    files: int = 0
    lines: int = 0
    first_seq: int | None = None
    last_seq: int | None = None
    last_hash: str | None = None
    first_time: str | None = None
    last_time: str | None = None
    lost_lines: int = 0
    torn_lines: int = 0
    problems: list[Problem] = []


class ChainsReport(Struct, kw_only=True):
    folder: str
    chains: list[ChainReport]
    # Hashes that were asked for, and that no line has.
    not_found: list[str] = []

    @property
    def passed(self) -> bool:
        return not self.not_found and not any(chain.problems for chain in self.chains)


def verify(kind: AnyKind, folder: Path, expected: tuple[str, ...] = ()) -> ChainsReport:
    """`expected` are hashes of lines that must be there. Raises `ConfigurationError` where there is
    no chain.
    """
    missing = set(expected)
    readers = [
        _ChainReader(kind, folder, chain, paths, missing)
        for chain, paths in chains_in(kind, folder).items()
    ]
    reports = [reader.read() for reader in readers]
    return ChainsReport(folder=str(folder), chains=reports, not_found=sorted(missing))


def chains_in(kind: AnyKind, folder: Path) -> dict[int, list[Path]]:
    """The files of each chain. Raises `ConfigurationError` where there is none."""
    try:
        chains = kind.chains_of(folder)
    except OSError as error:
        raise ConfigurationError(
            f"cannot read the {kind.words} {folder}: {error.strerror}"
        ) from None
    if not chains:
        raise ConfigurationError(
            f"there is no {kind.words} in {folder}; a server writes one where {kind.setting} says"
        )
    return chains


class _ChainReader:
    """One pass over the files of a chain; takes the hashes that it sees out of `missing`."""

    def __init__(
        self, kind: AnyKind, folder: Path, chain: int, paths: list[Path], missing: set[str]
    ) -> None:
        self._kind = kind
        self._paths = paths
        self._missing = missing
        self._head_path = kind.head_path(folder, chain)
        # Before the files, which a running server goes on to write.
        self._head = read_head(self._head_path)
        self._report = ChainReport(chain=chain, files=len(paths), problems=[])
        self._hash: str | None = None
        self._hash_at_head: str | None = None
        self._unsealed: list[tuple[Path, int, bytes]] = []

    def read(self) -> ChainReport:
        for path in self._paths:
            for number, raw in _lines(path):
                self._take(path, number, raw)
        self._end()
        return self._report

    def _take(self, path: Path, number: int, raw: bytes) -> None:
        sealed = self._kind.unseal(raw[:-1]) if raw.endswith(b"\n") else None
        if sealed is None:
            self._unsealed.append((path, number, raw))
            return
        line, digest = sealed
        self._check_torn(path, number, line)
        self._check_place(path, number, line)
        if line.head_seq is not None:
            first = line.seq
            self._tell(path, number, f"lines {first} to {line.head_seq} were lost before this one")
        report = self._report
        report.lines += 1
        report.lost_lines += line.lost
        report.last_seq, report.last_hash, self._hash = line.seq, digest, digest
        report.last_time = iso8601(line.at_ms)
        if report.first_seq is None:
            report.first_seq, report.first_time = line.seq, report.last_time
        if self._head is not None and line.seq == self._head.seq:
            self._hash_at_head = digest
        self._missing.discard(digest)

    def _check_torn(self, path: Path, number: int, line: ChainLine) -> None:
        """Whether the line vouches for the bytes before it that are no lines."""
        torn, self._unsealed = self._unsealed, []
        content = b"".join(raw for _, _, raw in torn)
        if line.torn_sha256 is not None and line.torn_sha256 == torn_digest(content):
            self._report.torn_lines += 1
            return
        for where, position, _ in torn:
            self._tell(where, position, "the line was changed: it does not fit its hash")
        if line.torn_sha256 is not None and not torn:
            self._tell(path, number, "the rest of a torn line that stood before it is missing")

    def _check_place(self, path: Path, number: int, line: ChainLine) -> None:
        last_seq = self._report.last_seq
        if last_seq is None:
            oldest = self._head.oldest if self._head else 0
            if line.seq > oldest:
                self._tell(path, number, f"lines {oldest} to {line.seq - 1} are missing before it")
            elif line.seq == 0 and line.prev != GENESIS:
                self._tell(path, number, "it is the first line, but it names one before it")
        elif line.seq > last_seq + 1:
            self._tell(
                path, number, f"lines {last_seq + 1} to {line.seq - 1} are missing before it"
            )
        elif line.seq <= last_seq:
            self._tell(path, number, f"line {line.seq} comes after line {last_seq}")
        elif line.prev != self._hash:
            self._tell(path, number, "the line before it is not the one that it was written after")

    def _end(self) -> None:
        report, head = self._report, self._head
        for path, number, raw in self._unsealed:
            is_last = path == self._paths[-1] and not raw.endswith(b"\n")
            if not is_last:
                self._tell(path, number, "the line was changed: it does not fit its hash")
            elif head is not None and report.last_seq is not None and head.seq <= report.last_seq:
                report.torn_lines += 1  # the next process that writes will vouch for it
        if head is None:
            self._tell(
                self._head_path,
                None,
                "the head is missing, so lines cut off at the end go unnoticed",
            )
        elif report.last_seq is None or head.seq > report.last_seq:
            first = head.oldest if report.last_seq is None else report.last_seq + 1
            file = self._paths[-1] if self._paths else self._head_path
            self._tell(file, None, f"the end is cut off: lines {first} to {head.seq} are missing")
        elif self._hash_at_head != head.hash and not report.problems:
            self._tell(self._head_path, None, f"line {head.seq} is not the one that the head names")

    def _tell(self, path: Path, line: int | None, problem: str) -> None:
        if len(self._report.problems) < _MOST_PROBLEMS:
            self._report.problems.append(Problem(path.name, line, problem))


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        yield from enumerate(file, 1)
