"""`llm-trader data prune`: what is old leaves store and index, and the rest stays to the bit."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from llm_trader.cli import options
from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.index.points import STATE, PointTable
from llm_trader.market.simulation import simulate
from llm_trader.market.store import MarketStore
from llm_trader.timeframe import DAY_MS, HOUR_MS, M5, iso8601
from tests.cli.conftest import Typing
from tests.cli.corridor import START_MS, SYMBOL, copied, write
from tests.index.builders import ALWAYS, same_points
from tests.market.processes import hear, running

DAYS, KEPT = 100, 62
END_MS = START_MS + DAYS * DAY_MS
CUT_MS = END_MS - (KEPT + 1) * DAY_MS  # the newest row is of the day before the end
NOW_MS = END_MS + 500 * DAY_MS  # the clock alone does not make data old

HOLDER = """
from llm_trader.storage.writer_lock import WriterLock
lock = WriterLock(path)
say("held")
wait()
"""


@pytest.fixture(autouse=True)
def _much_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "now_ms", lambda: NOW_MS)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 100 days and its index."""
    from llm_trader.app.ingestion import ingest_from_store
    from llm_trader.app.job import Job
    from llm_trader.settings.loading import load_settings

    folder = tmp_path_factory.mktemp("prune")
    with MarketStore.open(folder / "store", write=True, exchange="simulated") as store:
        write(store, simulate(SYMBOL, start_ms=START_MS, days=DAYS, seed=4, timeframe=M5))
    flags = {"market.store": folder / "store", "index.path": folder / "index"}
    settings = load_settings(environ={}, overrides=flags)
    ingest_from_store(Job(settings, {}, END_MS), [], START_MS, END_MS)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    for name in ("store", "index"):
        copied(made / name, tmp_path / name)
    return tmp_path


def points_of(path: Path) -> PointTable:
    async def scanned() -> PointTable:
        with EmbeddedIndex.open(path) as index:
            return await index.scan(SYMBOL, ALWAYS, [STATE])

    return asyncio.run(scanned())


def paths(folder: Path) -> str:
    return f"--store {folder / 'store'} --index {folder / 'index'}"


@pytest.mark.soak
def test_what_is_old_goes_and_what_stays_is_the_same_to_the_bit(
    typed: Typing, folder: Path
) -> None:
    before = points_of(folder / "index")
    line = f"llm-trader data prune --keep-days {KEPT} {paths(folder)}"
    planned = typed(f"{line} --dry-run --json")
    assert planned.code == 0
    assert same_points(points_of(folder / "index"), before)
    pruned = typed(f"{line} --json")
    assert pruned.json == planned.json | {"dry_run": False}
    old = before.timestamp_ms <= CUT_MS
    assert pruned.json["points"] == {SYMBOL: int(old.sum())}
    assert pruned.json["cut"] == iso8601(CUT_MS)
    kept = before.take(~old)
    assert same_points(points_of(folder / "index"), kept)
    assert typed(f"llm-trader data check --deep --store {folder / 'store'}").code == 0

    # States whose warm-up is gone are neither made again nor removed.
    again = typed(f"rag-ingest {paths(folder)} --json").json[0]
    assert (again["added"], again["remade"], again["removed"]) == (0, 0, {})
    rebuilt = typed(f"rag-ingest --rebuild --start {DAYS} {paths(folder)} --json").json[0]
    assert rebuilt["removed"] == {}
    values = points_of(folder / "index").values
    assert values.tobytes() == kept.values.tobytes()
    checked = typed(f"llm-trader leak-check --samples 20 {paths(folder)} --json")
    assert checked.code == 0
    assert checked.json["stored"]["without_candles"] == 0
    assert checked.json["stored"]["states_compared"] > 0


def test_a_correction_reaches_the_states_whose_data_is_whole_and_removes_none(
    typed: Typing, folder: Path
) -> None:
    typed(f"llm-trader data prune --keep-days {KEPT} {paths(folder)}")
    with MarketStore.open(folder / "store", write=True) as store:
        for start_ms in (CUT_MS, END_MS - 2 * DAY_MS):
            candles = store.candles(SYMBOL, M5, start_ms, start_ms + HOUR_MS)
            louder = replace(candles, volume=candles.volume + 1)
            store.write(SYMBOL, louder, "correction", written_at_ms=NOW_MS)
    report = typed(f"rag-ingest {paths(folder)} --json").json[0]
    assert report["remade"] > 0
    assert report["removed"] == {}


def test_a_person_reads_what_would_go_and_that_nothing_is_left_to_do(
    typed: Typing, folder: Path
) -> None:
    line = f"llm-trader data prune --keep-days {KEPT} {paths(folder)}"
    planned = typed(f"{line} --dry-run").out
    assert "Would be removed: what is older than" in planned
    assert f"{SYMBOL}: 1633 states would be removed from" in planned
    assert "Removed: what is older than" in typed(line).out
    assert "nothing is older than" in typed(line).out
    assert "nothing is older than" in typed(f"llm-trader data prune {paths(folder)}").out


def test_who_writes_to_the_index_removes_its_old_states(typed: Typing, folder: Path) -> None:
    before = points_of(folder / "index")
    with running(HOLDER, folder / "index") as holder:
        assert hear(holder) == "held"
        pruned = typed(f"llm-trader data prune --keep-days {KEPT} {paths(folder)} --json")
    assert pruned.code == 0
    assert "is writing to" in pruned.json["index_note"]
    with MarketStore.open(folder / "store") as store:
        assert store.rows_before(CUT_MS) == []
    assert same_points(points_of(folder / "index"), before)
    old = before.timestamp_ms <= CUT_MS
    report = typed(f"rag-ingest {paths(folder)} --json").json[0]
    assert report["removed"] == {"older than the data that the store keeps": int(old.sum())}
    assert (report["added"], report["remade"]) == (0, 0)
    assert same_points(points_of(folder / "index"), before.take(~old))


def test_an_index_that_is_named_and_missing_is_refused_before_anything_goes(
    typed: Typing, folder: Path
) -> None:
    named = f"--store {folder / 'store'} --index {folder / 'none'}"
    refused = typed(f"llm-trader data prune --keep-days {KEPT} {named}")
    assert refused.code == 2
    assert "there is no index at" in refused.err
    with MarketStore.open(folder / "store") as store:
        assert len(store.rows_before(CUT_MS)) == 4


def test_data_that_is_imported_again_gives_its_states_back(typed: Typing, folder: Path) -> None:
    before = points_of(folder / "index")
    typed(f"llm-trader data prune --keep-days {KEPT} {paths(folder)}")
    with MarketStore.open(folder / "store", write=True) as store:
        write(store, simulate(SYMBOL, start_ms=START_MS, days=DAYS, seed=4, timeframe=M5))
    line = f"rag-ingest --start {DAYS} {paths(folder)} --json"
    assert typed(line).json[0]["removed"] == {}
    assert points_of(folder / "index").values.tobytes() == before.values.tobytes()
    again = typed(line).json[0]
    assert (again["added"], again["remade"], again["removed"]) == (0, 0, {})
