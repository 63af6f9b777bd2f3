"""Damage to the files of a store or an index never gives a wrong answer or a silent death."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.market.simulation import simulate
from llm_trader.market.store import MarketStore
from tests.index.builders import collection, points_at
from tests.market.builders import START_MS
from tests.storage.damage import INDEX_READER, STORE_READER, trials


async def make_index(path: Path) -> Path:
    with EmbeddedIndex.create_or_open(path, collection()) as index:
        await index.begin_run("tests", "bybit", "2026-03-20T12:00:00Z")
        for batch in range(8):
            await index.upsert(points_at(range(batch * 100, batch * 100 + 100), batch))
        await index.upsert(points_at(range(350, 450), 9))
        await index.upsert(points_at(range(300), 10, symbol="ETHUSDT"))
    return path


def make_store(path: Path) -> Path:
    with MarketStore.open(path, write=True, exchange="simulated") as store:
        for seed, symbol in enumerate(("BTCUSDT", "ETHUSDT")):
            market = simulate(symbol, start_ms=START_MS, days=6, seed=seed)
            for series in (market.intraday, market.four_hour, market.funding):
                store.write(symbol, series, "tests", written_at_ms=1)
            interval_ms = market.open_interest_interval_ms
            store.write(
                symbol, market.open_interest, "tests", written_at_ms=1, interval_ms=interval_ms
            )
    return path


@pytest.fixture(params=["index", "store"])
def original(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    if request.param == "index":
        return asyncio.run(make_index(tmp_path / "index")), INDEX_READER
    return make_store(tmp_path / "store"), STORE_READER


def refuse_wrong_answers(
    original: tuple[Path, str], scratch: Path, count: int, seed: int, remedy: str
) -> None:
    folder, reader = original
    answers = trials(folder, scratch, reader, count, seed)
    sound = next(answers).answer
    assert len(sound) == 64
    refused = 0
    for damage, answer in answers:
        assert answer, f"{damage}: the process died"
        if answer != sound:
            assert answer.startswith("refused:"), f"{damage}: a wrong answer"
            assert remedy in answer or "restore a backup" in answer or "again" in answer, answer
            refused += 1
    assert refused > count / 2


def test_damage_in_twenty_trials_is_refused_or_does_no_harm(
    original: tuple[Path, str], tmp_path: Path
) -> None:
    refuse_wrong_answers(original, tmp_path, 20, 1, "llm-trader index rebuild")


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_damage_in_five_hundred_trials_is_refused_or_does_no_harm(
    original: tuple[Path, str], tmp_path: Path
) -> None:
    refuse_wrong_answers(original, tmp_path, 500, 2, "llm-trader index rebuild")
