"""Both faces of the client over TLS, on both doors of a server, with certificates made here."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from llm_trader.client import ConnectionLostError, RetryPolicy
from llm_trader.client.calls import other, ping
from llm_trader.client.errors import Unauthorized
from llm_trader.errors import ConfigurationError
from llm_trader.rpc.builtin import Pong
from llm_trader.rpc.config import RpcConfig
from llm_trader.rpc.keys import KeyRing
from llm_trader.rpc.tls import ServerTls, pinned_context
from tests.client.doors import Face, face
from tests.rpc.certificates import Authority
from tests.rpc.stub import Doors, serving_http

NOW_MS = 1_780_000_000_000
FACES = pytest.mark.parametrize("kind", ["threads", "tasks"])
DOORS = pytest.mark.parametrize("scheme", ["tls", "https"])


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@asynccontextmanager
async def secured(
    authority: Authority, *, client_ca: Path | None = None, keys: KeyRing | None = None
) -> AsyncIterator[Doors]:
    certificate = authority.issue("server")
    tls = ServerTls(RpcConfig(tls_certificate=certificate, tls_client_ca=client_ca), lambda: NOW_MS)
    tls.load()
    async with serving_http(tls=tls, keys=keys) as doors:
        yield doors


@asynccontextmanager
async def calling(
    kind: str, scheme: str, doors: Doors, tls: ssl.SSLContext, token: str | None = None
) -> AsyncIterator[Face]:
    port = (doors.tcp if scheme == "tls" else doors.http)[1]
    once = RetryPolicy(attempts=1)
    url = f"{scheme}://localhost:{port}"
    async with face(kind, url, tls=tls, token=token, retries=once) as client:
        yield client


@FACES
@DOORS
async def test_calls_are_answered_over_tls_many_at_once_and_of_any_size(
    kind: str, scheme: str, authority: Authority
) -> None:
    async with (
        secured(authority) as doors,
        calling(kind, scheme, doors, authority.trusting()) as client,
    ):
        assert await client.send(ping()) == Pong(True, "1.2.3")
        asked = [other("subtract", {"minuend": n, "subtrahend": 1}) for n in range(20)]
        assert await client.send_all(asked) == [n - 1 for n in range(20)]
        assert len(await client.send(other("fill", {"size": 1_000_000}))) == 1_000_000
        sent = "x" * 300_000
        assert (await client.send(other("query", _query(sent))))["params"]["symbol"] == sent


@FACES
@DOORS
async def test_where_clients_need_certificates_only_those_of_the_authority_count(
    kind: str, scheme: str, authority: Authority, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "strangers").issue("stranger")
    async with secured(authority, client_ca=authority.certificate) as doors:
        known = authority.trusting(authority.issue("desk"))
        async with calling(kind, scheme, doors, known) as client:
            assert await client.send(ping()) == Pong(True, "1.2.3")
        for shown in (None, stranger):
            async with calling(kind, scheme, doors, authority.trusting(shown)) as client:
                with pytest.raises(ConnectionLostError, match="or a certificate of this client"):
                    await client.send(ping())


@FACES
@DOORS
async def test_a_server_that_is_not_trusted_is_sent_nothing(
    kind: str, scheme: str, authority: Authority, tmp_path: Path
) -> None:
    others = Authority(tmp_path, "others")
    async with secured(authority, keys=KeyRing(["secret"])) as doors:
        for context in (others.trusting(), pinned_context(others.issue("another"))):
            async with calling(kind, scheme, doors, context, token="secret") as client:
                with pytest.raises(ConfigurationError, match=r"is not trusted: .*trust the auth"):
                    await client.send(ping())
        assert doors.gate.connections == 0
        pinned = pinned_context(tmp_path / "server.pem")
        async with calling(kind, scheme, doors, pinned, token="secret") as client:
            assert await client.send(other("get_data")) == ["hello", 5]


@FACES
async def test_a_client_and_a_server_of_which_only_one_speaks_tls_are_told_so(
    kind: str, authority: Authority
) -> None:
    once = RetryPolicy(attempts=1)
    async with secured(authority) as doors:
        for address in (f"tcp://localhost:{doors.tcp[1]}", f"http://localhost:{doors.http[1]}"):
            async with face(kind, address, retries=once) as client:
                with pytest.raises(ConnectionLostError, match=r"may expect TLS \(tls:// or https"):
                    await client.send(ping())
    async with (
        serving_http() as plain,
        calling(kind, "https", plain, authority.trusting()) as client,
    ):
        with pytest.raises(ConfigurationError, match="does not speak TLS as this client does"):
            await client.send(ping())


@FACES
@DOORS
async def test_a_key_is_sent_over_tls_and_a_wrong_one_is_refused(
    kind: str, scheme: str, authority: Authority
) -> None:
    async with secured(authority, keys=KeyRing(["right"])) as doors:
        trust = authority.trusting()
        async with calling(kind, scheme, doors, trust, token="right") as client:
            assert await client.send(other("get_data")) == ["hello", 5]
        async with calling(kind, scheme, doors, trust, token="wrong") as client:
            with pytest.raises(Unauthorized):
                await client.send(other("get_data"))


def _query(symbol: str) -> dict[str, object]:
    return {"symbol": symbol, "timestamp": 1, "current_state": {"price": 1.0, "rsi_7": 50.0}}
