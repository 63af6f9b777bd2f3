"""The numbers behind the evidence of many queries about one symbol, all at once.

They are bit for bit those of each query by itself: both are computed by the same functions, which
take one query or many.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence

import numpy as np

from llm_trader.arrays import Floats, Rows
from llm_trader.retrieval.evidence import EpisodeNumbers, Neighbourhood, Prospect
from llm_trader.retrieval.forecast import NEIGHBOURS, mix
from llm_trader.retrieval.shared_windows import SharedBases, SharedWindows
from llm_trader.retrieval.verdict import compare_neighbours

Pause = Callable[[], Awaitable[None]]


async def shared_prospects(
    shared: SharedWindows, neighbours: Sequence[Neighbourhood], pause: Pause
) -> list[Prospect | None]:
    """What the neighbours of each query say; None where its window is not a shared one.

    `pause` is awaited between steps of a few milliseconds.
    """
    prospects: list[Prospect | None] = [None] * len(neighbours)
    for numbers in _alike(shared, neighbours):
        members = [neighbours[number] for number in numbers]
        found = await _prospects(shared, members, pause)
        for number, prospect in zip(numbers, found, strict=True):
            prospects[number] = prospect
    return prospects


def shared_episodes(
    shared: SharedWindows, episodes: Sequence[Neighbourhood], volatility_pct: Sequence[float]
) -> list[EpisodeNumbers | None]:
    """The numbers of the episodes of each query, whose volatilities over 24h are known or NaN."""
    results: list[EpisodeNumbers | None] = [None] * len(episodes)
    for numbers in _alike(shared, episodes):
        members = [episodes[number] for number in numbers]
        first = np.array([shared.first_row(member.points) for member in members])
        rows = np.array([member.rows for member in members]) + first[:, None]
        similarity = np.array([member.similarity for member in members])
        current = np.array([volatility_pct[number] for number in numbers])
        for number, result in zip(
            numbers, EpisodeNumbers.of(shared.table, rows, similarity, current), strict=True
        ):
            results[number] = result
    return results


def _alike(shared: SharedWindows, members: Sequence[Neighbourhood]) -> Iterator[list[int]]:
    """The numbers of those in shared windows, together those of which as many were found."""
    groups: dict[int, list[int]] = defaultdict(list)
    for number, member in enumerate(members):
        if len(member.rows) and shared.holds(member.points):
            groups[len(member.rows)].append(number)
    yield from groups.values()


async def _prospects(
    shared: SharedWindows, members: Sequence[Neighbourhood], pause: Pause
) -> list[Prospect]:
    bases = SharedBases(shared, [member.points for member in members])
    rows = bases.table_rows(np.array([member.rows for member in members]))
    await pause()
    relative, horizons = shared.relative, np.arange(len(shared.relative.values))[:, None, None]
    places: Rows = relative.place[:, rows].astype(np.intp)
    outcomes: Floats = relative.ascending[horizons, places]
    sizes = shared.size_numbers[horizons, places]
    places.sort(axis=2)
    ascending: Floats = relative.ascending[horizons, places]
    times_ms = shared.table.timestamp_ms[rows]
    numbers = bases.numbers
    await pause()
    comparisons = compare_neighbours(numbers, outcomes, ascending, sizes, times_ms)
    await pause()
    counts_up_to = bases.counts_up_to(places) if rows.shape[1] >= NEIGHBOURS else None
    mixtures = mix(bases, ascending, counts_up_to)
    return [Prospect(*pair) for pair in zip(mixtures, comparisons, strict=True)]
