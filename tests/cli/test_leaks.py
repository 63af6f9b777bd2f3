"""`llm-trader leak-check`: its exit codes, and what it shows."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.index.points import COLUMN_ROW
from llm_trader.timeframe import iso8601
from tests.cli.conftest import Typing
from tests.cli.corridor import POINTS, SYMBOL, WARM_MS, Corridor, copied
from tests.index.builders import ALWAYS

CHECK = f"llm-trader leak-check --symbols {SYMBOL} --samples 2 --seed 1"


async def tamper(path: Path) -> None:
    with EmbeddedIndex.open(path) as index:
        collection, points = index.collection, await index.scan(SYMBOL, ALWAYS)
    values = points.values.copy()
    values[COLUMN_ROW["outcome_1h"]] *= 1.01
    with EmbeddedIndex.create_or_open(path, collection) as index:
        await index.upsert(replace(points, values=values))


def test_a_sound_index_is_exit_code_zero(typed: Typing, corridor: Corridor) -> None:
    paths = f"--store {corridor.store} --index {corridor.index}"
    ran = typed(f"{CHECK} {paths}")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("2 queries, ")
    first, second = ran.out.splitlines()
    assert first.endswith("checked: no leak")
    points = f"{POINTS} outcomes and 960 states"
    assert second == f"{points} compared with the market data of now: all the same"
    report = typed(f"{CHECK} {paths} --json").json
    assert (report["queries"], report["leaks"]) == (2, [])
    assert f"{report['matches_checked']} matches" in ran.out


def test_leaks_are_exit_code_one_and_named(
    typed: Typing, corridor: Corridor, tmp_path: Path
) -> None:
    index = copied(corridor.index, tmp_path / "index")
    asyncio.run(tamper(index))
    ran = typed(f"{CHECK} --store {corridor.store} --index {index}")
    report = typed(f"{CHECK} --store {corridor.store} --index {index} --json")
    assert (ran.code, report.code) == (1, 1)
    leaks = report.json["leaks"]
    assert len(leaks) == report.json["matches_checked"] > 20
    first, last = ran.out.splitlines()[1], ran.out.splitlines()[-1]
    assert f"{len(leaks)} LEAKS" in ran.out
    assert first.startswith(f"  {SYMBOL} at {leaks[0]['query_at']}, match of")
    assert f"match of {leaks[0]['match_at']}: {leaks[0]['problem']}" in first
    assert f"  and {len(leaks) - 20} more; all are in --json" in ran.out.splitlines()
    assert f"{POINTS} DIFFER" in ran.out
    assert ": outcome_1h is " in ran.out
    assert last == f"  make them again with: rag-ingest --rebuild --start {iso8601(WARM_MS)}"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("--index /nowhere/index", "there is no index at /nowhere/index"),
        ("--store /nowhere/store", "no market store at /nowhere/store"),
        ("--symbols DOGEUSDT", "no data for symbol 'DOGEUSDT'; available: BTCUSDT, ETHUSDT"),
    ],
)
def test_what_cannot_be_checked_is_exit_code_two(
    typed: Typing, corridor: Corridor, arguments: str, told: str
) -> None:
    ran = typed(f"{CHECK} --store {corridor.store} --index {corridor.index} {arguments}")
    assert (ran.code, ran.out) == (2, "")
    assert told in ran.err
