"""Leads the clock from boundary to boundary, and hears of each decision as it is executed.

1. Up to a boundary the clock runs fast.
2. It runs slowly until both symbols are decided on, so that a decision is as old as in use.
3. While a process starts again it runs like the clock on the wall: the start takes seconds, which
   would be hours of the day.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from llm_trader.llm.record.decisions import RecordedDecision
from llm_trader.llm.record.record import DecisionRecord
from llm_trader.timeframe import MINUTE_MS, SECOND_MS, Millis, iso8601
from llm_trader.workflow.nodes.running import decision_key
from trading_demo.processes import DemoError, Event, Process
from trading_demo.surroundings import SYMBOLS, Surroundings, listening

QUARTER_MS: Final[Millis] = 15 * MINUTE_MS
# A quarter-hour in a tenth of a second.
_FAST: Final = 9000.0
# A run takes a fifth of a second, so a decision is some ten seconds old when it is executed.
_SLOW: Final = 30.0
_LIKE_THE_WALL: Final = 1.0
# The candle that ends at the boundary is complete when the first update of the next one comes.
_DATA_AFTER_MS: Final = 7 * SECOND_MS
_LONGEST_DECISION_S: Final = 60.0
_LOOK_AGAIN_S: Final = 0.005
_LOOK_EVENT_S: Final = 0.02


@dataclass
class Steering:
    """`watched` are processes that must not end; `restart` starts the workflow once more."""

    surroundings: Surroundings
    record: DecisionRecord
    workflow: Process
    watched: list[Process]
    restart: Callable[[], Process] | None = None
    # The run in whose order the workflow was killed, and how long it was away.
    killed_run: str | None = None
    away_s: float = 0.0
    # What the workflow said while it started again: it goes on with its runs before it listens.
    _said: deque[Event] = field(default_factory=deque)

    def decisions(self, first_ms: Millis, count: int) -> Iterator[list[RecordedDecision]]:
        """Those of each boundary, when they have been executed."""
        for as_of_ms in range(first_ms, first_ms + count * QUARTER_MS, QUARTER_MS):
            self._run_up_to(as_of_ms + _DATA_AFTER_MS)
            yield self._decided(as_of_ms)

    def stand_still(self) -> None:
        self.surroundings.clock.go(_LIKE_THE_WALL)

    def _run_up_to(self, time_ms: Millis) -> None:
        clock = self.surroundings.clock
        if clock.now_ms() < time_ms:
            clock.go(_FAST, until_ms=time_ms, speed_then=_SLOW)
        while clock.now_ms() < time_ms:
            time.sleep(_LOOK_AGAIN_S)

    def _decided(self, as_of_ms: Millis) -> list[RecordedDecision]:
        made: dict[str, RecordedDecision] = {}
        end_s = time.monotonic() + _LONGEST_DECISION_S
        while len(made) < len(SYMBOLS):
            if time.monotonic() > end_s:
                missing = ", ".join(set(SYMBOLS) - set(made))
                raise DemoError(
                    f"{missing} had no decision at {iso8601(as_of_ms)} after "
                    f"{_LONGEST_DECISION_S:g} s; the collector said:\n{self.watched[0].said}\n"
                    f"and the workflow:\n{self.workflow.said}"
                )
            run = self._next_run()
            if run is None:
                continue
            decision = self.record.decisions.find_key(decision_key(run, "rag"))
            if decision is None:
                raise DemoError(f"run {run} was executed and has no decision on record")
            if decision.as_of_ms == as_of_ms:
                made[decision.symbol] = decision
        return [made[symbol] for symbol in SYMBOLS]

    def _next_run(self) -> str | None:
        """The next run that was executed, if one was."""
        event = self._said.popleft() if self._said else self.workflow.next_event(_LOOK_EVENT_S)
        for process in self.watched:
            process.check()
        if event is None:
            return None
        if "dies_in" in event:
            self._resume(str(event["dies_in"]))
        executed = event.get("executed")
        return None if executed is None else str(executed)

    def _resume(self, run: str) -> None:
        if self.restart is None:
            raise DemoError(f"the workflow died in run {run}, and nobody asked for that")
        self.killed_run, began_s = run, time.monotonic()
        self.surroundings.clock.go(_LIKE_THE_WALL)
        signal_ = self.workflow.ended_by()
        if signal_ is None or signal_.name != "SIGKILL":
            raise DemoError(f"the workflow was to die of SIGKILL, and ended by {signal_}")
        self.workflow = self.restart()
        self._said += listening(self.workflow)
        self.away_s = time.monotonic() - began_s
        self.surroundings.clock.go(_SLOW)
