"""All points of one index into another, with their vectors and the runs that wrote them.

Copying looks at both sides batch by batch and writes what differs, so a copy that was killed goes
on where it stopped, one that is repeated adds what is new, and nothing is lost or doubled.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from llm_trader.arrays import Times
from llm_trader.errors import ConfigurationError, SymbolNotFoundError, VectorIndexError
from llm_trader.index.asof import Window
from llm_trader.index.points import PointTable
from llm_trader.index.protocol import IndexInfo, IngestionRun, SymbolPoints, VectorIndex
from llm_trader.progress import Progress, no_progress
from llm_trader.snapshot.outcome import LONGEST_HORIZON_MS
from llm_trader.timeframe import iso8601

_WINDOW_POINTS: Final = 1024
_ANOTHER_TARGET: Final = "copy into one that is new and empty"


class CopyReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a symbol's points: each is one of the last three."""

    symbol: str
    points: int
    already_there: int
    added: int
    replaced: int


class CopyProblem(msgspec.Struct, frozen=True):
    """A way in which a copy is other than what it was made of."""

    symbol: str | None
    problem: str


async def copy_points(
    source: VectorIndex,
    target: VectorIndex,
    symbols: Sequence[str],
    batch: int,
    progress: Progress = no_progress,
) -> list[CopyReport]:
    """Bring `target` up to `source`, `batch` points at a time; no symbols means all.

    Raises `ConfigurationError` for a target of another collection or of other runs, and
    `SymbolNotFoundError` for a symbol the source lacks, before anything is written.
    """
    available = [of.symbol for of in (await source.info()).symbols]
    for symbol in symbols:
        if symbol not in available:
            raise SymbolNotFoundError(symbol, available)
    runs = _Runs(source, target)
    await runs.replay()
    return [
        await _copy_symbol(source, target, symbol, batch, runs, progress)
        for symbol in symbols or available
    ]


async def verify_copy(
    source: VectorIndex, target: VectorIndex, *, windows: int = 8, seed: int = 0
) -> list[CopyProblem]:
    """What is other in `target`; nothing if it is a true copy.

    Compares runs, and of each symbol the number of points and all their times; of `windows`
    random stretches of a thousand points every value and every vector to the last bit.
    """
    ours, theirs = await source.info(), await target.info()
    problems = [CopyProblem(None, told) for told in _other_runs(ours, theirs)]
    there = {of.symbol: of for of in theirs.symbols}
    known = {of.symbol for of in ours.symbols}
    problems += [CopyProblem(s, "is not in the source") for s in there if s not in known]
    chances = random.Random(seed)
    for of in ours.symbols:
        found = await _symbol_problems(
            source, target, of, there.get(of.symbol), _sampled(of.points, windows, chances)
        )
        problems += [CopyProblem(of.symbol, told) for told in found]
    return problems


class _Runs:
    """The source's runs, registered at the target in the same order with the same numbers."""

    def __init__(self, source: VectorIndex, target: VectorIndex) -> None:
        self._source, self._target = source, target
        self._replayed = 0

    async def replay(self) -> None:
        wanted, there = await self._source.info(), await self._target.info()
        _refuse_another_target(wanted, there)
        for run in wanted.runs[len(there.runs) :]:
            number = await self._target.begin_run(run.build_id, run.exchange, run.started_at)
            if number != run.run:
                raise VectorIndexError(
                    f"{there.location} gave run {run.run} the number {number}: something else "
                    "writes to it; stop that, and copy into a new and empty one"
                )
        self._replayed = len(wanted.runs)

    async def replay_for(self, points: PointTable) -> None:
        """Runs may have begun at the source since; their points must not come before them."""
        if len(points) and int(points.run.max()) > self._replayed:
            await self.replay()


def _refuse_another_target(wanted: IndexInfo, there: IndexInfo) -> None:
    differences = there.collection.differences(wanted.collection)
    if not differences and there.runs != wanted.runs[: len(there.runs)]:
        differences = _other_runs(wanted, there)
    if differences:
        raise ConfigurationError(
            f"{there.location} is no copy of {wanted.location}: {'; '.join(differences)}; "
            f"{_ANOTHER_TARGET}"
        )


def _other_runs(wanted: IndexInfo, there: IndexInfo) -> list[str]:
    """The first run that differs, in words."""
    for ours, theirs in zip(wanted.runs, there.runs, strict=False):
        if ours != theirs:
            return [f"run {ours.run} is {_told(theirs)}, not {_told(ours)}"]
    if len(wanted.runs) != len(there.runs):
        return [f"it has {len(there.runs)} runs, not {len(wanted.runs)}"]
    return []


def _told(run: IngestionRun) -> str:
    return f"{run.build_id} of {run.exchange} at {run.started_at}"


async def _copy_symbol(
    source: VectorIndex,
    target: VectorIndex,
    symbol: str,
    batch: int,
    runs: _Runs,
    progress: Progress,
) -> CopyReport:
    stamps = await source.timestamps(symbol)
    done = skipped = added = replaced = 0
    progress(symbol, done, len(stamps))
    for part in _batches(stamps, batch):
        window = _window(part)
        missing = _other_rows(
            await source.scan(symbol, window), await _points_there(target, symbol, window)
        )
        if len(missing):
            points = await _whole_points(source, symbol, window, missing)
            await runs.replay_for(points)
            new = await target.upsert(points)
            added, replaced = added + new, replaced + len(points) - new
        done += len(part)
        skipped += len(part) - len(missing)
        progress(symbol, done, len(stamps))
    return CopyReport(
        symbol=symbol, points=done, already_there=skipped, added=added, replaced=replaced
    )


def _batches(stamps: Times, size: int) -> Iterator[Times]:
    for first in range(0, len(stamps), size):
        yield stamps[first : first + size]


def _window(stamps: Times) -> Window:
    return Window(int(stamps[0]), int(stamps[-1]) + LONGEST_HORIZON_MS)


async def _points_there(index: VectorIndex, symbol: str, window: Window) -> PointTable | None:
    try:
        return await index.scan(symbol, window)
    except SymbolNotFoundError:
        return None


def _other_rows(points: PointTable, there: PointTable | None) -> Times:
    """The times of points that the target lacks, or has from another run."""
    if there is None or not len(there):
        return points.timestamp_ms
    at = np.searchsorted(there.timestamp_ms, points.timestamp_ms)
    at = np.minimum(at, len(there) - 1)
    same = (there.timestamp_ms[at] == points.timestamp_ms) & (there.run[at] == points.run)
    missing: Times = points.timestamp_ms[~same]
    return missing


async def _whole_points(
    index: VectorIndex, symbol: str, window: Window, stamps: Times
) -> PointTable:
    """The points of these times within a window, with just the vectors that are stored."""
    names = index.collection.dimensions
    points = await index.scan(symbol, window, names)
    vectors = {name: points.vectors[name] for name in names}
    return replace(points, vectors=vectors).take(np.isin(points.timestamp_ms, stamps))


async def _symbol_problems(
    source: VectorIndex,
    target: VectorIndex,
    ours: SymbolPoints,
    theirs: SymbolPoints | None,
    samples: list[slice],
) -> list[str]:
    if theirs is None:
        return [f"all of its {ours.points} points are missing"]
    if told := _other_extent(ours, theirs):
        return told
    stamps = await source.timestamps(ours.symbol)
    if not np.array_equal(stamps, await target.timestamps(ours.symbol)):
        return ["its points are of other times"]
    return [
        f"points from {iso8601(int(part[0]))} to {iso8601(int(part[-1]))} differ"
        for part in (stamps[rows] for rows in samples)
        if await _checksum(source, ours.symbol, part) != await _checksum(target, ours.symbol, part)
    ]


def _other_extent(ours: SymbolPoints, theirs: SymbolPoints) -> list[str]:
    told = []
    if ours.points != theirs.points:
        told.append(f"it has {theirs.points} points, not {ours.points}")
    for name in ("first", "last"):
        at, wanted = (getattr(of, f"{name}_timestamp_ms") for of in (theirs, ours))
        if at != wanted:
            told.append(f"its {name} point is of {iso8601(at)}, not of {iso8601(wanted)}")
    return told


def _sampled(points: int, windows: int, chances: random.Random) -> list[slice]:
    """Stretches of rows; the first and the last of all are always among them."""
    last = max(0, points - _WINDOW_POINTS)
    starts = {0, last, *(chances.randint(0, last) for _ in range(max(0, windows - 2)))}
    return [slice(start, start + _WINDOW_POINTS) for start in sorted(starts)]


async def _checksum(index: VectorIndex, symbol: str, stamps: Times) -> str:
    """Of everything stored of some points, byte by byte."""
    points = await _whole_points(index, symbol, _window(stamps), stamps)
    arrays: list[npt.NDArray[np.generic]] = [points.timestamp_ms, points.values, points.run]
    arrays += [points.vectors[name] for name in sorted(points.vectors)]
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
