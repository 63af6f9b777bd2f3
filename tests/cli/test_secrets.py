"""A secret that is planted wherever a client or an operator may put it appears nowhere.

One server process with everything on: keys, tokens of the environment, TLS, the audit log, debug
lines. It runs on the loop of the installed program, so TLS of uvloop is tested as well.
"""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from llm_trader.rpc.key_file import create_key
from llm_trader.rpc.tls import pinned_context
from tests.audit.builders import verify
from tests.cli.conftest import Typing
from tests.cli.corridor import Corridor, console_script
from tests.processes import Forked
from tests.rpc.certificates import Authority

# Each is sent in another way; the server may show none of them.
ENVIRONMENT = "planted-in-the-environment-7f3a"
WRONG = "planted-as-a-wrong-key-9c1d"
METHOD = "planted_as_a_method_41be"
FIELD = "planted-as-a-value-of-a-field-e02c"


class Running(NamedTuple):
    port: int
    http_port: int
    folder: Path
    key: str
    said: list[str]


@pytest.fixture(scope="module")
def server(corridor: Corridor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("secrets")
    with running(corridor, folder) as server:
        yield server


@contextmanager
def running(corridor: Corridor, folder: Path) -> Iterator[Running]:
    Authority(folder).issue("server")
    keys = folder / "keys.json"
    _, key = create_key(keys, "desk", ["query"], now_ms=0, expires_at_ms=None)
    command = [console_script("rag-rpc-server"), "--port", "0", "--log-level", "trace"]
    command += ["--store", str(corridor.store), "--index", str(corridor.index)]
    command += ["--keys-file", str(keys), "--auth-tokens-env", "MY_TOKENS"]
    command += ["--tls-certificate", str(folder / "server.pem")]
    command += ["--audit-folder", str(folder / "audit")]
    environ = os.environ | {"MY_TOKENS": ENVIRONMENT, "LLM_TRADER_LOGGING__FORMAT": "json"}
    with Forked(command, stderr=subprocess.PIPE, text=True, env=environ) as process:
        assert process.stderr is not None
        said: list[str] = []
        ports: dict[str, int] = {}
        for line in process.stderr:
            said.append(line)
            event = msgspec.json.decode(line)
            if event["event"] in ("rpc_listening", "http_listening"):
                ports[event["event"]] = event["port"]
            if len(ports) == 2:
                break
        rest = threading.Thread(target=lambda: said.extend(process.stderr or ()))
        rest.start()
        try:
            yield Running(ports["rpc_listening"], ports["http_listening"], folder, key, said)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
            rest.join()


def asked(server: Running, *documents: Any) -> list[Any]:
    """The replies on a connection of its own, as values."""
    context = pinned_context(server.folder / "server.pem")
    with (
        socket.create_connection(("127.0.0.1", server.port), 20) as plain,
        context.wrap_socket(plain) as connection,
        connection.makefile("rb") as replies,
    ):
        for document in documents:
            raw = document if isinstance(document, bytes) else msgspec.json.encode(document)
            connection.sendall(raw + b"\n")
        return [msgspec.json.decode(replies.readline()) for _ in documents]


def call(method: str, params: Any = None) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}}


def over_http(server: Running, key: str, request: str = "POST /rpc") -> bytes:
    context = ssl.create_default_context(cafile=server.folder / "authority.pem")
    body = msgspec.json.encode(call("rag.stats")) if request.startswith("POST") else b""
    head = f"{request} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += f"Authorization: Bearer {key}\r\nConnection: close\r\n"
    with (
        socket.create_connection(("127.0.0.1", server.http_port), 20) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
        connection.makefile("rb") as reply,
    ):
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        return reply.read()


def test_no_secret_is_in_any_reply_log_line_or_file(server: Running) -> None:
    replies = [
        *asked(server, call("rpc.authenticate", [server.key]), call("rag.stats")),
        *asked(server, call("rpc.authenticate", {"token": ENVIRONMENT}), call("rpc.discover")),
        *asked(server, call("rag.stats", {"_meta": {"token": server.key}})),
        *asked(server, call("rpc.authenticate", [WRONG]), call("rag.stats")),
        *asked(server, call("rag.stats", {"_meta": {"token": WRONG}})),
        *asked(
            server, call("rag.stats", {"_meta": WRONG}), call("rpc.authenticate", {"tok": WRONG})
        ),
        *asked(server, call("rpc.authenticate", {"token": {"a": WRONG}})),
        *asked(server, f'{{"token": "{WRONG}"'.encode() + b"}"),
    ]
    sent_wrongly = [
        *asked(server, call("rpc.authenticate", [server.key]), call(METHOD)),
        *asked(
            server,
            call("rpc.authenticate", [server.key]),
            call("rag.query_patterns", {"symbol": 5, "timestamp": FIELD, "query_config": FIELD}),
        ),
    ]
    accepted, refused = over_http(server, server.key), over_http(server, WRONG)
    assert accepted.startswith(b"HTTP/1.1 200")
    assert refused.startswith(b"HTTP/1.1 401")
    codes = [reply.get("error", {}).get("code") for reply in replies]
    assert codes[:5] == [None] * 5
    assert set(codes[5:]) <= {-32010, -32602, -32600}
    pages = [
        over_http(server, key, f"GET {path}")
        for path in ("/metrics", "/readyz", "/openrpc.json", f"/{WRONG}", f"/metrics?key={WRONG}")
        for key in (server.key, ENVIRONMENT, WRONG)
    ]
    metrics = pages[0]
    assert b'llm_trader_requests_total{method="rag.stats"}' in metrics
    assert b'llm_trader_errors_total{code="-32010"' in metrics
    assert METHOD.encode() not in metrics
    assert FIELD.encode() not in metrics
    shown = f"{replies}{sent_wrongly[0]}{accepted!r}{refused!r}{pages}"
    written = "".join(path.read_text() for path in (server.folder / "audit").iterdir())
    written += (server.folder / "keys.json").read_text()
    for secret in (server.key, ENVIRONMENT, WRONG):
        assert secret not in shown + written
        assert not any(secret in line for line in server.said)
    # A name of a method goes back to its sender, and to the debug log; no value of a field does.
    assert METHOD not in written
    for place in (f"{sent_wrongly}", written, "".join(server.said)):
        assert FIELD not in place


def test_what_the_settings_show_names_the_places_of_secrets_and_no_secret(
    typed: Typing, server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_TOKENS", ENVIRONMENT)
    monkeypatch.setenv("LLM_TRADER_SERVING__AUTH_TOKENS_ENV", "MY_TOKENS")
    monkeypatch.setenv("LLM_TRADER_SERVING__KEYS_FILE", str(server.folder / "keys.json"))
    # Written into a URL it is a mistake, and that is said without repeating it.
    monkeypatch.setenv("LLM_TRADER_INDEX__QDRANT__URL", f"http://me:{WRONG}@localhost:6333")
    for line in ("config show", "config check", "index info"):
        result = typed(f"llm-trader {line}")
        assert result.code == 2
        assert "should hold no password" in result.err
        assert WRONG not in result.out + result.err
    monkeypatch.delenv("LLM_TRADER_INDEX__QDRANT__URL")
    for line in ("config show", "config show --json", "config check", "keys list"):
        result = typed(f"llm-trader {line}")
        assert result.code == 0, result.err
        for secret in (ENVIRONMENT, server.key):
            assert secret not in result.out + result.err
    assert "MY_TOKENS" in typed("llm-trader config show").out


def test_every_request_of_it_is_in_the_audit_log_which_is_whole(
    typed: Typing, server: Running
) -> None:
    asked(server, call("rag.stats", {"_meta": {"token": server.key}}))
    report = typed("llm-trader audit verify --json --audit-folder", server.folder / "audit")
    assert report.code == 0
    (chain,) = report.json["chains"]
    assert chain["problems"] == []
    path = next((server.folder / "audit").glob("*.jsonl"))
    requests = [msgspec.json.decode(line) for line in path.read_bytes().splitlines()][1:]
    assert requests[-1]["method"] == "rag.stats"
    assert requests[-1]["key_id"]
    assert verify(server.folder / "audit").passed


def test_a_command_line_asks_a_server_with_tls_and_keys(
    typed: Typing, server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DESK_KEY", server.key)
    line = f"llm-trader query --symbol BTCUSDT --json --port {server.port}"
    tls = ["--tls-certificate", server.folder / "server.pem"]
    asked_with = typed(line, "--auth-tokens-env", "DESK_KEY", *tls)
    assert asked_with.code == 0, asked_with.err
    assert "matches" in asked_with.json
    without = typed(line, *tls)
    assert without.code == 2
    assert "unauthorized; put your key into" in without.err
