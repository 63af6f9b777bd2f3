"""Files that are none, texts that are none, and names made to harm: refused in a line of text."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import lmdb
import pytest

from llm_trader.errors import LlmTraderError
from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.market.store import MarketStore
from tests.cli.conftest import Typing
from tests.cli.corridor import Corridor, console_script
from tests.index.builders import collection

ESCAPE = "\x1b[31mred\x07"


def refused(ran: object) -> str:
    assert ran.code == 2  # type: ignore[attr-defined]
    err: str = ran.err  # type: ignore[attr-defined]
    assert "Traceback" not in err
    assert "\x1b" not in err
    assert "\x07" not in err
    assert len(err) < 20_000
    return err


@pytest.mark.parametrize("name", ["data.mdb", "lock.mdb"])
def test_a_pipe_in_a_store_is_refused(typed: Typing, tmp_path: Path, name: str) -> None:
    if name == "lock.mdb":
        MarketStore.open(tmp_path, write=True, exchange="bybit").close()
        (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    for line in ("data info --store", "data check --repair --store", "data simulate --store"):
        assert "is no regular file" in refused(typed(f"llm-trader {line}", tmp_path))


def test_a_pipe_in_the_place_of_the_writers_lock_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "writer.lock")
    with pytest.raises(LlmTraderError, match=r"writer\.lock is no regular file; delete it"):
        EmbeddedIndex.create_or_open(tmp_path, collection())


@pytest.mark.parametrize(
    "program", [pytest.param("rag-rpc-server", marks=pytest.mark.soak), "llm-trader query"]
)
def test_a_token_that_is_no_text_is_refused_without_showing_it(
    corridor: Corridor, program: str
) -> None:
    first, *more = program.split()
    options = ["--auth-tokens-env", "TOKEN", "--port", "1"]
    if more:
        options += ["--symbol", "BTCUSDT"]
    else:
        options += ["--store", str(corridor.store), "--index", str(corridor.index)]
    ended = subprocess.run(
        [console_script(first), *more, *options],
        env={**os.environb, b"TOKEN": b"secret\xff\xfe"},
        capture_output=True,
        timeout=60,
    )
    assert ended.returncode == 2
    said = (ended.stdout + ended.stderr).decode()
    assert "names TOKEN, but that environment variable is not UTF-8 text" in said
    assert "secret" not in said
    assert "Traceback" not in said


def test_escape_codes_and_huge_names_never_reach_the_terminal(
    typed: Typing, tmp_path: Path
) -> None:
    for line in ("data info --store", "index info --index", "backup list --from", "data nothing"):
        assert r"\x1b[31m" in refused(typed(f"llm-trader {line}", ESCAPE))
        assert "100000 characters" in refused(typed(f"llm-trader {line}", "x" * 100_000))
    folder = tmp_path / ESCAPE
    folder.mkdir()
    ran = typed("llm-trader backup list --from", tmp_path)
    assert "\x1b" not in ran.out


def test_a_damaged_key_cannot_write_to_the_terminal(typed: Typing, tmp_path: Path) -> None:
    assert typed("llm-trader data simulate --days 2 --symbols BTCUSDT --store", tmp_path).code == 0
    content = (tmp_path / "data.mdb").read_bytes()
    (tmp_path / "data.mdb").write_bytes(content.replace(b"BTCUSDT:1735", b"BTCUSDT:\x1b735"))
    assert r"\x1b735" in refused(typed("llm-trader data info --store", tmp_path))


@pytest.mark.parametrize(
    "left_behind", ["nothing", "an empty file", "a new environment", "an empty meta"]
)
def test_what_a_writer_left_when_it_was_killed_at_once_can_be_filled(
    typed: Typing, tmp_path: Path, left_behind: str
) -> None:
    if left_behind == "an empty file":
        (tmp_path / "data.mdb").touch()
    if left_behind == "a new environment":
        program = "import lmdb, os, sys; lmdb.open(sys.argv[1], map_size=2**20); os._exit(9)"
        subprocess.run([console_script("python"), "-c", program, str(tmp_path)], check=False)
    if left_behind == "an empty meta":
        with lmdb.open(str(tmp_path), map_size=2**20, max_dbs=1) as environment:
            environment.open_db(b"meta")
    assert "llm-trader data import" in refused(typed("llm-trader data info --store", tmp_path))
    line = "llm-trader data simulate --days 1 --symbols BTCUSDT --store"
    assert typed(line, tmp_path).code == 0
    assert typed("llm-trader data check --deep --store", tmp_path).code == 0
