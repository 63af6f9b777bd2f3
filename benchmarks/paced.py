"""Many clients that each ask now and then, by TCP and HTTP, and what they saw.

Run as `python -m benchmarks.paced TCP_PORT HTTP_PORT CONNECTIONS SECONDS PER_SECOND < lines`:
every other connection speaks HTTP; all together ask PER_SECOND times a second, at even times, and
0 is as often as there are replies. Prints a JSON object: seconds of the answers, refusals by code.
A connection that is refused as overloaded asks again at its next time.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from benchmarks.load import posted
from llm_trader.rpc.server import run

_LIMIT = 1 << 24


class Seen:
    """What all clients of a run saw."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.refusals: Counter[int] = Counter()
        self.errors: Counter[str] = Counter()

    def take(self, reply: bytes, seconds: float) -> None:
        if b'"result"' in reply[:60]:
            self.seconds.append(seconds)
        else:
            self.refusals[json.loads(reply)["error"]["code"]] += 1

    def summary(self) -> dict[str, Any]:
        ordered = sorted(self.seconds) or [0.0]
        return {
            "answers": len(self.seconds),
            "median_ms": ordered[len(ordered) // 2] * 1000,
            "p99_ms": ordered[int(len(ordered) * 0.99)] * 1000,
            "refusals": {str(code): count for code, count in self.refusals.items()},
            "errors": dict(self.errors),
        }


async def _reply(reader: asyncio.StreamReader, by_http: bool) -> bytes:
    if not by_http:
        return await reader.readuntil(b"\n")
    head = await reader.readuntil(b"\r\n\r\n")
    length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
    return await reader.readexactly(int(length))


async def _client(
    port: int,
    by_http: bool,
    lines: Iterator[bytes],
    times: Iterator[float],
    until_s: float,
    seen: Seen,
    *,
    paced: bool,
) -> None:
    """Asks at each of the times, or at once if it has passed."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=_LIMIT)
        for at_s in itertools.takewhile(lambda at_s: at_s < until_s, times):
            await asyncio.sleep(max(0.0, at_s - time.monotonic()))
            if time.monotonic() >= until_s:
                break
            line = next(lines)
            # Where the times are given, waiting to be sent counts.
            started_s = at_s if paced else time.monotonic()
            writer.write(posted(line) if by_http else line)
            seen.take(await _reply(reader, by_http), time.monotonic() - started_s)
        writer.close()
        await writer.wait_closed()
    except (OSError, EOFError, ValueError) as error:
        seen.errors[repr(error)[:200]] += 1


async def ask(
    ports: tuple[int, int], connections: int, seconds: float, per_second: float, lines: list[bytes]
) -> Seen:
    seen, documents = Seen(), itertools.cycle(lines)
    start_s = time.monotonic() + 0.5
    step_s = connections / per_second if per_second else 0.0
    async with asyncio.TaskGroup() as group:
        for number in range(connections):
            by_http = number % 2 == 1
            times = itertools.count(start_s + step_s * number / connections, step_s)
            client = _client(
                *(ports[by_http], by_http, documents, times, start_s + seconds, seen),
                paced=per_second > 0,
            )
            group.create_task(client)
    return seen


if __name__ == "__main__":
    tcp, http, connections = (int(argument) for argument in sys.argv[1:4])
    seconds, per_second = (float(argument) for argument in sys.argv[4:6])
    requests = sys.stdin.buffer.read().splitlines(keepends=True)
    seen = run(ask((tcp, http), connections, seconds, per_second, requests))
    print(json.dumps(seen.summary()))
