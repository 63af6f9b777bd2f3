"""`llm-trader backup`: what it makes, shows and refuses, as a person types it."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_trader.cli import options
from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.timeframe import parse_rfc3339
from tests.backup.test_verify import flip
from tests.cli.conftest import Typing
from tests.cli.corridor import POINTS, SYMBOLS, Corridor
from tests.index import qdrant_stub

AT = "2026-03-20T12:00:00Z"
NAME = "2026-03-20T120000Z"


@pytest.fixture(autouse=True)
def _at_noon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "now_ms", lambda: parse_rfc3339(AT) + 678)


def create(corridor: Corridor, backups: Path) -> str:
    return (
        f"llm-trader backup create --store {corridor.store} --index {corridor.index} --to {backups}"
    )


def test_a_backup_is_made_listed_verified_and_restored(
    typed: Typing, corridor: Corridor, tmp_path: Path
) -> None:
    backups, to = tmp_path / "backups", tmp_path / "to"
    made = typed(create(corridor, backups))
    assert (made.code, made.err) == (0, "")
    assert f"Backup {NAME} in {backups / NAME}" in made.out
    assert f"index: {len(SYMBOLS)} symbols, {len(SYMBOLS) * POINTS} states" in made.out
    verify = f"llm-trader backup verify {NAME} --from {backups}"
    assert verify in made.out

    shown = typed(f"llm-trader backup list --from {backups}")
    (line,) = [line for line in shown.out.splitlines() if NAME in line]
    assert line.split()[1:6] == ["2026-03-20", "12:00", "market,", "index", "complete"]

    verified = typed(verify)
    assert verified.code == 0
    assert "16 recorded questions are answered identically" in verified.out
    assert "whole: 3 files, " in verified.out

    places = f"--store {to / 'market'} --index {to / 'index'}"
    restored = typed(f"llm-trader backup restore {NAME} --from {backups} {places}")
    assert (restored.code, restored.err) == (0, "")
    assert f"  market: {to / 'market'}\n  index: {to / 'index'}\n" in restored.out
    info = "llm-trader data info --json --store"
    series = [typed(info, store).json["series"] for store in (corridor.store, to / "market")]
    assert series[0] == series[1]


@pytest.mark.soak
def test_every_command_can_be_read_by_a_program(
    typed: Typing, corridor: Corridor, tmp_path: Path
) -> None:
    made = typed(create(corridor, tmp_path), "--json", "--name", "nightly").json
    assert (made["name"], made["created_at"]) == ("nightly", AT)
    assert made["index"]["location"] == str(corridor.index)
    (listed,) = typed(f"llm-trader backup list --json --from {tmp_path}").json
    assert (listed["name"], listed["state"], listed["parts"]) == (
        "nightly",
        "complete",
        ["market", "index"],
    )
    report = typed(f"llm-trader backup verify nightly --json --from {tmp_path}").json
    assert (report["problems"], report["answers"], report["files"]) == ([], 16, 3)
    line = f"llm-trader backup restore nightly --only index --json --from {tmp_path}"
    restored = typed(line, "--index", tmp_path / "to").json
    assert restored["restored"] == {"index": str(tmp_path / "to")}
    with EmbeddedIndex.open(tmp_path / "to") as index:
        assert index.collection.exchange == "simulated"


def test_only_one_part_can_be_asked_for(typed: Typing, corridor: Corridor, tmp_path: Path) -> None:
    for part in ("market", "index"):
        made = typed(create(corridor, tmp_path), "--only", part, "--name", part, "--json").json
        assert [name for name in ("market", "index", "qdrant") if made[name]] == [part]


def test_a_problem_is_exit_code_one_and_named_by_file(
    typed: Typing, corridor: Corridor, tmp_path: Path
) -> None:
    assert typed(create(corridor, tmp_path), "--only index").code != 0  # one word, no option
    assert typed(f"{create(corridor, tmp_path)} --only index").code == 0
    flip(tmp_path / NAME / "index" / "data.mdb", 9000)
    line = f"llm-trader backup verify {NAME} --from {tmp_path}"
    shown, told = typed(line), typed(f"{line} --json")
    assert (shown.code, told.code) == (1, 1)
    problem = "is not what was written: its SHA-256 differs"
    assert f"  PROBLEM index/data.mdb: {problem}\n" in shown.out
    assert told.json["problems"] == [{"file": "index/data.mdb", "problem": problem}]
    line = f"llm-trader backup restore {NAME} --from {tmp_path} --index {tmp_path / 'to'}"
    refused = typed(line)
    assert (refused.code, refused.out) == (2, "")
    assert "is damaged: index/data.mdb" in refused.err
    assert not (tmp_path / "to").exists()


def test_what_cannot_be_done_is_exit_code_two_with_a_remedy(
    typed: Typing, corridor: Corridor, tmp_path: Path
) -> None:
    line = f"{create(corridor, tmp_path)} --only index"
    assert typed(line).code == 0
    for words, told in (
        (line, "is there already; choose another --name"),
        (f"{line} --name ../up", "is no name for a backup"),
        (
            f"llm-trader backup create --only market --store /nowhere --to {tmp_path} --name x",
            "no market store",
        ),
        (f"llm-trader backup verify other --from {tmp_path}", "there is no backup at"),
        (f"llm-trader backup restore other --from {tmp_path}", "there is no backup at"),
        (
            f"llm-trader backup restore {NAME} --from {tmp_path} --index {corridor.index}",
            "is not empty, and a restore overwrites nothing; move it away",
        ),
        (
            f"llm-trader backup restore {NAME} --from {tmp_path} --qdrant-url http://localhost:1",
            "holds an embedded index: restore it with --index and without --qdrant-url",
        ),
        (
            f"llm-trader backup restore {NAME} --only market --from {tmp_path}",
            "holds index, and for none of these a place is named",
        ),
    ):
        ran = typed(words)
        assert (ran.code, ran.out) == (2, ""), words
        assert told in ran.err


def test_a_folder_without_backups_says_how_one_is_made(typed: Typing, tmp_path: Path) -> None:
    shown = typed(f"llm-trader backup list --from {tmp_path / 'none'}")
    assert shown.code == 0
    assert f"none; make one with: llm-trader backup create --to {tmp_path / 'none'}" in shown.out
    assert typed(f"llm-trader backup list --json --from {tmp_path}").json == []


@pytest.mark.parametrize("command", ["create", "list", "verify", "restore"])
def test_help_says_what_a_backup_is_and_is_not(typed: Typing, command: str) -> None:
    ran = typed(f"llm-trader backup {command} --help")
    assert ran.code == 0
    assert "--json" in ran.out
    assert ("--to" if command == "create" else "--from") in ran.out


@pytest.mark.soak
def test_a_qdrant_server_is_backed_up_and_restored_by_its_address(
    typed: Typing, corridor: Corridor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with qdrant_stub.start() as stub:
        monkeypatch.setenv("LLM_TRADER_INDEX__QDRANT__GRPC_PORT", str(stub.grpc_port))
        paths = f"--store {corridor.store} --index {corridor.index} --qdrant-url {stub.url}"
        assert typed(f"rag-ingest --symbols BTCUSDT --start 2025-02-20T00:00:00Z {paths}").code == 0
        backups = f"--name remote --to {tmp_path / 'b'}"
        made = typed(f"llm-trader backup create {paths} {backups} --json").json
        assert [part for part in ("market", "index", "qdrant") if made[part]] == [
            "market",
            "qdrant",
        ]
        line = f"llm-trader backup restore remote --from {tmp_path / 'b'} --only index"
        unnamed = typed(line)
        assert unnamed.code == 2
        assert "no Qdrant server is set; give --qdrant-url" in unnamed.err
        refused = typed(f"{line} --qdrant-url {stub.url}")
        assert refused.code == 2
        assert "with --swap it is led to the restored collection" in refused.err
        swapped = typed(f"{line} --swap --qdrant-url {stub.url}")
        assert swapped.code == 0
        assert "_restored_1\n" in swapped.out
        assert "16 recorded questions are answered identically" in swapped.out
