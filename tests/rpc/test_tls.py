"""TLS of both doors over real sockets, with certificates made here."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import shutil
import socket
import ssl
from contextlib import suppress
from pathlib import Path

import pytest
import structlog
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from llm_trader.errors import ConfigurationError
from llm_trader.rpc.certificate_dates import end_of_certificate_ms
from llm_trader.rpc.client import RpcClient
from llm_trader.rpc.config import RpcConfig
from llm_trader.rpc.server import RpcServer
from llm_trader.rpc.tls import ServerTls, pinned_context, tls_of
from llm_trader.storage.file_follower import FileFollower
from tests.rpc.certificates import END, Authority
from tests.rpc.stub import connected, serving, serving_http, until

NOW_MS = 1_780_000_000_000


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def loaded(certificate: Path, client_ca: Path | None = None) -> ServerTls:
    config = RpcConfig(tls_certificate=certificate, tls_client_ca=client_ca)
    tls = ServerTls(config, lambda: NOW_MS)
    tls.load()
    return tls


async def difference(server: RpcServer, context: ssl.SSLContext) -> int:
    async with await RpcClient.connect(*server.address, tls=context) as client:
        return int(await client.call("subtract", [5, 3]))


async def closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


async def serial_of(server: RpcServer, context: ssl.SSLContext) -> str:
    _, writer = await asyncio.open_connection(*server.address, ssl=context)
    certificate = writer.get_extra_info("peercert")
    await closed(writer)
    return str(certificate["serialNumber"])


async def test_calls_are_answered_over_tls_many_at_once(authority: Authority) -> None:
    async with (
        serving(tls=loaded(authority.issue("server"))) as server,
        await RpcClient.connect(*server.address, tls=authority.trusting()) as client,
    ):
        sent = [client.call("subtract", [n, 1]) for n in range(50)]
        assert await asyncio.gather(*sent) == [n - 1 for n in range(50)]
        assert len(await client.call("fill", [2_000_000])) == 2_000_000


async def test_a_client_may_trust_the_servers_own_certificate_and_no_other(
    authority: Authority,
) -> None:
    path = authority.issue("server")
    async with serving(tls=loaded(path)) as server:
        assert await difference(server, pinned_context(path)) == 2
        with pytest.raises(ConfigurationError, match="is not trusted"):
            await difference(server, pinned_context(authority.issue("other")))


async def test_clients_that_leave_or_reject_the_certificate_leave_no_error_in_the_log(
    authority: Authority, tmp_path: Path
) -> None:
    trust, distrust = authority.trusting(), Authority(tmp_path, "others").trusting()
    with structlog.testing.capture_logs() as logs:
        async with serving_http(tls=loaded(authority.issue("server"))) as doors:
            for address in (doors.tcp, doors.http):
                _, writer = await asyncio.open_connection(*address, ssl=trust)
                await until(lambda: doors.gate.connections == 1)
                await closed(writer)
                _, writer = await asyncio.open_connection(*address, ssl=trust)
                writer.write(b"half a document")
                writer.transport.abort()
                with pytest.raises(ssl.SSLCertVerificationError):
                    await asyncio.open_connection(*address, ssl=distrust)
                await until(lambda: doors.gate.connections == 0)
    assert {log["log_level"] for log in logs} <= {"debug", "info"}, logs


async def test_a_server_with_tls_answers_nobody_in_the_clear_and_stays(
    authority: Authority,
) -> None:
    async with serving(tls=loaded(authority.issue("server"))) as server:
        async with connected(server) as line:
            line.send_json({"jsonrpc": "2.0", "method": "rpc.ping", "id": 1})
            with pytest.raises((ValueError, ConnectionError, AssertionError)):
                assert await line.receive() is not None
        assert await difference(server, authority.trusting()) == 2


async def test_http_speaks_tls_with_the_same_certificate(authority: Authority) -> None:
    async with serving_http(tls=loaded(authority.issue("server"))) as doors:
        reader, writer = await asyncio.open_connection(*doors.http, ssl=authority.trusting())
        body = json.dumps({"jsonrpc": "2.0", "method": "subtract", "params": [5, 3], "id": 1})
        head = "POST /rpc HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        await reader.readuntil(b"\r\n\r\n")
        assert b'"result":2' in await reader.readuntil(b"}")
        await closed(writer)


async def test_websockets_speak_tls_and_are_closed_with_their_codes(authority: Authority) -> None:
    with structlog.testing.capture_logs() as logs:
        async with serving_http(tls=loaded(authority.issue("server"))) as doors:
            address = f"wss://localhost:{doors.http[1]}/ws"
            async with connect(address, ssl=authority.trusting()) as client:
                await client.send('{"jsonrpc":"2.0","method":"fill","params":[300000],"id":1}')
                assert len(json.loads(await client.recv())["result"]) == 300_000
            async with connect(address, ssl=authority.trusting()) as client:
                await client.send(b"binary")
                with pytest.raises(ConnectionClosed) as end:
                    await client.recv()
            await until(lambda: doors.gate.connections == 0)
    assert end.value.rcvd is not None
    assert end.value.rcvd.code == 1003
    assert {log["log_level"] for log in logs} <= {"debug", "info"}, logs


async def test_where_clients_need_certificates_only_those_of_the_authority_count(
    authority: Authority, tmp_path: Path
) -> None:
    strangers = Authority(tmp_path, "strangers")
    tls = loaded(authority.issue("server"), client_ca=authority.certificate)
    async with serving(tls=tls) as server:
        assert await difference(server, authority.trusting(authority.issue("desk"))) == 2
        for client in (None, strangers.issue("stranger")):
            with pytest.raises((ConfigurationError, OSError)):
                await difference(server, authority.trusting(client))


async def test_a_new_certificate_is_taken_up_without_a_restart(
    authority: Authority, tmp_path: Path
) -> None:
    path = shutil.copy(authority.issue("one"), tmp_path / "server.pem")
    config = RpcConfig(tls_certificate=path)
    tls = ServerTls(config, lambda: NOW_MS)
    follower = FileFollower("certificate", tls.paths, tls.load)
    async with serving(tls=tls) as server:
        before = await serial_of(server, authority.trusting())
        async with await RpcClient.connect(*server.address, tls=authority.trusting()) as client:
            shutil.copy(authority.issue("two"), path)
            assert follower.look() is None
            assert await serial_of(server, authority.trusting()) != before
            assert await client.call("subtract", [5, 3]) == 2  # the old connection goes on


@pytest.mark.parametrize("harm", ["garbage", "ended", "foreign key", "missing"])
async def test_a_bad_new_certificate_keeps_the_old_one_and_says_why(
    authority: Authority, tmp_path: Path, harm: str
) -> None:
    path = Path(shutil.copy(authority.issue("one"), tmp_path / "server.pem"))
    tls = ServerTls(RpcConfig(tls_certificate=path), lambda: NOW_MS)
    follower = FileFollower("certificate", tls.paths, tls.load)
    harms = {
        "garbage": b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "ended": authority.issue("old", ends=dt.datetime(2021, 1, 1, tzinfo=dt.UTC)).read_bytes(),
        "foreign key": _half(authority.issue("a"), 0) + _half(authority.issue("b"), 1),
    }
    async with serving(tls=tls) as server:
        if harm in harms:
            await asyncio.to_thread(path.write_bytes, harms[harm])
        else:
            await asyncio.to_thread(path.unlink)
        with structlog.testing.capture_logs() as logs:
            reason = follower.look()
        assert reason
        assert "server.pem" in reason
        assert [log["event"] for log in logs] == ["certificate_not_reloaded"]
        assert await difference(server, authority.trusting()) == 2


def _half(path: Path, which: int) -> bytes:
    """The certificate or the key of a file that has both."""
    mark = b"-----BEGIN PRIVATE KEY-----"
    halves = path.read_bytes().partition(mark)
    return halves[0] if which == 0 else mark + halves[2]


def test_the_end_of_a_certificate_is_read_in_both_notations(authority: Authority) -> None:
    for ends in (END, dt.datetime(2031, 7, 4, 12, 30, 15, tzinfo=dt.UTC)):
        pem = authority.issue("one", ends=ends).read_text()
        assert end_of_certificate_ms(pem) == ends.timestamp() * 1000


@pytest.mark.parametrize("size", [0, 10, 60, 100, 200])
def test_a_cut_certificate_is_refused_and_crashes_nothing(size: int) -> None:
    der = bytes([0x30, 0x82, 0x01, 0x00, 0x30, 0x81, 0xF0]) + bytes(size)
    with pytest.raises((ValueError, ConfigurationError)):
        end_of_certificate_ms(ssl.DER_cert_to_PEM_cert(der))


def test_a_certificate_near_its_end_is_warned_about_once_a_day(
    authority: Authority, tmp_path: Path
) -> None:
    path = authority.issue("one", ends=dt.datetime(2026, 6, 1, tzinfo=dt.UTC))
    now_ms = [int(dt.datetime(2026, 5, 1, tzinfo=dt.UTC).timestamp() * 1000)]
    tls = ServerTls(RpcConfig(tls_certificate=path), lambda: now_ms[0])
    with structlog.testing.capture_logs() as logs:
        tls.load()
        assert not logs
        for _ in range(20 * 4):
            now_ms[0] += 6 * 3_600_000
            assert tls.context
    assert {log["event"] for log in logs} == {"certificate_ends"}
    assert len(logs) in (3, 4)


async def test_stalled_handshakes_of_one_address_leave_places_for_others(
    authority: Authority,
) -> None:
    limits = {"max_connections": 8, "max_connections_per_address": 4}
    async with serving(tls=loaded(authority.issue("server")), **limits) as server:
        host, port = server.address
        stalled = [socket.create_connection((host, port)) for _ in range(30)]
        try:
            await asyncio.sleep(0.2)
            with socket.socket() as other:
                # All of 127.0.0.0/8 is this machine.
                other.bind(("127.0.0.2", 0))
                other.setblocking(False)
                loop = asyncio.get_running_loop()
                await loop.sock_connect(other, (host, port))
                context = authority.trusting()
                _, writer = await asyncio.open_connection(
                    sock=other, ssl=context, server_hostname="localhost"
                )
                await closed(writer)
        finally:
            for connection in stalled:
                connection.close()


@pytest.mark.parametrize("other", ["tls_key", "tls_client_ca"])
def test_a_key_or_an_authority_without_a_certificate_is_refused(other: str) -> None:
    with pytest.raises(ConfigurationError, match=r"of no use without serving\.tls_certificate"):
        tls_of(RpcConfig(**{other: Path("x.pem")}), None)
