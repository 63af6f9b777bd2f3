from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from llm_trader.index.protocol import Collection, VectorIndex
from tests.index.builders import fresh_embedded

FreshIndex = Callable[[Collection], AbstractAsyncContextManager[VectorIndex]]

# Every backend, as a way to open an empty index for a collection; the contract holds for each.
BACKENDS: dict[str, FreshIndex] = {
    "embedded": fresh_embedded,
}


@pytest.fixture(scope="session", params=BACKENDS)
def fresh_index(request: pytest.FixtureRequest) -> FreshIndex:
    return BACKENDS[request.param]
