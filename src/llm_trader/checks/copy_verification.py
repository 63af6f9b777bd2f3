"""Whether an index is a true copy of another: runs, times, and samples to the last bit."""

from __future__ import annotations

import hashlib
import random
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from llm_trader.arrays import Times
from llm_trader.index.migration import points_with_vectors, run_differences
from llm_trader.index.protocol import SymbolPoints, VectorIndex
from llm_trader.timeframe import iso8601

# 0.6 MB with state vectors alone: half proves less, and double holds up the event loop longer.
_WINDOW_POINTS: Final = 1024


class CopyProblem(msgspec.Struct, frozen=True):
    """A way in which a copy differs from its source; no symbol where it concerns the whole."""

    symbol: str | None
    problem: str


async def verify_copy(
    source: VectorIndex, target: VectorIndex, *, windows: int = 8, seed: int = 0
) -> list[CopyProblem]:
    """How `target` differs from `source`; nothing if it is a true copy.

    Compares the runs, and of each symbol the number of points and all their times; of `windows`
    random stretches of a thousand points every value and every vector to the last bit.
    """
    original, copied = await source.info(), await target.info()
    problems = [CopyProblem(None, words) for words in run_differences(original, copied)]
    copied_symbols = {record.symbol: record for record in copied.symbols}
    foreign = copied_symbols.keys() - {record.symbol for record in original.symbols}
    problems += [CopyProblem(symbol, "is not in the source") for symbol in sorted(foreign)]
    rng = random.Random(seed)
    for record in original.symbols:
        samples = _sampled_rows(record.points, windows, rng)
        differences = await _symbol_differences(
            source, target, record, copied_symbols.get(record.symbol), samples
        )
        problems += [CopyProblem(record.symbol, words) for words in differences]
    return problems


async def _symbol_differences(
    source: VectorIndex,
    target: VectorIndex,
    original: SymbolPoints,
    copied: SymbolPoints | None,
    samples: list[slice],
) -> list[str]:
    if copied is None:
        return [f"all of its {original.points} points are missing"]
    if differences := _extent_differences(original, copied):
        return differences
    symbol = original.symbol
    stamps = await source.timestamps(symbol)
    if not np.array_equal(stamps, await target.timestamps(symbol)):
        return ["its points are of other times"]
    return [
        f"points from {iso8601(int(part[0]))} to {iso8601(int(part[-1]))} differ"
        for part in (stamps[rows] for rows in samples)
        if await _checksum(source, symbol, part) != await _checksum(target, symbol, part)
    ]


def _extent_differences(original: SymbolPoints, copied: SymbolPoints) -> list[str]:
    differences = []
    if original.points != copied.points:
        differences.append(f"it has {copied.points} points, not {original.points}")
    for name in ("first", "last"):
        stamp, expected = (getattr(r, f"{name}_timestamp_ms") for r in (copied, original))
        if stamp != expected:
            differences.append(
                f"its {name} point is of {iso8601(stamp)}, not of {iso8601(expected)}"
            )
    return differences


def _sampled_rows(points: int, windows: int, rng: random.Random) -> list[slice]:
    """Stretches of rows; the first and the last of all are always among them."""
    last = max(0, points - _WINDOW_POINTS)
    starts = {0, last, *(rng.randint(0, last) for _ in range(max(0, windows - 2)))}
    return [slice(start, start + _WINDOW_POINTS) for start in sorted(starts)]


async def _checksum(index: VectorIndex, symbol: str, stamps: Times) -> str:
    """SHA-256 over all that is stored of some points."""
    points = await points_with_vectors(index, symbol, stamps)
    arrays: list[npt.NDArray[np.generic]] = [points.timestamp_ms, points.values, points.run]
    arrays += [points.vectors[name] for name in sorted(points.vectors)]
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
