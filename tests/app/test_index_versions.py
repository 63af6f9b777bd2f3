"""Rebuilding, pruning and describing an index, as the commands do."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from llm_trader.app.index_checks import check_index_for_leaks
from llm_trader.app.index_versions import index_state, prune_index, rebuild_index
from llm_trader.app.job import Job
from llm_trader.errors import (
    ConfigurationError,
    OutdatedIndexError,
    SymbolNotFoundError,
    VectorIndexError,
)
from llm_trader.index.embedded import FORMAT, EmbeddedIndex
from llm_trader.index.points import PointTable
from llm_trader.market.store import MarketStore
from llm_trader.settings.tree import Settings
from llm_trader.storage.environment import Environment
from llm_trader.volatility.model import BUILT_IN, write_model
from tests.cli.corridor import END_MS, SYMBOL, SYMBOLS, Corridor, copied, write
from tests.index.builders import same_content, stored


def everything(index: Path) -> list[PointTable]:
    with EmbeddedIndex.open(index) as opened:
        return [asyncio.run(stored(opened, symbol)) for symbol in SYMBOLS]


def rebuild(settings: Settings) -> None:
    rebuild_index(Job(settings, {}, END_MS))


def test_a_rebuilt_index_takes_the_place_of_the_live_one_with_the_same_states(
    corridor: Corridor, tmp_path: Path
) -> None:
    index = copied(corridor.index, tmp_path / "index")
    settings = corridor.settings(index__path=index)
    before = everything(index)
    done = rebuild_index(Job(settings, {}, END_MS))
    assert [report.added for report in done.reports] == [len(points) for points in before]
    assert done.before == str(tmp_path / "index.old-1")
    for old, new in zip(before, everything(index), strict=True):
        assert same_content(old, new)
    state = index_state(settings, {})
    assert [(v.name, v.live) for v in state.versions] == [("index.old-1", False), ("index", True)]
    assert state.info.runs[0].started_at == "2025-03-02T00:00:00Z"
    assert prune_index(settings, {}) == ["index.old-1"]
    assert [v.name for v in index_state(settings, {}).versions] == ["index"]


def test_a_store_that_lacks_what_the_live_index_has_leaves_it_live(
    corridor: Corridor, tmp_path: Path
) -> None:
    index = copied(corridor.index, tmp_path / "index")
    with MarketStore.open(tmp_path / "one", write=True, exchange="simulated") as store:
        write(store, corridor.histories[SYMBOL])
    with pytest.raises(SymbolNotFoundError):
        rebuild(corridor.settings(index__path=index, market__store=tmp_path / "one"))
    with MarketStore.open(tmp_path / "short", write=True, exchange="simulated") as store:
        for history in corridor.histories.values():
            write(store, history.known_at(END_MS - 5 * 86_400_000))
    with pytest.raises(VectorIndexError, match="not the newest states of BTCUSDT, so the live"):
        rebuild(corridor.settings(index__path=index, market__store=tmp_path / "short"))
    assert [v.name for v in index_state(corridor.settings(index__path=index), {}).versions] == [
        "index",
        "index.next",
    ]
    assert len(everything(index)[0])


@pytest.mark.soak
def test_what_was_ingested_during_a_rebuild_is_not_lost_by_the_swap(
    corridor: Corridor, tmp_path: Path
) -> None:
    index = copied(corridor.index, tmp_path / "index")
    settings = corridor.settings(index__path=index)

    async def ingest_another() -> None:
        with EmbeddedIndex.open(index) as read:
            points, collection = await stored(read, SYMBOL), read.collection
        with EmbeddedIndex.create_or_open(index, collection) as live:
            await live.upsert(replace(points, symbol="XRPUSDT"))

    def meanwhile(*told: object) -> None:
        with ThreadPoolExecutor() as another:
            another.submit(asyncio.run, ingest_another()).result()

    with pytest.raises(VectorIndexError, match="no state of XRPUSDT, so the live one stays"):
        rebuild_index(Job(settings, {}, END_MS, meanwhile))
    with EmbeddedIndex.open(index) as live:
        assert len(asyncio.run(live.timestamps("XRPUSDT")))


def test_a_rebuild_that_was_killed_between_its_renames_is_repeated(
    corridor: Corridor, tmp_path: Path
) -> None:
    index = copied(corridor.index, tmp_path / "index")
    settings = corridor.settings(index__path=index)
    copied(corridor.index, tmp_path / "index.next")
    index.rename(tmp_path / "index.old-1")
    done = rebuild_index(Job(settings, {}, END_MS))
    assert [report.added for report in done.reports] == [0, 0]
    assert [v.name for v in index_state(settings, {}).versions] == ["index.old-1", "index"]


def test_a_rebuild_begun_with_other_vectors_is_told_with_the_command_that_deletes_it(
    corridor: Corridor, tmp_path: Path
) -> None:
    index = copied(corridor.index, tmp_path / "index")
    settings = corridor.settings(index__path=index)
    with EmbeddedIndex.open(index) as live:
        other = msgspec.structs.replace(live.collection, state_space_id="state-of-before")
    EmbeddedIndex.create_or_open(tmp_path / "index.next", other).close()
    with pytest.raises(ConfigurationError, match=r"state-of-before.*index prune --also-building"):
        rebuild(settings)
    assert prune_index(settings, {}, also_building=True) == ["index.next"]
    rebuild(settings)


def outdated(index: Path) -> None:
    """Describe the index as a version of this program did that knew no expected volatility."""
    with Environment(index, FORMAT, write=True) as environment, environment.write("meta") as txn:
        collection = msgspec.json.decode(txn.get("meta", b"collection") or b"")
        collection["schema_version"] = 1
        del collection["volatility_model"]
        txn.put("meta", b"collection", msgspec.json.encode(collection))


def test_an_index_of_another_version_is_refused_with_the_command_that_builds_it_again(
    corridor: Corridor, tmp_path: Path
) -> None:
    index = copied(corridor.index, tmp_path / "index")
    settings = corridor.settings(index__path=index)
    before = everything(index)
    outdated(index)
    with pytest.raises(OutdatedIndexError, match="build it again with: llm-trader index rebuild"):
        index_state(settings, {})

    rebuild(settings)

    assert all(map(same_content, everything(index), before))
    assert prune_index(settings, {}) == ["index.old-1"]


@pytest.mark.soak
def test_an_unfinished_rebuild_of_another_version_is_told_with_the_command_that_deletes_it(
    corridor: Corridor, tmp_path: Path
) -> None:
    index = copied(corridor.index, tmp_path / "index")
    outdated(copied(corridor.index, tmp_path / "index.next"))
    settings = corridor.settings(index__path=index)
    with pytest.raises(ConfigurationError, match="index prune --also-building"):
        rebuild(settings)
    assert prune_index(settings, {}, also_building=True) == ["index.next"]
    rebuild(settings)


@pytest.mark.soak
def test_an_index_with_another_volatility_model_is_refused_until_it_is_built_again(
    corridor: Corridor, tmp_path: Path
) -> None:
    path = tmp_path / "volatility.json"
    write_model(msgspec.structs.replace(BUILT_IN, hour_factors=(1.0,) * 24), path)
    index = copied(corridor.index, tmp_path / "index")
    settings = corridor.settings(index__path=index, volatility__model=path)
    with pytest.raises(ConfigurationError, match=r"har-254273, the settings name .* rebuild"):
        check_index_for_leaks(Job(settings, {}, END_MS), [SYMBOL], samples=1, seed=0)

    rebuild(settings)

    check_index_for_leaks(Job(settings, {}, END_MS), [SYMBOL], samples=1, seed=0)


def test_text_vectors_are_not_lost_by_a_rebuild_that_was_not_told_of_them(
    corridor: Corridor, tmp_path: Path
) -> None:
    with EmbeddedIndex.open(corridor.index) as index:
        held = index.collection
    worded = msgspec.structs.replace(held, text_space_id="text-0", text_dimension=3)
    with EmbeddedIndex.create_or_open(tmp_path / "index", worded):
        pass
    with pytest.raises(ConfigurationError, match="has text vectors; rebuild it with --text"):
        rebuild(corridor.settings(index__path=tmp_path / "index"))


def test_nothing_is_rebuilt_where_there_is_no_index(corridor: Corridor, tmp_path: Path) -> None:
    with pytest.raises(VectorIndexError, match="there is no index at"):
        rebuild(corridor.settings(index__path=tmp_path / "none"))


def test_qdrant_commands_need_its_address(corridor: Corridor) -> None:
    from llm_trader.app.indexes import qdrant_server

    with pytest.raises(ConfigurationError, match="give --qdrant-url"):
        qdrant_server(corridor.settings(), {})
    named = corridor.settings(
        index__qdrant__url="http://localhost:6333", index__qdrant__api_key_env="QDRANT_KEY"
    )
    with pytest.raises(ConfigurationError, match="names QDRANT_KEY, but that environment variable"):
        qdrant_server(named, {})
    server = qdrant_server(named, {"QDRANT_KEY": "hunter2"})
    assert server.api_key == "hunter2"
    assert "hunter2" not in repr(server)
