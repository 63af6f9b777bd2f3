"""Whether an index is a true copy of another: runs, times, and samples to the last bit."""

from __future__ import annotations

import random
from typing import Final

import msgspec
import numpy as np

from llm_trader.arrays import Times
from llm_trader.index.migration import points_with_vectors, run_differences
from llm_trader.index.protocol import SymbolPoints, VectorIndex
from llm_trader.timeframe import iso8601

# 0.6 MB with state vectors alone: half proves less, and double holds up the event loop longer.
_WINDOW_POINTS: Final = 1024
_RANDOM_WINDOWS: Final = 6  # with the first and the last, almost a quarter of a year's states


class CopyProblem(msgspec.Struct, frozen=True):
    """A way in which a copy differs from its source; no symbol where it concerns the whole."""

    symbol: str | None
    problem: str


async def verify_copy(
    source: VectorIndex, target: VectorIndex, *, seed: int = 0
) -> list[CopyProblem]:
    """How `target` differs from `source`; nothing if it is a true copy.

    Compares the runs, and of each symbol the number of points and all their times; of some
    stretches of a thousand points every value and every vector to the last bit.
    """
    original, copied = await source.info(), await target.info()
    problems = [CopyProblem(None, words) for words in run_differences(original, copied)]
    copied_symbols = {record.symbol: record for record in copied.symbols}
    foreign = copied_symbols.keys() - {record.symbol for record in original.symbols}
    problems += [CopyProblem(symbol, "is not in the source") for symbol in sorted(foreign)]
    rng = random.Random(seed)
    for record in original.symbols:
        rows = _sampled_rows(record.points, rng)
        if (copied_record := copied_symbols.get(record.symbol)) is None:
            differences = [f"all of its {record.points} points are missing"]
        else:
            differences = _extent_differences(record, copied_record)
            if not differences:
                differences = await _content_differences(source, target, record.symbol, rows)
        problems += [CopyProblem(record.symbol, words) for words in differences]
    return problems


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


async def _content_differences(
    source: VectorIndex, target: VectorIndex, symbol: str, samples: list[slice]
) -> list[str]:
    stamps = await source.timestamps(symbol)
    if not np.array_equal(stamps, await target.timestamps(symbol)):
        return ["its points are of other times"]
    return [
        f"points from {iso8601(int(part[0]))} to {iso8601(int(part[-1]))} differ"
        for part in (stamps[rows] for rows in samples)
        if await _content(source, symbol, part) != await _content(target, symbol, part)
    ]


def _sampled_rows(points: int, rng: random.Random) -> list[slice]:
    """Random stretches of rows, and always the first and the last rows."""
    last = max(0, points - _WINDOW_POINTS)
    starts = {0, last, *(rng.randint(0, last) for _ in range(_RANDOM_WINDOWS))}
    return [slice(start, start + _WINDOW_POINTS) for start in sorted(starts)]


async def _content(index: VectorIndex, symbol: str, stamps: Times) -> list[bytes]:
    """All that is stored of some points; bytes, as 0.0 and -0.0 are equal numbers."""
    points = await points_with_vectors(index, symbol, stamps)
    vectors = [points.vectors[name].tobytes() for name in sorted(points.vectors)]
    return [points.timestamp_ms.tobytes(), points.values.tobytes(), points.run.tobytes(), *vectors]
