"""The server: plain HTTP/1.1 over asyncio, in a thread, so that it serves any kind of test."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from tests.llm.stub.apis import (
    PATHS,
    Api,
    PrefixCache,
    RejectedError,
    marked_prefix,
    read_request,
    reply_parts,
)
from tests.llm.stub.faults import Answer, End, Fault, Status, Step, error_body
from tests.llm.stub.replies import Decide, StubReply, StubRequest, by_schema

TEST_KEY = "sk-test-of-the-stub"


@dataclass(slots=True)
class StubServer:
    """A context manager; `requests` are those that were understood, in order of arrival, `sent` are
    the parts of their answers, and `arrivals` counts all. Scripted faults are used up one by one,
    `None` standing for none. `failures` are those of the stub itself, such as of `decide`.
    """

    decide: Decide = by_schema
    port: int = 0
    retired: frozenset[str] = frozenset()
    requests: list[StubRequest] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    sent: list[Sequence[bytes]] = field(default_factory=list)
    arrivals: int = 0
    failures: list[Exception] = field(default_factory=list)
    _script: deque[Fault | None] = field(default_factory=deque)
    _cache: PrefixCache = field(default_factory=PrefixCache)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _thread: threading.Thread | None = None
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _ready: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def script(self, *faults: Fault | None) -> None:
        self._script.extend(faults)

    def clear(self) -> None:
        """As new: no script, no memory of requests."""
        self._script.clear()
        self.requests.clear()
        self.headers.clear()
        self.sent.clear()
        self._cache.seen.clear()
        self.failures.clear()
        self.arrivals = 0

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run, name="stub of models", daemon=True)
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        assert self._thread is not None
        self._thread.join()
        self._loop.close()

    def _run(self) -> None:
        self._loop.run_until_complete(self.serve())

    async def serve(self) -> None:
        """Until it is stopped."""
        connections: set[asyncio.Task[Any]] = set()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            connections.add(task)
            # It is cancelled at the end alone, and asyncio would call that a failure.
            with contextlib.suppress(asyncio.CancelledError):
                await self._connection(reader, writer)
            writer.close()
            connections.discard(task)

        server = await asyncio.start_server(connected, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        await asyncio.sleep(0)  # their sockets are closed in the next turn of the loop

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while (request := await _read(reader)) is not None:
                self.arrivals += 1
                try:
                    steps = self._steps(*request)
                except Exception as error:  # noqa: BLE001  whoever runs the stub is told
                    self.failures.append(error)
                    steps = [End.ABORT]
                for step in steps:
                    if not await _take(step, writer, reader):
                        writer.transport.abort()
                        return

    def _steps(self, path: str, headers: dict[str, str], body: bytes) -> list[Step]:
        self.headers.append(headers)
        api = PATHS.get(path)
        if api is None:
            return Status(404, body=b'{"detail": "Not Found"}').steps(Answer("chat", [], False))
        answer, refusal = self._answer(api, headers, body)
        fault = self._script.popleft() if self._script else None
        if fault is not None:
            return fault.steps(answer)
        return refusal.steps(answer) if refusal else answer.steps()

    def _answer(
        self, api: Api, headers: dict[str, str], body: bytes
    ) -> tuple[Answer, Status | None]:
        """What the interface would say, and the error if it would refuse."""
        given = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")
        parsed = json.loads(body)
        nothing = Answer(api, [], bool(parsed.get("stream")))
        if api != "chat" and given != TEST_KEY:
            return nothing, Status(401, code=None if api == "messages" else "invalid_api_key")
        try:
            request = read_request(api, parsed)
        except RejectedError as error:
            return nothing, Status(400, body=error_body(api, 400, str(error)))
        self.requests.append(request)
        if request.model in self.retired:
            code = None if api == "messages" else "model_not_found"
            text = f"model: {request.model}" if api == "messages" else "The model does not exist"
            return nothing, Status(404, body=error_body(api, 404, text, code))
        said = self.decide(request)
        reply = StubReply(said) if isinstance(said, str) else said
        parts = reply_parts(request, reply, *self._cache.counts(marked_prefix(request)))
        self.sent.append(parts)
        return Answer(api, parts, nothing.stream), None


async def _read(reader: asyncio.StreamReader) -> tuple[str, dict[str, str], bytes] | None:
    """Path, headers and body of the next request; `None` at the end of the connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode().rstrip().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return first.split()[1].partition("?")[0], headers, body


async def _take(step: Step, writer: asyncio.StreamWriter, reader: asyncio.StreamReader) -> bool:
    """Whether the connection goes on."""
    match step:
        case bytes():
            writer.write(step)
            await writer.drain()
        case End.ABORT:
            return False
        case End.FOREVER:
            await reader.read()  # until the client gives up
            return False
        case float() | int():
            await asyncio.sleep(step)
    return True
