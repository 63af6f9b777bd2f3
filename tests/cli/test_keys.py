from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.cli.conftest import Typing
from tests.cli.corridor import Corridor, serving_process


def test_a_key_is_shown_once_listed_without_itself_and_revoked(
    typed: Typing, tmp_path: Path
) -> None:
    path = tmp_path / "var" / "keys.json"
    made = typed(
        "llm-trader keys create desk --scopes query,admin --expires 30 --json --keys-file", path
    ).json
    assert made["key"]["scopes"] == ["query", "admin"]
    assert made["key"]["expires"] > made["key"]["created"]
    shown = typed("llm-trader keys list --keys-file", path)
    assert made["key"]["id"] in shown.out
    assert made["token"] not in shown.out + path.read_text()
    revoked = typed("llm-trader keys revoke desk --json --keys-file", path).json
    assert [key["status"] for key in revoked] == ["revoked"]
    (listed,) = typed("llm-trader keys list --json --keys-file", path).json
    assert listed["status"] == "revoked"


def test_a_person_sees_the_key_on_a_line_of_its_own(typed: Typing, tmp_path: Path) -> None:
    out = typed("llm-trader keys create desk --keys-file", tmp_path / "keys.json").out
    (key,) = [line.strip() for line in out.splitlines() if line.strip().startswith("llmt_")]
    assert len(key) == 48
    assert "shown only now" in out


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ("create desk", "no key file is set; name one with --keys-file"),
        ("create desk --keys-file K --scopes querry", "'querry' is no scope; the scopes are query"),
        ("create desk --keys-file K --scopes ,", "a key needs a scope"),
        ("create desk --keys-file K --expires 2001-01-01", "would have ended already"),
        ("create desk --keys-file K --expires soon", "is not RFC 3339"),
        ("list --keys-file K", "there is no key file"),
        ("revoke desk --keys-file K", "there is no key file"),
    ],
)
def test_mistakes_are_explained(
    typed: Typing, tmp_path: Path, arguments: str, problem: str
) -> None:
    line = arguments.replace(" K", f" {tmp_path / 'keys.json'}")
    result = typed(f"llm-trader keys {line}")
    assert result.code == 2
    assert problem in result.err


def test_a_running_server_follows_the_key_file(
    typed: Typing, corridor: Corridor, tmp_path: Path
) -> None:
    path = tmp_path / "keys.json"
    first = typed("llm-trader keys create first --json --keys-file", path).json["token"]
    flags = "--store", str(corridor.store), "--index", str(corridor.index), "--keys-file", str(path)
    with (
        serving_process(*flags) as (_, port),
        socket.create_connection(("127.0.0.1", port), 10) as connection,
        connection.makefile("rb") as replies,
    ):

        def call(method: str, token: str | None = None) -> Any:
            params = {"_meta": {"token": token}} if token else {}
            request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
            connection.sendall(msgspec.json.encode(request) + b"\n")
            return msgspec.json.decode(replies.readline())

        def until(refused: bool, token: str) -> None:
            """Asks with time between, as five wrong keys would close the connection."""
            for _ in range(4):
                time.sleep(0.6)
                if ("error" in call("rag.stats", token)) == refused:
                    return
            raise AssertionError(f"refused is still {not refused}")

        connection.sendall(
            msgspec.json.encode(
                {"jsonrpc": "2.0", "id": 0, "method": "rpc.authenticate", "params": [first]}
            )
            + b"\n"
        )
        assert msgspec.json.decode(replies.readline())["result"]["key"] == "first"
        assert "result" in call("rag.stats")
        second = typed("llm-trader keys create second --json --keys-file", path).json["token"]
        until(False, second)
        typed("llm-trader keys revoke first --keys-file", path)
        while "result" in (reply := call("rag.stats")):
            time.sleep(0.1)
        assert reply["error"]["code"] == -32010
        assert "result" in call("rag.stats", second)
