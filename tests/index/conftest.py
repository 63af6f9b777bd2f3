from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from llm_trader.index.protocol import Collection, VectorIndex
from tests.index.builders import fresh_embedded
from tests.index.qdrant_places import fresh_in_memory, fresh_on_server, fresh_on_stub

FreshIndex = Callable[[Collection], AbstractAsyncContextManager[VectorIndex]]

# Every backend, as a way to open an empty index for a collection; the contract holds for each.
BACKENDS: dict[str, FreshIndex] = {
    "embedded": fresh_embedded,
    "qdrant-memory": fresh_in_memory,
    "qdrant-grpc": fresh_on_stub,
    "qdrant-server": fresh_on_server,
}


# What the client's local mode cannot do.
NOT_IN_MEMORY = {
    "test_upserting_the_same_points_again_adds_and_changes_nothing": "replacing a point by itself "
    "in the local mode of qdrant_client rounds its vector once more, by up to 6e-8",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        name = getattr(item, "originalname", "")
        if name in NOT_IN_MEMORY and backend_of(item) == "qdrant-memory":
            item.add_marker(pytest.mark.skip(reason=NOT_IN_MEMORY[name]))


def backend_of(item: pytest.Item) -> str | None:
    callspec = getattr(item, "callspec", None)
    return callspec.params.get("fresh_index") if callspec else None


@pytest.fixture
def many(request: pytest.FixtureRequest) -> int:
    """As many points as are quick to search; the local mode looks at each one in Python."""
    return {"qdrant-memory": 300, "qdrant-grpc": 300}.get(str(backend_of(request.node)), 3000)


# The local mode looks at each point in Python; it is not what anybody runs.
@pytest.fixture(
    scope="session",
    params=[
        pytest.param(name, marks=pytest.mark.soak if name == "qdrant-memory" else ())
        for name in BACKENDS
    ],
)
def fresh_index(request: pytest.FixtureRequest) -> FreshIndex:
    return BACKENDS[request.param]
