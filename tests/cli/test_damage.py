"""What a person sees and does when the file of a store or an index is damaged."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Typing
from tests.cli.corridor import SYMBOL, Corridor


def damage(folder: Path, source: Path) -> Path:
    """A copy of a folder in which a byte in the middle is another."""
    shutil.copytree(source, folder)
    content = bytearray((folder / "data.mdb").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "data.mdb").write_bytes(content)
    return folder


def exchange_bytes(folder: Path, source: Path, old: bytes, new: bytes) -> Path:
    shutil.copytree(source, folder)
    content = (folder / "data.mdb").read_bytes()
    assert old in content
    (folder / "data.mdb").write_bytes(content.replace(old, new))
    return folder


def test_a_sound_index_passes_its_check(typed: Typing, corridor: Corridor) -> None:
    ran = typed("llm-trader index check --index", corridor.index)
    assert ran.code == 0
    assert "whole" in ran.out
    report = typed("llm-trader index check --json --index", corridor.index).json
    assert [s["symbol"] for s in report["symbols"]] == ["BTCUSDT", "ETHUSDT"]
    assert (report["problems"], report["remedy"]) == ([], None)


def test_a_damaged_index_is_refused_everywhere_and_built_again_by_the_named_command(
    typed: Typing, corridor: Corridor, tmp_path: Path
) -> None:
    index = damage(tmp_path / "index", corridor.index)
    check = typed("llm-trader index check --index", index)
    assert check.code == 1
    assert "build it again with: llm-trader index rebuild" in check.out
    places = ["--store", corridor.store, "--index", index]
    for line in (
        "llm-trader index info --index",
        "rag-rpc-server --port 0 --store",
        "llm-trader leak-check --store",
        "rag-ingest --start 2025-02-20T00:00:00Z --end 2025-02-24T00:00:00Z --store",
    ):
        ran = typed(line, *(places[1:] if line.endswith("--store") else [index]))
        assert ran.code == 2, line
        assert "is damaged" in ran.err, line
        assert "llm-trader index rebuild" in ran.err, line
    assert typed("llm-trader index rebuild", *places).code == 0
    assert typed("llm-trader index check --index", index).code == 0


def test_a_deep_check_names_the_damaged_day_and_importing_it_again_mends_it(
    typed: Typing, tmp_path: Path
) -> None:
    pristine, data = tmp_path / "pristine", tmp_path / "data"
    data.mkdir()
    rows = [f"{1735689600000 + i * 300000},1,2,0.5,{1 + i % 7 / 10},{i}" for i in range(900)]
    header = "open_time_ms,open,high,low,close,volume"
    file = data / "bybit_linear_BTCUSDT_candles_5m.csv"
    file.write_text("\n".join([header, *rows]) + "\n")
    into = "llm-trader data import --exchange bybit"
    assert typed(into, file, "--store", pristine).code == 0
    store = exchange_bytes(
        tmp_path / "store", pristine, b'1735776000000{"open":1', b'1735776000000{"open":2'
    )

    assert typed("llm-trader data check --deep --store", pristine).code == 0
    ran = typed("llm-trader data check --deep --store", store)
    assert ran.code == 1
    assert f"the rows of {SYMBOL} in candles_5m on 2025-01-02 are not as they were" in ran.out
    assert "import the damaged days again, or restore a backup" in ran.out
    # A repair counts, and never gives damaged rows a checksum.
    assert typed("llm-trader data check --deep --repair --store", store).code == 1

    assert typed(into, file, "--store", store).code == 0
    assert typed("llm-trader data check --deep --store", store).code == 0


@pytest.mark.parametrize("share", [0.1, 0.6, 0.98])
def test_a_half_copied_store_or_index_is_refused_with_the_remedy(
    typed: Typing, corridor: Corridor, tmp_path: Path, share: float
) -> None:
    remedies = {"store": "restore a backup", "index": "llm-trader index rebuild"}
    for part, remedy in remedies.items():
        folder = tmp_path / part
        folder.mkdir()
        content = (getattr(corridor, part) / "data.mdb").read_bytes()
        (folder / "data.mdb").write_bytes(content[: int(len(content) * share)])
        command = {"store": "data info --store", "index": "index info --index"}[part]
        ran = typed(f"llm-trader {command}", folder)
        assert ran.code == 2
        assert "it was cut short or copied in part" in ran.err
        assert remedy in ran.err
