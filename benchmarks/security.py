"""What a key, a line of the audit log and one of the journal of forecasts cost:
`python -m benchmarks --only security`.

All are microseconds, which two servers under load would not show. So calls with and without them
take turns in one process, and what they cost more is set against the whole query of a server in
the same run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import numpy as np

from benchmarks.processes import load, one_result, rag_server, request_line
from benchmarks.timing import Figure, in_turn
from benchmarks.workload import SYMBOLS, states
from llm_trader.audit.log import AuditLog
from llm_trader.forecasts.journal import ForecastJournal
from llm_trader.retrieval.answer import Answer, Evidence, ReferenceForecasts
from llm_trader.retrieval.forecast import NAMED_PLACES
from llm_trader.rpc.admission import Admission
from llm_trader.rpc.config import RpcConfig
from llm_trader.rpc.dispatcher import Dispatcher, Method, RequestContext
from llm_trader.rpc.keys import KeyRing
from llm_trader.rpc.observer import RequestObserver
from llm_trader.serving.wire import QueryPatternsParams
from llm_trader.timeframe import M15

_ROUNDS, _CALLS = 15, 400
_BURSTS = 5
# All keys of a file are compared with the one that was sent.
_KEYS = [f"key {number}" for number in range(20)]
_NAME = "rag.query_patterns"


def security(folder: Path) -> list[Figure]:
    rng = np.random.default_rng(0)
    tables = [states(symbol, 60) for symbol in SYMBOLS]
    queries = [request_line(tables, int(i), row=None, rng=rng) for i in rng.integers(0, 3, 3000)]
    with rag_server(folder) as (process, port):
        bursts = [load(process, port, 16, 480, queries) for _ in range(_BURSTS)]
        evidence = _evidence_of(one_result(port, queries[0]))
    query_us = median(burst.cpu_us for burst in bursts)
    recorded = _recorded(folder / "forecasts", evidence)
    audit = AuditLog(folder / "audit", [_NAME], now_ms=lambda: int(time.time() * 1000))
    loop = asyncio.new_event_loop()
    try:
        plain = _calls(loop, queries[0], KeyRing())
        keyed = _calls(loop, _with_key(queries[0]), KeyRing(_KEYS))
        audited = _calls(loop, queries[0], KeyRing(), audit)
        return [
            _share("a key in each call", keyed, plain, query_us, 0.05),
            _share("a line of the audit log", audited, plain, query_us, 0.10),
            _share("a line of the journal of forecasts", recorded, _no_calls, query_us, 0.05),
        ]
    finally:
        loop.close()
        audit.close()


def _share(
    what: str,
    subject: Callable[[], object],
    plain: Callable[[], object],
    query_us: float,
    most: float,
) -> Figure:
    pair = in_turn(subject, plain, _ROUNDS, 1)
    more_us = (pair.subject_s - pair.floor_s) / _CALLS * 1e6
    share = more_us / query_us
    told = f"{more_us:.1f} ({share:.2%} of {query_us:.0f})"
    return Figure(f"{what}: server CPU, µs (part of a query)", told, f"{most:.0%}", share <= most)


def _calls(
    loop: asyncio.AbstractEventLoop, line: bytes, keys: KeyRing, *observers: RequestObserver
) -> Callable[[], object]:
    """Many calls of a method that does nothing, in one dispatcher."""

    async def nothing(params: Any, context: RequestContext) -> None: ...

    method = Method(_NAME, QueryPatternsParams, nothing, "")
    dispatcher = Dispatcher([method], observers=observers)
    gate = Admission(RpcConfig(), keys)

    async def calls() -> None:
        for _ in range(_CALLS):
            reply = await dispatcher.handle(line, RequestContext(), gate)
            if reply is None or b'"result"' not in reply:
                raise SystemExit(f"unexpected reply: {reply!r}")

    return lambda: loop.run_until_complete(calls())


def _recorded(folder: Path, evidence: Evidence) -> Callable[[], object]:
    """Many forecasts, each of a quarter-hour of its own, so that each has a whole line."""
    quantiles = [
        [horizon.forecast.quantiles[place] for place in NAMED_PLACES]
        for horizon in evidence.horizons.values()
        if horizon.forecast is not None
    ]
    nothing: Any = None
    references = ReferenceForecasts(quantiles, quantiles)
    compared: dict[str, Any] = {"without_neighbours": quantiles, "references": references}
    answer = Answer([], nothing, evidence, [], [], 0, 0, 0, **compared)
    now_ms = int(time.time() * 1000)
    journal = ForecastJournal(folder, now_ms=lambda: now_ms)

    def record() -> None:
        nonlocal now_ms
        for number in range(_CALLS):
            now_ms += M15.ms
            journal.record("BTCUSDT", now_ms, answer, f"request-{number}")

    return record


def _evidence_of(result: bytes) -> Evidence:
    return msgspec.convert(msgspec.json.decode(result)["evidence"], Evidence)


def _no_calls() -> None: ...


def _with_key(line: bytes) -> bytes:
    request = msgspec.json.decode(line)
    request["params"]["_meta"] = {"token": _KEYS[-1]}
    return msgspec.json.encode(request) + b"\n"
