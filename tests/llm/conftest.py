from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.llm.stub.server import StubServer

if TYPE_CHECKING:
    from llm_trader.llm.decision import Case
    from tests.cli.corridor import Corridor


@pytest.fixture(scope="session")
def running_stub() -> Iterator[StubServer]:
    with StubServer() as stub:
        yield stub


@pytest.fixture
def stub(running_stub: StubServer) -> Iterator[StubServer]:
    """A stub of the language models' interfaces that has seen nothing yet."""
    running_stub.clear()
    yield running_stub
    assert running_stub.failures == []


@pytest.fixture(scope="session")
def corridor_case(corridor: Corridor) -> Case:
    """A state of a simulated market, with what its index answers."""
    from llm_trader.app.job import Job
    from llm_trader.app.local_market import open_local_market
    from tests.cli.corridor import AT_MS, END_MS, SYMBOL

    async def read() -> Case:
        async with open_local_market(Job(corridor.settings(), {}, END_MS), SYMBOL) as market:
            return (await market.case(SYMBOL, AT_MS)).case

    return asyncio.run(read())
