from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from llm_trader.client.answers import answer_of_result
from llm_trader.retrieval.answer import Answer
from llm_trader.serving.wire import QueryPatternsResult
from llm_trader.snapshot.model import MarketSnapshot
from tests.workflow.postgres import PostgresServer, postgres_server

_EXAMPLE = Path(__file__).parents[1] / "golden/prompt/simulated-market.json"


class _Example(msgspec.Struct):
    snapshot: MarketSnapshot
    result: QueryPatternsResult


@pytest.fixture(scope="session")
def example() -> _Example:
    return msgspec.json.decode(_EXAMPLE.read_bytes(), type=_Example)


@pytest.fixture(scope="session")
def answer(example: _Example) -> Answer:
    """What a server answered about a simulated market."""
    return answer_of_result(example.result)


@pytest.fixture(scope="session")
def snapshot(example: _Example) -> MarketSnapshot:
    """The state that it was asked about."""
    return example.snapshot


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server
