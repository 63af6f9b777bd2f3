"""What keys and the audit log cost a query: `python -m benchmarks --only security`.

Three servers of one index take turns under the same load: one with nothing, one that looks at a key
in each call, and one that writes an audit log.
"""

from __future__ import annotations

from pathlib import Path
from statistics import median

import msgspec
import numpy as np

from benchmarks.processes import Load, bursts_in_turn, load, rag_server, request_line
from benchmarks.timing import Figure
from benchmarks.workload import SYMBOLS, states
from llm_trader.rpc.key_file import create_key

_CONNECTIONS, _REQUESTS = 16, 480
# A file with one key would look at one only.
_OTHER_KEYS = 20


def security(folder: Path) -> list[Figure]:
    rng = np.random.default_rng(0)
    tables = [states(symbol, 60) for symbol in SYMBOLS]
    queries = [request_line(tables, int(i), row=None, rng=rng) for i in rng.integers(0, 3, 3000)]
    keys = folder / "keys.json"
    for number in range(_OTHER_KEYS):
        create_key(keys, f"other {number}", ["query"], now_ms=0, expires_at_ms=None)
    _, token = create_key(keys, "desk", ["query"], now_ms=0, expires_at_ms=None)
    with_key = [_with_key(query, token) for query in queries]
    with (
        rag_server(folder) as plain,
        rag_server(folder, "--keys-file", str(keys)) as keyed,
        rag_server(folder, "--audit-folder", str(folder / "audit")) as audited,
    ):
        for server, requests in ((plain, queries), (keyed, with_key), (audited, queries)):
            load(*server, _CONNECTIONS, _REQUESTS, requests)  # most days have been asked for
        bursts = bursts_in_turn(
            {
                "plain": (*plain, _CONNECTIONS, _REQUESTS, queries),
                "keys": (*keyed, _CONNECTIONS, _REQUESTS, with_key),
                "audit": (*audited, _CONNECTIONS, _REQUESTS, queries),
            }
        )
    return [
        _share("a key in each call", bursts["keys"], bursts["plain"], 0.05),
        _share("the audit log", bursts["audit"], bursts["plain"], 0.10),
    ]


def _share(what: str, loads: list[Load], plain: list[Load], most: float) -> Figure:
    share = median(a.cpu_us / b.cpu_us - 1 for a, b in zip(loads, plain, strict=True))
    cpu_us, plain_us = (median(one.cpu_us for one in each) for each in (loads, plain))
    return Figure(
        f"{what}: server CPU of a query, more than without",
        f"{share:+.1%} ({cpu_us:.0f} against {plain_us:.0f} µs)",
        f"{most:.0%}",
        share <= most,
    )


def _with_key(line: bytes, token: str) -> bytes:
    request = msgspec.json.decode(line)
    request["params"]["_meta"] = {"token": token}
    return msgspec.json.encode(request) + b"\n"
