"""All points of one index into another, with their vectors and the runs that wrote them.

Copying compares both sides batch by batch and writes what differs. A copy that was killed resumes
where it stopped, a repeated one adds what is new, and nothing is lost or doubled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from llm_trader.arrays import Times
from llm_trader.errors import ConfigurationError, SymbolNotFoundError, VectorIndexError
from llm_trader.index.asof import Window
from llm_trader.index.points import PointTable
from llm_trader.index.protocol import IndexInfo, IngestionRun, VectorIndex
from llm_trader.progress import Progress, no_progress
from llm_trader.snapshot.outcome import LONGEST_HORIZON_MS


class CopyReport(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of a symbol's points: each of `points` is in one of the next three.

    `removed` are those that the target had and the source no longer has.
    """

    symbol: str
    points: int
    already_there: int
    added: int
    replaced: int
    removed: int


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
    available = [record.symbol for record in (await source.info()).symbols]
    for symbol in symbols:
        if symbol not in available:
            raise SymbolNotFoundError(symbol, available)
    copying = _Copying(source, target, batch, progress)
    await copying.replay_runs()
    return [await copying.copy(symbol) for symbol in symbols or available]


def run_differences(source: IndexInfo, target: IndexInfo) -> list[str]:
    """The first run of the target that differs from the source's, in words."""
    for source_run, target_run in zip(source.runs, target.runs, strict=False):
        if source_run != target_run:
            return [f"run {source_run.run} is {_words(target_run)}, not {_words(source_run)}"]
    if len(source.runs) != len(target.runs):
        return [f"it has {len(target.runs)} runs, not {len(source.runs)}"]
    return []


async def points_with_vectors(index: VectorIndex, symbol: str, stamps: Times) -> PointTable:
    """The points of these times, increasing, with exactly the vectors that are stored."""
    names = index.collection.dimensions
    points = await index.scan(symbol, _window(stamps), names)
    vectors = {name: points.vectors[name] for name in names}
    return replace(points, vectors=vectors).take(np.isin(points.timestamp_ms, stamps))


@dataclass(slots=True)
class _Copying:
    source: VectorIndex
    target: VectorIndex
    batch: int
    progress: Progress
    replayed_runs: int = 0

    async def replay_runs(self) -> None:
        """Register the source's runs at the target in the same order with the same numbers."""
        source, target = await self.source.info(), await self.target.info()
        differences = target.collection.differences(source.collection)
        if not differences and target.runs != source.runs[: len(target.runs)]:
            differences = run_differences(source, target)
        if differences:
            raise ConfigurationError(
                f"{target.location} is no copy of {source.location}: {'; '.join(differences)}; "
                "copy into one that is new and empty"
            )
        for run in source.runs[len(target.runs) :]:
            number = await self.target.begin_run(run.build_id, run.exchange, run.started_at)
            if number != run.run:
                raise VectorIndexError(
                    f"{target.location} gave run {run.run} the number {number}: something else "
                    "writes to it; stop that, and copy into a new and empty one"
                )
        self.replayed_runs = len(source.runs)

    async def copy(self, symbol: str) -> CopyReport:
        mark = await self.source.data_mark(symbol)  # before the points, which are as new at least
        stamps = await self.source.timestamps(symbol)
        skipped = added = replaced = 0
        self.progress(symbol, 0, len(stamps))
        for first in range(0, len(stamps), self.batch):
            part = stamps[first : first + self.batch]
            missing = await self._missing(symbol, part)
            if len(missing):
                points = await points_with_vectors(self.source, symbol, missing)
                # Runs may have begun at the source since; their points must not come before them.
                if len(points) and int(points.run.max()) > self.replayed_runs:
                    await self.replay_runs()
                new = await self.target.upsert(points)
                added, replaced = added + new, replaced + len(points) - new
            skipped += len(part) - len(missing)
            self.progress(symbol, first + len(part), len(stamps))
        surplus = np.setdiff1d(await self.target.timestamps(symbol), stamps)
        removed = await self.target.remove(symbol, surplus) if len(surplus) else 0
        if mark is not None:
            await self.target.set_data_mark(symbol, mark)
        return CopyReport(
            symbol=symbol,
            points=len(stamps),
            already_there=skipped,
            added=added,
            replaced=replaced,
            removed=removed,
        )

    async def _missing(self, symbol: str, stamps: Times) -> Times:
        """The times of points that the target lacks, or has from another run."""
        points = await self.source.scan(symbol, _window(stamps))
        try:
            copied = await self.target.scan(symbol, _window(stamps))
        except SymbolNotFoundError:
            return points.timestamp_ms
        # By run as well: a later run may have replaced points that were copied before.
        run_of = dict(zip(copied.timestamp_ms.tolist(), copied.run.tolist(), strict=True))
        rows = zip(points.timestamp_ms.tolist(), points.run.tolist(), strict=True)
        return np.array([stamp for stamp, run in rows if run_of.get(stamp) != run], np.int64)


def _words(run: IngestionRun) -> str:
    return f"{run.build_id} of {run.exchange} at {run.started_at}"


def _window(stamps: Times) -> Window:
    return Window(int(stamps[0]), int(stamps[-1]) + LONGEST_HORIZON_MS)
