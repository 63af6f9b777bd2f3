"""Backups are put back: everything as it was, or nothing at all."""

from __future__ import annotations

import signal
from pathlib import Path

import msgspec
import numpy as np
import pytest

from llm_trader.backup.contents import QUESTIONS
from llm_trader.backup.create import create_backup
from llm_trader.backup.manifest import Places
from llm_trader.backup.restore import RestoreReport, restore_backup
from llm_trader.checks.agreement import compare_answers
from llm_trader.errors import ConfigurationError, InvalidInputError, StoreLockedError
from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.market.store import MarketStore
from llm_trader.retrieval.retriever import Retriever
from llm_trader.timeframe import M3
from tests.backup.builders import CREATED_AT, NAME, SLOTS, SYMBOLS, Site, everything
from tests.backup.test_verify import FILES, flip, other_index, other_market, retold
from tests.index.builders import same_points, stored
from tests.index.test_partial_points import mixed_points
from tests.market.processes import hear, running, tell
from tests.retrieval.builders import COLLECTION, SPACE, past

RESTORE = """
import asyncio
from llm_trader.backup.manifest import Places
from llm_trader.backup.restore import restore_backup

def report_and_wait(what, done, total):
    say(what)
    wait()

to = Path(sys.argv[2])
targets = Places(market=to / "market", index=to / "index")
asyncio.run(restore_backup(path, targets, progress=report_and_wait))
say("complete")
"""


async def check_restored(site: Site, folder: Path) -> None:
    with (
        EmbeddedIndex.open(site.index) as index,
        EmbeddedIndex.open(folder / "index") as restored,
        MarketStore.open(site.market) as market,
        MarketStore.open(folder / "market") as again,
    ):
        for held, wanted in zip(await everything(restored), await everything(index), strict=True):
            assert same_points(held, wanted)
        report = await compare_answers(Retriever(index, SPACE), Retriever(restored, SPACE), 20, 3)
        assert (report.identical, report.disagreements) == (20, [])
        assert again.describe().series == market.describe().series
        for symbol in SYMBOLS:
            series = [store.candles(symbol, M3) for store in (market, again)]
            for (_, ours), (_, theirs) in zip(*(s.columns() for s in series), strict=True):
                assert ours.tolist() == theirs.tolist()


async def test_what_was_restored_holds_and_answers_the_same_to_the_last_bit(
    site: Site, tmp_path: Path
) -> None:
    await site.back_up()
    to = tmp_path / "deep" / "inside"
    report = await restore_backup(site.backup, site.targets(to))
    assert report == RestoreReport(
        name=NAME,
        created_at=CREATED_AT,
        restored={"market": str(to / "market"), "index": str(to / "index")},
        answers=QUESTIONS,
        notes=[],
    )
    await check_restored(site, to)
    assert {path.name for path in to.iterdir()} == {"market", "index"}


async def test_points_that_lack_something_are_restored_and_answer_the_same(
    site: Site, tmp_path: Path
) -> None:
    kinds = np.arange(SLOTS, dtype=np.uint8) % 4
    with EmbeddedIndex.create_or_open(site.index, COLLECTION) as index:
        await index.upsert(mixed_points(kinds))
    manifest = await site.back_up()
    assert manifest.index is not None
    (partial, whole) = manifest.index.symbols
    assert (partial.without_funding, whole.without_funding) == (SLOTS // 2, 0)
    report = await restore_backup(site.backup, site.targets(tmp_path / "to"))
    assert (report.answers, report.notes) == (QUESTIONS, [])
    with EmbeddedIndex.open(tmp_path / "to" / "index") as restored:
        held = await stored(restored)
    assert held.lacking().tolist() == kinds.tolist()


async def test_a_restored_store_can_be_written_to(site: Site, tmp_path: Path) -> None:
    await site.back_up()
    await restore_backup(site.backup, site.targets(tmp_path / "to"))
    with EmbeddedIndex.create_or_open(tmp_path / "to" / "index", COLLECTION) as index:
        assert await index.begin_run("tests", "bybit", "now") == 2
        assert await index.upsert(past(range(5000, 5010), seed=3)) == 10
    MarketStore.open(tmp_path / "to" / "market", write=True, exchange="bybit").close()


@pytest.mark.parametrize("part", ["market", "index"])
async def test_a_part_can_be_restored_alone(site: Site, tmp_path: Path, part: str) -> None:
    await site.back_up()
    report = await restore_backup(site.backup, Places(**{part: tmp_path / "to"}))
    assert report.restored == {part: str(tmp_path / "to")}


async def test_a_part_that_the_backup_does_not_hold_is_refused(site: Site, tmp_path: Path) -> None:
    await create_backup(site.backups, NAME, Places(market=site.market), created_at=CREATED_AT)
    with pytest.raises(InvalidInputError, match="holds market, and for none of these a place"):
        await restore_backup(site.backup, Places(index=tmp_path / "to"))


async def test_one_folder_cannot_become_both_parts(site: Site, tmp_path: Path) -> None:
    await site.back_up()
    to = tmp_path / "to"
    with pytest.raises(ConfigurationError, match="as both the market store and the index"):
        await restore_backup(site.backup, Places(market=to, index=tmp_path / "x" / ".." / "to"))
    assert not to.exists()


async def test_an_empty_folder_may_be_there_but_nothing_is_overwritten(
    site: Site, tmp_path: Path
) -> None:
    await site.back_up()
    (tmp_path / "market").mkdir()
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "mine").write_text("keep")
    with pytest.raises(ConfigurationError, match=r"index is not empty, .*move it away, or name"):
        await restore_backup(site.backup, site.targets(tmp_path))
    assert [p.name for p in (tmp_path / "index").iterdir()] == ["mine"]
    assert list((tmp_path / "market").iterdir()) == []
    (tmp_path / "index" / "mine").unlink()
    await restore_backup(site.backup, site.targets(tmp_path))
    await check_restored(site, tmp_path)


@pytest.mark.parametrize("file", FILES)
async def test_a_damaged_backup_is_refused_by_file_before_anything_is_written(
    site: Site, tmp_path: Path, file: str
) -> None:
    await site.back_up()
    flip(site.backup / file, 5)
    with pytest.raises(ConfigurationError, match=rf"damaged: {file} .*; use another backup"):
        await restore_backup(site.backup, site.targets(tmp_path / "to"))
    assert not (tmp_path / "to").exists()


async def test_damage_in_a_part_that_is_not_restored_does_not_matter(
    site: Site, tmp_path: Path
) -> None:
    await site.back_up()
    flip(site.backup / "index/data.mdb", 5)
    report = await restore_backup(site.backup, Places(market=tmp_path / "to"))
    assert list(report.restored) == ["market"]


@pytest.mark.parametrize("change", [other_market, other_index])
async def test_a_backup_that_does_not_hold_what_it_says_leaves_nothing_behind(
    site: Site, tmp_path: Path, change: object
) -> None:
    await site.back_up()
    await retold(site.backup, change)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"does not hold what it should: .*use another"):
        await restore_backup(site.backup, site.targets(tmp_path / "to"))
    assert list((tmp_path / "to").iterdir()) == []


async def test_other_answers_than_recorded_leave_nothing_behind(site: Site, tmp_path: Path) -> None:
    await site.back_up()
    path = site.backup / "answers.json"
    answers = msgspec.json.decode(path.read_bytes())
    answers[3]["answer"]["points_eligible"] += 1
    path.write_bytes(msgspec.json.encode(answers))
    await retold(site.backup, lambda manifest: manifest)
    with pytest.raises(ConfigurationError, match="is answered otherwise: points_eligible is"):
        await restore_backup(site.backup, Places(index=tmp_path / "to" / "index"))
    assert list((tmp_path / "to").iterdir()) == []


@pytest.mark.parametrize(
    "word",
    [
        "restoring index",
        *(pytest.param(word, marks=pytest.mark.soak) for word in ("comparing", "restoring market")),
    ],
)
async def test_a_restore_that_was_killed_leaves_nothing_at_its_place_and_can_be_repeated(
    site: Site, tmp_path: Path, word: str
) -> None:
    await site.back_up()
    to = tmp_path / "to"
    with running(RESTORE, site.backup, to) as process:
        while not hear(process).startswith(word):
            tell(process)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert not (to / "market").exists()
    assert not (to / "index").exists()
    await restore_backup(site.backup, site.targets(to))
    await check_restored(site, to)
    assert {path.name for path in to.iterdir()} == {"market", "index"}


@pytest.mark.soak
async def test_two_restores_to_one_place_do_not_mix(site: Site, tmp_path: Path) -> None:
    await site.back_up()
    to = tmp_path / "to"
    with running(RESTORE, site.backup, to) as process:
        while not hear(process).startswith("restoring index"):
            tell(process)
        with pytest.raises(StoreLockedError, match=f"process {process.pid} is writing to"):
            await restore_backup(site.backup, site.targets(to))
        said = process.communicate("\n" * 20)[0].splitlines()
        assert said[-1] == "complete"
    await check_restored(site, to)


async def test_a_restore_that_was_killed_between_its_renames_can_be_repeated(
    site: Site, tmp_path: Path
) -> None:
    await site.back_up()
    to = tmp_path / "to"
    program = """
import asyncio
from pathlib import Path
from llm_trader.backup.manifest import Places
from llm_trader.backup.restore import restore_backup

rename = Path.replace

def replace(source, target):
    rename(source, target)
    say("renamed")
    wait()

Path.replace = replace
to = Path(sys.argv[2])
asyncio.run(restore_backup(path, Places(market=to / "market", index=to / "index")))
"""
    with running(program, site.backup, to) as process:
        assert hear(process) == "renamed"
        process.kill()
        process.wait()
    assert (to / "market").exists()
    assert not (to / "index").exists()
    report = await restore_backup(site.backup, site.targets(to))
    assert set(report.restored) == {"market", "index"}
    await check_restored(site, to)
    assert {path.name for path in to.iterdir()} == {"market", "index"}
    with pytest.raises(ConfigurationError, match="is not empty"):
        await restore_backup(site.backup, site.targets(to))


async def test_a_part_that_was_written_to_since_is_not_taken_for_a_restored_one(
    site: Site, tmp_path: Path
) -> None:
    await site.back_up()
    to = tmp_path / "to"
    await restore_backup(site.backup, Places(market=to / "market"))
    (to / ".index.restoring").mkdir()
    with (to / "market" / "data.mdb").open("ab") as file:
        file.write(bytes(4096))
    with pytest.raises(ConfigurationError, match="market is not empty"):
        await restore_backup(site.backup, site.targets(to))
