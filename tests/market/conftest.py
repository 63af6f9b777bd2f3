"""What the tests of imports write to and read from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_trader.market.store import MarketStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MarketStore]:
    with MarketStore.open(tmp_path / "store", write=True, exchange="bybit") as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "files"
    made.mkdir()
    return made
