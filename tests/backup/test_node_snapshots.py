"""What a node answers over REST, in an operator's words, and how its shards are waited for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from llm_trader.errors import ConfigurationError, VectorIndexError
from llm_trader.index.qdrant import collection_snapshots
from llm_trader.index.qdrant.collection_snapshots import CollectionSnapshot, NodeSnapshots
from llm_trader.index.qdrant.config import QdrantServer

URL = "http://node-1.invalid:6333"
PLACE = QdrantServer(url=URL, api_key="secret-key", api_key_env="QDRANT_API_KEY")

Answers = Callable[[httpx.Request], httpx.Response]


def answering(monkeypatch: pytest.MonkeyPatch, answers: Answers) -> NodeSnapshots:
    """A node that answers as told."""
    transport = httpx.MockTransport(answers)
    monkeypatch.setattr(
        collection_snapshots,
        "_client",
        lambda place, url: httpx.AsyncClient(base_url=url, transport=transport),
    )
    monkeypatch.setattr(collection_snapshots, "_PAUSE_S", 0)
    return NodeSnapshots(PLACE, URL)


def raising(error: Exception) -> Answers:
    def answer(request: httpx.Request) -> httpx.Response:
        raise error

    return answer


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (401, "does not accept the API key in $QDRANT_API_KEY (while listing collections: why)"),
        (403, "does not allow this with the API key in $QDRANT_API_KEY; it needs one with more"),
        (404, "does not have that"),
        (413, "raise its service.max_request_size_mb"),
        (500, "fails with HTTP status 500 (while listing collections: why)"),
        (507, "is out of disk space"),
    ],
)
async def test_a_refusal_is_told_with_the_reason_that_the_server_gives(
    monkeypatch: pytest.MonkeyPatch, status: int, told: str
) -> None:
    refusal = httpx.Response(status, json={"status": {"error": "why"}})
    async with answering(monkeypatch, lambda request: refusal) as node:
        with pytest.raises(VectorIndexError) as refused:
            await node.collections()
    assert told in refused.value.message
    assert refused.value.message.startswith("Qdrant at node-1.invalid:6333 ")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (httpx.ConnectError("refused"), "cannot be reached; is it running"),
        (httpx.ConnectError("CERTIFICATE_VERIFY_FAILED"), "fails at TLS; check that it speaks"),
        (httpx.ReadTimeout(""), "did not answer in time; look at its load"),
        (httpx.RemoteProtocolError("gone"), "broke the connection; look at its log"),
    ],
)
async def test_a_lost_connection_is_told_with_what_to_look_at(
    monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
) -> None:
    async with answering(monkeypatch, raising(error)) as node:
        with pytest.raises(VectorIndexError, match=told):
            await node.collections()


async def test_the_key_is_never_told_even_if_the_server_repeats_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = httpx.Response(400, json={"status": {"error": "Api-Key: secret-key"}})
    async with answering(monkeypatch, lambda request: said) as node:
        with pytest.raises(VectorIndexError, match=r"Api-Key: \*\*\*"):
            await node.collections()


@pytest.mark.parametrize("content", [b"<html>", b"[]", b"{}"])
async def test_an_answer_that_is_not_qdrants_is_told(
    monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    async with answering(monkeypatch, lambda request: httpx.Response(200, content=content)) as node:
        with pytest.raises(VectorIndexError, match="answers, but not as Qdrant does"):
            await node.collections()


@pytest.mark.parametrize("checksum", [None, "0" * 64])
async def test_a_download_that_is_not_what_the_node_has_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, checksum: str | None
) -> None:
    told: list[int] = []
    async with answering(monkeypatch, lambda request: httpx.Response(200, content=b"x")) as node:
        made = CollectionSnapshot("a.snapshot", 5, checksum)
        if checksum is None:  # as old servers
            assert len(await node.download("c", made, tmp_path / "file", told.append)) == 64
            assert (told, (tmp_path / "file").read_bytes()) == ([1], b"x")
        else:
            with pytest.raises(VectorIndexError, match=r"arrived damaged \(1 of 5 bytes\)"):
                await node.download("c", made, tmp_path / "file", told.append)


def shards(*states: str, transfers: int = 0) -> httpx.Response:
    local = [{"shard_id": i, "state": state} for i, state in enumerate(states)]
    moving = [{"shard_id": i} for i in range(transfers)]
    result = {"local_shards": local, "remote_shards": [], "shard_transfers": moving}
    return httpx.Response(200, json={"result": result})


async def test_shards_are_waited_for_until_all_are_active_and_none_moves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    replies: Iterator[httpx.Response] = iter(
        [shards("Active", "Partial"), shards("Active", "Active", transfers=1), shards("Active")]
    )
    async with answering(monkeypatch, lambda request: next(replies)) as node:
        await node.until_active("c")
    assert list(replies) == []


async def test_shards_that_never_become_active_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collection_snapshots, "_SLOW_S", 0.05)
    async with answering(monkeypatch, lambda request: shards("Active", "Dead")) as node:
        with pytest.raises(VectorIndexError, match="still has shard 1 Dead of c not active"):
            await node.until_active("c")


@pytest.mark.parametrize("content", [None, b"no certificate"])
def test_a_ca_file_that_is_none_is_refused_by_its_setting(
    tmp_path: Path, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "ca.pem").write_bytes(content)
    place = QdrantServer(url="https://node.invalid", ca_file=tmp_path / "ca.pem")
    with pytest.raises(ConfigurationError, match=r"index\.qdrant\.ca_file .* cannot be read"):
        NodeSnapshots(place, place.url)
