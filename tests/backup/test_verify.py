"""Backups are checked: damage is found and told by file, a whole one opens and answers."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llm_trader.backup.contents import QUESTIONS
from llm_trader.backup.create import create_backup
from llm_trader.backup.files import digest
from llm_trader.backup.manifest import (
    MANIFEST,
    Manifest,
    Places,
    StoredFile,
    backups_in,
    read_manifest,
    write_manifest,
)
from llm_trader.backup.restore import restore_backup
from llm_trader.backup.verify import Problem, VerifyReport, verify_backup
from llm_trader.cli.backup import describe_new_backup
from llm_trader.embedding.state import StateSpace
from llm_trader.errors import ConfigurationError
from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.index.points import COLUMN_ROW
from llm_trader.index.protocol import Collection
from llm_trader.timeframe import M3
from tests.backup.builders import CREATED_AT, NAME, Site, points
from tests.market.processes import hear, running
from tests.retrieval.builders import COLLECTION

FILES = ("market/data.mdb", "index/data.mdb", "answers.json")


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


async def retold(folder: Path, change: Callable[[Any], Any]) -> None:
    """Alter the manifest, and let its digests be those of the files as they are now."""
    manifest: Manifest = change(read_manifest(folder))
    files = [
        StoredFile(
            file.path,
            (folder / file.path).stat().st_size,
            await digest(folder / file.path, lambda done: None),
        )
        for file in manifest.files
    ]
    write_manifest(folder, msgspec.structs.replace(manifest, files=files))


async def test_a_whole_backup_has_no_problem_and_answers_every_question(site: Site) -> None:
    manifest = await site.back_up()
    before = set(site.backup.rglob("*"))
    report = await verify_backup(site.backup)
    assert report == VerifyReport(
        name=NAME,
        created_at=CREATED_AT,
        parts=["market", "index"],
        files=3,
        bytes=manifest.bytes,
        answers=QUESTIONS,
        problems=[],
        notes=[],
    )
    assert set(site.backup.rglob("*")) == before, "nothing is left behind"


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
async def test_one_flipped_bit_is_found_and_told_by_file(
    site: Site, file: str, share: float
) -> None:
    await site.back_up()
    path = site.backup / file
    flip(path, int(path.stat().st_size * share))
    report = await verify_backup(site.backup)
    assert report.problems == [Problem(file, "is not what was written: its SHA-256 differs")]


async def test_missing_and_shortened_files_are_told(site: Site) -> None:
    await site.back_up()
    (site.backup / "market/data.mdb").unlink()
    index = site.backup / "index/data.mdb"
    size = index.stat().st_size
    index.write_bytes(index.read_bytes()[:-100])
    assert (await verify_backup(site.backup)).problems == [
        Problem("index/data.mdb", f"has {size - 100} bytes, not {size}"),
        Problem("market/data.mdb", "is missing"),
    ]


async def test_an_index_that_answers_otherwise_is_found_though_its_digest_fits(
    site: Site,
) -> None:
    await site.back_up()
    with EmbeddedIndex.create_or_open(site.backup / "index", COLLECTION) as index:
        for table in points():
            values = table.values.copy()
            values[COLUMN_ROW["outcome_24h"]] += 0.25
            await index.upsert(replace(table, values=values))
    await retold(site.backup, lambda manifest: manifest)
    report = await verify_backup(site.backup)
    assert report.answers == 0
    assert {problem.file for problem in report.problems} == {"index/data.mdb"}
    assert "is answered otherwise: " in report.problems[0].problem


async def test_answers_that_differ_by_rounding_are_a_note_and_no_problem(site: Site) -> None:
    await site.back_up()
    with EmbeddedIndex.create_or_open(site.backup / "index", COLLECTION) as index:
        for table in points():
            values = table.values.copy()
            values[COLUMN_ROW["outcome_24h"]] *= 1 + 1e-12
            await index.upsert(replace(table, values=values))
    await retold(site.backup, lambda manifest: manifest)
    report = await verify_backup(site.backup)
    assert report.problems == []
    assert f"{QUESTIONS - report.answers} answers differ in their last digits" in report.notes[0]


def other_market(manifest: Manifest) -> Manifest:
    market = manifest.market
    assert market is not None
    fewer = msgspec.structs.replace(market.series[0], rows=market.series[0].rows - 1)
    market = msgspec.structs.replace(market, series=[fewer, *market.series[1:]], exchange="okx")
    return msgspec.structs.replace(manifest, market=market)


def other_index(manifest: Manifest) -> Manifest:
    index = manifest.index
    assert index is not None
    missing = msgspec.structs.replace(index.symbols[0], symbol="SOLUSDT", points=7)
    index = msgspec.structs.replace(index, symbols=[missing, index.symbols[1]], runs=[])
    return msgspec.structs.replace(manifest, index=index)


async def test_a_copy_that_does_not_hold_what_the_manifest_says_is_told(site: Site) -> None:
    await site.back_up()
    await retold(site.backup, lambda manifest: other_index(other_market(manifest)))
    report = await verify_backup(site.backup)
    assert [(problem.file, problem.problem) for problem in report.problems] == [
        ("market/data.mdb", "its exchange is bybit, not okx"),
        ("market/data.mdb", "BTCUSDT candles 3m is missing or of another extent"),
        ("market/data.mdb", "BTCUSDT candles 3m should not be there, or is of another extent"),
        ("index/data.mdb", "it has 1 ingestion runs, not these 0"),
        ("index/data.mdb", "SOLUSDT has 0 points, not 7 of the same times"),
        ("index/data.mdb", "BTCUSDT should not be there"),
    ]


async def test_a_copy_that_does_not_open_is_told(site: Site) -> None:
    await site.back_up()
    for file in FILES[:2]:
        (site.backup / file).write_bytes(b"no database" * 1000)
    await retold(site.backup, lambda manifest: manifest)
    report = await verify_backup(site.backup)
    assert [problem.file for problem in report.problems] == list(FILES[:2])
    assert "it is no LMDB store" in report.problems[0].problem
    assert "is damaged" in report.problems[1].problem


async def test_vectors_of_another_version_are_not_asked_and_that_is_noted(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.back_up()
    monkeypatch.setattr(Collection, "state_space", lambda collection: StateSpace(M3))
    report = await verify_backup(site.backup)
    assert (report.problems, report.answers) == ([], 0)
    assert report.notes[0].startswith("no question was asked: ")


async def test_a_backup_without_recorded_answers_says_so_and_verify_repeats_it(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as other_version:
        other_version.setattr(Collection, "state_space", lambda collection: StateSpace(M3))
        manifest = await site.back_up()
    assert len(manifest.notes) == 1
    assert manifest.notes[0].startswith("no answers of the index were recorded, so verify ")
    assert "the index holds vectors of" in manifest.notes[0]
    report = await verify_backup(site.backup)
    assert (report.problems, report.answers, report.notes) == ([], 0, manifest.notes)
    shown = map(str, describe_new_backup(manifest, site.backups))
    assert f"  note: {manifest.notes[0]}" in shown


async def test_a_manifest_of_an_earlier_version_has_no_notes(site: Site) -> None:
    assert (await site.back_up()).notes == []
    path = site.backup / MANIFEST
    document = json.loads(path.read_bytes())
    del document["notes"]
    path.write_text(json.dumps(document))
    report = await verify_backup(site.backup)
    assert (report.problems, report.notes) == ([], [])


async def test_a_backup_of_an_empty_index_says_that_no_answers_were_recorded(
    tmp_path: Path,
) -> None:
    EmbeddedIndex.create_or_open(tmp_path / "index", COLLECTION).close()
    sources = Places(index=tmp_path / "index")
    manifest = await create_backup(tmp_path, NAME, sources, created_at=CREATED_AT)
    assert manifest.notes[0].endswith("before: the index is empty")


async def test_a_folder_that_is_no_backup_is_refused_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no backup at .*; see: llm-trader backup list"):
        await verify_backup(tmp_path / "nowhere")


async def test_a_torn_manifest_is_told_as_damaged(site: Site) -> None:
    await site.back_up()
    path = site.backup / "manifest.json"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ConfigurationError, match=r"manifest.json is damaged .*use another backup"):
        await verify_backup(site.backup)


async def test_a_backup_on_a_read_only_medium_is_verified(site: Site) -> None:
    await site.back_up()
    program = """
import asyncio, os
from llm_trader.backup.verify import verify_backup
if os.geteuid() == 0:
    os.setgid(65534), os.setuid(65534)
report = asyncio.run(verify_backup(path))
say(report.problems, report.answers)
"""
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are private
        os.chmod(folder, 0o755)
        backup = Path(folder) / "backup"
        shutil.copytree(site.backup, backup)
        inside = [backup, *backup.rglob("*")]
        for path in inside:
            path.chmod(0o555 if path.is_dir() else 0o444)
        with running(program, backup) as process:
            assert hear(process) == f"[] {QUESTIONS}"
        assert sorted(backup.rglob("*")) == sorted(inside[1:])
        for path in inside:
            path.chmod(0o755)


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ({"files": []}, "does not name answers.json, index/data.mdb, market/data.mdb"),
        ({"files": [], "market": None, "index": None}, "does not name any part"),
        ({"files": [StoredFile("../../site/market/data.mdb", 1, "")]}, "is no file of this backup"),
        ({"files": [StoredFile("/etc/hostname", 1, "")]}, "is no file of this backup"),
        ({"files": [StoredFile("market/../../x", 1, "")]}, "is no file of this backup"),
    ],
    ids=["no files", "nothing", "above", "absolute", "above within"],
)
async def test_an_altered_manifest_is_refused(
    site: Site, tmp_path: Path, change: dict[str, Any], refusal: str
) -> None:
    manifest = await site.back_up()
    write_manifest(site.backup, msgspec.structs.replace(manifest, **change))
    with pytest.raises(ConfigurationError, match=refusal):
        await verify_backup(site.backup)
    with pytest.raises(ConfigurationError, match=refusal):
        await restore_backup(site.backup, site.targets(tmp_path / "to"))
    assert [listed.state for listed in backups_in(site.backups)] == ["unreadable"]


@pytest.mark.parametrize("link", ["market", "market/data.mdb"])
async def test_a_linked_folder_or_file_is_no_part_of_a_backup(
    site: Site, tmp_path: Path, link: str
) -> None:
    await site.back_up()
    (site.backup / link).rename(tmp_path / "elsewhere")
    (site.backup / link).symlink_to(tmp_path / "elsewhere")
    (problem,) = (await verify_backup(site.backup)).problems
    assert problem == Problem("market/data.mdb", "is or lies in a linked folder or file")
    with pytest.raises(ConfigurationError, match="linked folder or file; use another backup"):
        await restore_backup(site.backup, site.targets(tmp_path / "to"))


async def test_a_pipe_in_the_place_of_the_manifest_is_refused(site: Site) -> None:
    await site.back_up()
    (site.backup / MANIFEST).unlink()
    os.mkfifo(site.backup / MANIFEST)
    with pytest.raises(ConfigurationError, match="is no regular file; use another backup"):
        await verify_backup(site.backup)
