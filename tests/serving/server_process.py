"""`rag-rpc-server` as a process whose log, memory and CPU time a test can read, and a client."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import psutil

from tests.cli.corridor import Corridor, until
from tests.processes import Forked

SERVER = """
import resource, sys
limit = int(sys.argv[1])
if limit:
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
if sys.argv[2] == "asyncio":
    sys.modules["uvloop"] = None
from llm_trader.cli.main import rag_rpc_server
sys.argv[:] = ["rag-rpc-server", *sys.argv[3:]]
rag_rpc_server()
"""
DRAIN_TIMEOUT_S = 2.0


class Server:
    """`rag-rpc-server` as a process; its log lines are collected as they come."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.log: list[dict[str, Any]] = []
        self._connections: list[socket.socket] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert until(lambda: self.events("rpc_listening"), 30), self.log
        self.port = self.events("rpc_listening")[0]["port"]
        self.usage = psutil.Process(process.pid)

    @property
    def http_port(self) -> int:
        assert until(lambda: self.events("http_listening"), 30), self.log
        return int(self.events("http_listening")[0]["port"])

    def events(self, name: str) -> list[dict[str, Any]]:
        return [line for line in self.log if line["event"] == name]

    def memory(self) -> int:
        return int(self.usage.memory_info().rss)

    def cpu_s(self) -> float:
        times = self.usage.cpu_times()
        return float(times.user + times.system)

    def connect(self) -> socket.socket:
        """Closed at the end of the test at the latest."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        self._connections.append(connection)
        return connection

    def close(self) -> None:
        self.process.kill()
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self._reader.join()

    def _read(self) -> None:
        for line in self.process.stderr or ():
            self.log.append(json.loads(line) if line.startswith("{") else {"event": line})


class Client:
    """Asks one thing after the other, and keeps the seconds of each."""

    def __init__(self, server: Server) -> None:
        self._socket = server.connect()
        self._buffer = b""
        self.seconds: list[float] = []

    def ask(self, document: Any) -> Any:
        started_s = time.monotonic()
        self._socket.sendall(json.dumps(document).encode() + b"\n")
        while b"\n" not in self._buffer:
            data = self._socket.recv(1 << 20)
            if not data:
                raise ConnectionError("the server closed the connection")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        reply = json.loads(line)
        self.seconds.append(time.monotonic() - started_s)
        return reply


@contextmanager
def server_of(
    corridor: Corridor,
    *flags: str,
    files: int = 0,
    loop: str = "uvloop",
    settings: Mapping[str, str] | None = None,
    alone: bool = False,
) -> Iterator[Server]:
    """With `alone` the process has loaded nothing but what a server loads: its memory counts."""
    command = [sys.executable, "-c", SERVER, str(files), loop, "--port", "0"]
    command += ["--store", str(corridor.store), "--index", str(corridor.index)]
    environ = os.environ | {
        "LLM_TRADER_LOGGING__FORMAT": "json",
        "LLM_TRADER_SERVING__DRAIN_TIMEOUT_S": str(DRAIN_TIMEOUT_S),
        **(settings or {}),
    }
    popen = subprocess.Popen if alone else Forked
    with popen([*command, *flags], stderr=subprocess.PIPE, text=True, env=environ) as process:
        server = Server(process)
        try:
            yield server
        finally:
            server.close()


def call(method: str, call_id: int = 1, params: Any = None) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, "id": call_id, "params": params or {}}
