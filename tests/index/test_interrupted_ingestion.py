"""Ingestion is killed again and again, and nothing is lost, doubled or half written."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.index.points import STATE, PointTable
from llm_trader.index.protocol import SearchQuery
from llm_trader.timeframe import DAY_MS
from tests.index.builders import ALWAYS, SLOT_MS, START_MS, SYMBOL, found, same_content, stored
from tests.index.markets import COLLECTION, ingested, ingestion_program, make_store, market
from tests.market.processes import hear, running, tell

# Batches of a day are cut at midnight, so each holds this many points.
PER_DAY = DAY_MS // SLOT_MS

INGESTION = ingestion_program("added")


async def uninterrupted(store_path: Path, path: Path) -> PointTable:
    with EmbeddedIndex.create_or_open(path, COLLECTION) as index:
        await ingested(store_path, index)
        return await stored(index)


async def check_consistent(reader: EmbeddedIndex, whole: PointTable) -> int:
    """That a reader sees the first days of the whole, and finds in them; how many points."""
    stamps = await reader.timestamps(SYMBOL)
    n = len(stamps)
    if n:
        seen = await stored(reader)
        assert same_content(seen, whole.take(slice(0, n)))
        hits = await reader.search(SearchQuery(SYMBOL, ALWAYS, whole.vectors[STATE][n // 2], 3))
        assert hits.eligible == n
        assert found(hits).timestamp_ms[0] == stamps[n // 2]
    assert n % PER_DAY == 0, "a batch is written as a whole or not at all"
    return n


@pytest.mark.parametrize("kills", [1, pytest.param(4, marks=pytest.mark.soak)])
async def test_killed_at_random_moments_ingestion_ends_as_if_it_had_never_been(
    tmp_path: Path, kills: int
) -> None:
    rng = random.Random(1)
    store_path = make_store(tmp_path / "store", market())
    whole = await uninterrupted(store_path, tmp_path / "whole")
    path = tmp_path / "index"
    EmbeddedIndex.create_or_open(path, COLLECTION).close()

    with EmbeddedIndex.open(path) as reader:
        seen = [0]
        for _ in range(kills):
            with running(INGESTION, store_path, path) as process:
                for _ in range(rng.randint(2, 3)):
                    assert hear(process).startswith(SYMBOL)
                    assert await check_consistent(reader, whole) >= seen[-1]
                    tell(process)
                # It is at work on its next batch now, or has just written it.
                time.sleep(rng.uniform(0, 0.04))  # noqa: ASYNC251
                process.send_signal(signal.SIGKILL)
                assert process.wait() == -signal.SIGKILL
            seen.append(await check_consistent(reader, whole))
        assert seen == sorted(seen)
        assert 0 < seen[-1] < len(whole)

        with running(INGESTION, store_path, path) as process:
            lines = process.communicate()[0].splitlines()
            assert process.returncode == 0
        # LMDB writes a transaction's last page before its number, which readers go by: a batch
        # killed in between is there, and shows with the next writer.
        missing = len(whole) - seen[-1]
        assert lines[-1] in (f"added {missing}", f"added {missing - PER_DAY}")
        assert same_content(await stored(reader), whole)
        info = await reader.info()
        assert [run.run for run in info.runs] == list(range(1, kills + 2))
        assert (await stored(reader)).run[-1] == kills + 1
    with EmbeddedIndex.open(path) as fresh:
        assert same_content(await stored(fresh), whole)
        assert (await fresh.info()).symbols[0].points == len(whole)
    assert whole.timestamp_ms[0] == START_MS + 20 * DAY_MS
    assert (np.diff(whole.timestamp_ms) == SLOT_MS).all()
