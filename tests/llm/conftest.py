from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.llm.stub.server import StubServer


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
