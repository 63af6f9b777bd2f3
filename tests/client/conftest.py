from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from llm_trader.rpc.server import RpcServer
from tests.rpc.stub import serving


@pytest.fixture
async def server() -> AsyncIterator[RpcServer]:
    async with serving() as running:
        yield running
