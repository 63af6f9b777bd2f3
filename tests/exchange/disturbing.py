"""Disturbs a collector: it is killed and started again, its connections fail, its requests too."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from signal import SIGKILL
from typing import NamedTuple

from llm_trader.timeframe import Millis
from tests.exchange.collecting import Collector
from tests.exchange.faults import ANY_VENUE, Kind
from tests.exchange.server import FakeExchange
from tests.exchange.stream_faults import CONNECTION_FAULTS, ConnectionFault

REQUEST_FAULTS: tuple[Kind, ...] = (*ANY_VENUE, "banned", "null", "wrong_shape")
# Of so many kills one strikes while the collector is still fetching what it lacks.
_EARLY_KILL_OF = 4
_PATIENCE_S = 60.0


class Event(NamedTuple):
    """`fault` is None where the collector is killed."""

    time_ms: Millis
    fault: ConnectionFault | None


def random_events(
    start_ms: Millis, end_ms: Millis, *, kills: int, connections: int, rng: random.Random
) -> list[Event]:
    faults: list[ConnectionFault | None] = [None] * kills
    faults += [rng.choice(CONNECTION_FAULTS) for _ in range(connections)]
    return sorted((Event(rng.randrange(start_ms, end_ms), fault) for fault in faults), key=_time)


def _time(event: Event) -> Millis:
    return event.time_ms


@dataclass
class Disturber:
    """`start` starts a collector; a killed one is started again at once."""

    exchange: FakeExchange
    start: Callable[[], AbstractContextManager[Collector]]
    rng: random.Random
    kills: int = 0
    connection_faults: int = 0
    # Collectors that gave up, as the exchange did not answer at their start.
    given_up: int = 0
    _stack: ExitStack = field(default_factory=ExitStack)
    _collector: Collector | None = None
    _starts: int = 0

    @contextmanager
    def running(self) -> Iterator[Disturber]:
        """Within it a collector runs; it is killed at the end unless it was stopped."""
        with self._stack:
            self._restart()
            yield self

    def go_through(self, events: list[Event]) -> None:
        for event in events:
            while self.exchange.market.now_ms < event.time_ms:
                time.sleep(0.01)
            if event.fault is None:
                self._kill()
            else:
                self._fail_connections(event.fault)

    def collector(self) -> Collector:
        """Once it collects."""
        self._wait(self._collects, "the collector does not begin")
        assert self._collector is not None
        return self._collector

    def _restart(self) -> None:
        self._stack.close()
        self._collector = self._stack.enter_context(self.start())
        self._starts = self._collections()

    def _kill(self) -> None:
        if self.rng.randrange(_EARLY_KILL_OF):
            self.collector()
        else:
            asked = len(self.exchange.asked) + self.rng.randrange(1, 12)
            self._wait(
                lambda: len(self.exchange.asked) >= asked or self._collects(),
                "the collector asks for nothing",
            )
        assert self._collector is not None
        process = self._collector.process
        process.send_signal(SIGKILL)
        self.kills += process.wait(10) == -SIGKILL
        self._restart()

    def _fail_connections(self, fault: ConnectionFault) -> None:
        self._wait(lambda: bool(self.exchange.sockets.connections), "the collector is not there")
        self.exchange.stream_faults.inject(fault)
        self.connection_faults += 1

    def _collects(self) -> bool:
        assert self._collector is not None
        if self._collector.process.poll() == 1:
            assert self._collector.log.splitlines()[-1].startswith("ExchangeError")
            self.given_up += 1
            self._restart()
        return self._collections() > self._starts

    def _collections(self) -> int:
        assert self._collector is not None
        return sum(entry["event"] == "collecting" for entry in self._collector.events)

    def _wait(self, is_true: Callable[[], bool], reason: str) -> None:
        until_s = time.monotonic() + _PATIENCE_S
        while not is_true():
            log = self._collector.log[-3000:] if self._collector else ""
            assert time.monotonic() < until_s, f"{reason}: {log}"
            time.sleep(0.02)
