"""A copy is compared with its source: every difference within the samples is found and named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llm_trader.checks.copy_verification import CopyProblem, verify_copy
from llm_trader.index.migration import copy_points
from llm_trader.index.points import COLUMN_ROW, STATE, PointTable
from tests.index.builders import SYMBOL, points_at, stored
from tests.index.copies import OTHER, POINTS, RUNS, empty, filled


def altered(points: PointTable, row: int) -> PointTable:
    values = points.values.copy()
    values[COLUMN_ROW["rsi_7"], row] = np.nextafter(values[COLUMN_ROW["rsi_7"], row], 1e9)
    return replace(points, values=values)


def turned(points: PointTable, row: int) -> PointTable:
    vectors = points.vectors[STATE].copy()
    vectors[row] = -vectors[row]
    return replace(points, vectors={STATE: vectors})


def rerun(points: PointTable, row: int) -> PointTable:
    run = points.run.copy()
    run[row] = 1 if run[row] == 2 else 2
    return replace(points, run=run)


@pytest.mark.parametrize("tamper", [altered, turned, rerun])
async def test_one_other_bit_within_the_samples_is_found(tmp_path: Path, tamper: object) -> None:
    async with filled(tmp_path / "source") as source:
        with empty(tmp_path / "target") as target:
            await copy_points(source, target, [], 100)
            points = await stored(source)
            await target.upsert(tamper(points, 123))  # type: ignore[operator]
            (problem,) = await verify_copy(source, target)
            assert problem == CopyProblem(
                SYMBOL, "points from 2024-01-01T00:00:00Z to 2024-01-05T03:45:00Z differ"
            )


async def test_missing_and_foreign_points_are_told_by_symbol(tmp_path: Path) -> None:
    async with filled(tmp_path / "source") as source:
        with empty(tmp_path / "target") as target:
            for run in RUNS[:2]:
                await target.begin_run(*run)
            await target.upsert(points_at([0, 2, 4, POINTS + 7], 1))
            await target.upsert(points_at([5], 1, symbol="SOLUSDT"))
            await target.upsert(points_at([*range(48), 48 + 1, 50], 4, run=2, symbol=OTHER))
            assert await verify_copy(source, target) == [
                CopyProblem(None, "it has 2 runs, not 3"),
                CopyProblem("SOLUSDT", "is not in the source"),
                CopyProblem(SYMBOL, f"it has 4 points, not {POINTS}"),
                CopyProblem(
                    SYMBOL,
                    "its last point is of 2024-01-05T05:45:00Z, not of 2024-01-05T03:45:00Z",
                ),
                CopyProblem(
                    OTHER,
                    "its last point is of 2024-01-01T12:30:00Z, not of 2024-01-01T12:15:00Z",
                ),
            ]


async def test_points_of_other_times_between_equal_ends_are_found(tmp_path: Path) -> None:
    with empty(tmp_path / "a") as source, empty(tmp_path / "b") as target:
        await source.upsert(points_at([0, 1, 5]))
        await target.upsert(points_at([0, 2, 5]))
        assert await verify_copy(source, target) == [
            CopyProblem(SYMBOL, "its points are of other times")
        ]
