from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.embedding import minilm
from tests.redis_server import RedisServer, redis_server


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def redis_url(redis: RedisServer) -> str:
    return redis.url


@pytest.fixture(scope="session")
def minilm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A local ONNX model of all-MiniLM-L6-v2; not to be written to."""
    reason = minilm.missing()
    if reason is not None:
        pytest.skip(reason)
    return minilm.build(tmp_path_factory.mktemp("model") / minilm.NAME)
