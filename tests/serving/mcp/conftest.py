from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.cli.corridor import Corridor
from tests.serving.mcp.clients import Addresses, serving


@pytest.fixture
async def mcp_server_address(corridor: Corridor) -> AsyncIterator[Addresses]:
    async with serving(corridor) as addresses:
        yield addresses
