"""`llm-trader data export`, as its own process where it is killed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from llm_trader.market.store import MarketStore
from tests.cli.conftest import Typing
from tests.market.stores import content

PROGRAM = "from llm_trader.cli.main import main; main()"


def kill_after_files(arguments: list[str], folder: Path, count: int) -> None:
    command = [sys.executable, "-c", PROGRAM, *arguments]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and len(list(folder.rglob("*.parquet"))) < count:
            time.sleep(0.001)
        process.kill()
    assert process.returncode == -9


@pytest.mark.soak
def test_a_killed_export_leaves_whole_files_and_goes_on(typed: Typing, tmp_path: Path) -> None:
    made = typed("llm-trader data simulate --days 330 --symbols BTCUSDT --store", tmp_path / "a")
    assert made.code == 0
    out = tmp_path / "out"
    arguments = ["data", "export", "--store", str(tmp_path / "a"), "--out", str(out)]

    kill_after_files(arguments, out, 5)
    first = {path: path.stat().st_ino for path in out.rglob("*.parquet")}
    assert 5 <= len(first) < 44
    assert all(pl.read_parquet(path).height for path in first)
    refused = typed("llm-trader data import --exchange simulated --store", tmp_path / "b", out)
    assert refused.code == 2
    assert "run it again" in refused.err
    kill_after_files(arguments, out, len(first) + 5)

    finished = typed("llm-trader data export --json --store", tmp_path / "a", "--out", out)
    assert finished.code == 0
    assert sum(s["files"] for s in finished.json["series"]) == 44
    assert {path: path.stat().st_ino for path in first} == first
    assert sum(s["written"] for s in finished.json["series"]) < 44 - len(first)
    assert not [path for path in out.rglob("*") if path.name.endswith(".part")]

    done = typed("llm-trader data import --exchange simulated --store", tmp_path / "b", out)
    assert done.code == 0
    with MarketStore.open(tmp_path / "a") as one, MarketStore.open(tmp_path / "b") as other:
        assert content(one) == content(other)


@pytest.mark.parametrize("file_format", ["parquet", "csv"])
def test_an_export_says_how_to_read_it_back(
    typed: Typing, tmp_path: Path, file_format: str
) -> None:
    typed("llm-trader data simulate --days 2 --symbols BTCUSDT,ETHUSDT --store", tmp_path / "a")
    ran = typed(
        f"llm-trader data export --symbols ethusdt --format {file_format} --store",
        tmp_path / "a",
        "--out",
        tmp_path / "out",
    )
    assert ran.code == 0
    assert "candles 3m" in ran.out
    assert "BTCUSDT" not in ran.out
    assert f"data import {tmp_path / 'out'} --exchange simulated --store" in ran.out
    line = "llm-trader data import --exchange simulated --json --store"
    read = typed(line, tmp_path / "b", tmp_path / "out")
    assert {file["symbol"] for file in read.json["files"]} == {"ETHUSDT"}
    other = "llm-trader data simulate --days 3 --seed 8 --symbols ETHUSDT --store"
    assert typed(other, tmp_path / "c").code == 0
    again = typed("llm-trader data export --store", tmp_path / "c", "--out", tmp_path / "out")
    assert again.code == 2
    assert "--force" in again.err
