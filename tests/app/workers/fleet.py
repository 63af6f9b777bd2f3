"""`rag-rpc-server --workers 2` as real processes, and a load on it that retries nothing."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.cli.corridor import AT_MS, SYMBOL, Corridor, console_script, until
from tests.processes import Forked
from tests.rpc.http import raw

QUERY = {"symbol": SYMBOL, "timestamp": AT_MS}
HOST = "127.0.0.1"


@dataclass(frozen=True)
class Fleet:
    process: subprocess.Popen[bytes]
    log: Path
    toml: Path

    @property
    def events(self) -> list[dict[str, Any]]:
        lines = self.log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def seen(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.events if line["event"] == event]

    def wait_for(self, event: str, times: int = 1) -> None:
        assert until(lambda: len(self.seen(event)) >= times, 30), self.log.read_text()

    @property
    def port(self) -> int:
        return int(self.seen("rpc_listening")[0]["port"])

    @property
    def http_port(self) -> int:
        return int(self.seen("http_listening")[0]["port"])

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()


def command_of(corridor: Corridor, *flags: str) -> list[str]:
    command = [console_script("rag-rpc-server"), "--port", "0", "--workers", "2"]
    command += ["--store", str(corridor.store), "--index", str(corridor.index)]
    return [*command, *flags]


@contextmanager
def fleet_of(corridor: Corridor, folder: Path, *flags: str) -> Iterator[Fleet]:
    log, toml = folder / "log.jsonl", folder / "settings.toml"
    toml.touch()
    command = command_of(corridor, "--config", str(toml), *flags)
    with log.open("wb") as errors, Forked(command, stderr=errors) as process:
        fleet = Fleet(process, log, toml)
        try:
            last = "rpc_listening" if "--no-http" in flags else "http_listening"
            fleet.wait_for(last)
            yield fleet
        finally:
            workers = [] if process.poll() is not None else fleet.workers()
            process.kill()
            for worker in workers:
                worker.kill()


@dataclass
class Load:
    """What clients saw. They send the next request when they have the reply to the last one."""

    fleet: Fleet
    answered: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    stopped: bool = False

    async def run(self) -> None:
        await asyncio.gather(
            *(self.over_tcp("tcp") for _ in range(2)),
            self.over_tcp("tcp, slowly", pause_s=0.1),
            self.over_tcp("a connection each", anew=True),
            *(self.over_http() for _ in range(2)),
        )

    async def over_tcp(self, name: str, *, pause_s: float = 0.05, anew: bool = False) -> None:
        line = json.dumps(raw.call("rag.query_patterns", QUERY)).encode() + b"\n"
        writer = None
        while not self.stopped:
            try:
                if writer is None:
                    reader, writer = await _connect(self.fleet.port)
                writer.write(line)
                reply = await asyncio.wait_for(reader.readline(), 10)
                self._note(name, json.loads(reply) if reply else {"error": "closed"})
                if not reply or anew:
                    writer = await _closed(writer)
            except OSError as error:
                self.failures.append(f"{name}: {error!r}")
                writer = await _closed(writer)
            await asyncio.sleep(pause_s)
        await _closed(writer)

    async def over_http(self) -> None:
        writer = None
        while not self.stopped:
            try:
                if writer is None:
                    reader, writer = await _connect(self.fleet.http_port)
                    connection = raw.Connection(reader, writer)
                connection.send(raw.post(raw.call("rag.query_patterns", QUERY)))
                reply = await connection.reply()
                self._note("http", reply.json if reply else {"error": "closed"})
                if reply is None:
                    writer = await _closed(writer)
            except OSError as error:
                self.failures.append(f"http: {error!r}")
                writer = await _closed(writer)
            await asyncio.sleep(0.05)
        await _closed(writer)

    def _note(self, name: str, reply: Any) -> None:
        if "result" in reply:
            self.answered[name] += 1
        else:
            self.failures.append(f"{name}: {str(reply)[:200]}")


async def _connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(HOST, port, limit=1 << 22)


async def _closed(writer: asyncio.StreamWriter | None) -> None:
    if writer is not None:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def fetched(fleet: Fleet, path: str) -> bytes:
    reader, writer = await _connect(fleet.http_port)
    reply = await raw.Connection(reader, writer).get(path)
    await _closed(writer)
    return reply.body


async def call(fleet: Fleet, method: str, params: Any = None) -> Any:
    """On a connection of its own, which any worker may get."""
    reader, writer = await _connect(fleet.port)
    writer.write(json.dumps(raw.call(method, params)).encode() + b"\n")
    reply = json.loads(await asyncio.wait_for(reader.readline(), 30))
    await _closed(writer)
    return reply


def metric(text: bytes, name: str, **labels: str) -> float:
    shown = ",".join(f'{label}="{value}"' for label, value in labels.items())
    wanted = f"{name}{{{shown}}}" if labels else name
    for line in text.decode().splitlines():
        if line.startswith(wanted + " "):
            return float(line.rpartition(" ")[2])
    raise AssertionError(f"{wanted} is not shown")


def ended(pids: list[int], within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while any(map(psutil.pid_exists, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(map(psutil.pid_exists, pids))
