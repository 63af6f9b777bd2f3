"""A named pipe where a file is expected: refused in words, where reading it would wait for ever."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cli.conftest import Typing
from tests.cli.corridor import Corridor

COMMANDS = {
    "settings": "llm-trader data info --config {pipe}",
    "calibration": "rag-rpc-server --port 0 --store {store} --index {index} --calibration {pipe}",
    "plan": "llm-trader evaluate --store {store} --plan {pipe}",
    "forecasts": "llm-trader evaluate judge --store {store} --forecasts {pipe}",
    "baseline": "llm-trader evaluate gate --store {store} --baseline {pipe}",
    "state": "llm-trader query --symbol BTCUSDT --state {pipe}",
}


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe.csv"
    os.mkfifo(path)
    return path


@pytest.mark.timeout(60)
@pytest.mark.parametrize("what", COMMANDS)
def test_a_named_pipe_is_no_file(what: str, pipe: Path, corridor: Corridor, typed: Typing) -> None:
    line = COMMANDS[what].format(pipe=pipe, store=corridor.store, index=corridor.index)
    shown = typed(line)
    assert shown.code in (1, 2)
    assert str(pipe) in shown.err
    assert "it is not a regular file" in shown.err


@pytest.mark.timeout(60)
@pytest.mark.parametrize("program", ["rag-ingest --start 2025-02-01", "rag-rpc-server --port 0"])
def test_a_named_pipe_is_no_volatility_model(
    program: str, pipe: Path, corridor: Corridor, typed: Typing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_TRADER_VOLATILITY__MODEL", str(pipe))
    shown = typed(f"{program} --store {corridor.store} --index {corridor.index}")
    assert shown.code in (1, 2)
    assert f"{pipe}: it is not a regular file" in shown.err


@pytest.mark.timeout(60)
@pytest.mark.parametrize("more", ["", "--symbol BTCUSDT --kind candles --interval 5m"])
def test_a_named_pipe_is_not_imported(more: str, pipe: Path, typed: Typing) -> None:
    store = pipe.parent / "store"
    shown = typed(f"llm-trader data import {pipe} --exchange bybit --store {store} {more}")
    assert shown.code in (1, 2)
    assert str(pipe) in shown.err
    assert not store.exists()
