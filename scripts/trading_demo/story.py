"""The demo step by step; each step says what it does and checks that it happened."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final

from llm_trader.client import Client
from llm_trader.llm.record.decisions import RecordedDecision
from llm_trader.llm.record.record import DecisionRecord
from llm_trader.timeframe import HOUR_MS, Millis
from trading_demo.processes import DemoError, Process
from trading_demo.screen import Screen, clock_time, decision_line
from trading_demo.steering import QUARTER_MS, Steering
from trading_demo.summary import Stretch, books_of, check, equity, lines, stretch_of
from trading_demo.surroundings import (
    DAY_START_MS,
    HISTORY_DAYS,
    SYMBOLS,
    Surroundings,
    listening,
    url_of,
)

_LONGEST_START_S: Final = 60.0
_ANSWER_S: Final = 20.0


@dataclass
class Story:
    surroundings: Surroundings
    screen: Screen
    stack: ExitStack
    _steering: Steering = field(init=False)
    _rag: Process = field(init=False)
    _model_url: str = ""
    _end_of_day_ms: Millis = 0
    _end_ms: Millis = 0

    def set_up(self, hours: int, more_hours: int) -> None:
        self._end_of_day_ms = DAY_START_MS + hours * HOUR_MS
        self._end_ms = self._end_of_day_ms + more_hours * HOUR_MS
        places, say = self.surroundings, self.screen.say
        say(f"1. An exchange replays a simulated market of {' and '.join(SYMBOLS)}.")
        exchange, model = places.exchange(self.stack), places.model(self.stack)
        collector = places.collector(self.stack, url_of(exchange))
        self._model_url = url_of(model)
        # In the first order of the second part.
        dying = ["--die-in-order-from-ms", str(self._end_of_day_ms)]
        workflow = places.workflow(self._model_url, *dying)
        self.stack.callback(lambda: self._steering.workflow.stop())
        self._steering = Steering(
            places,
            self.stack.enter_context(DecisionRecord.open(places.record)),
            workflow,
            [collector, exchange, model],
        )
        collector.event(lambda event: event.get("event") == "collecting", _LONGEST_START_S)
        self._rag = self.stack.enter_context(places.rag_server())
        states = 0
        for _ in SYMBOLS:
            states += int(
                collector.event(lambda event: bool(event.get("added")), _LONGEST_START_S)["added"]
            )
        say(f"2. data collect has stored {HISTORY_DAYS} days and indexed {states:,} states.")
        listening(self._rag)
        self._ask_first()
        listening(workflow)
        say("3. serve answers, a stub stands for the model, workflow serve takes snapshots.")
        self._watch_rag(True)

    def day(self) -> None:
        self.screen.say(
            f"4. The day begins after {self.screen.seconds():.0f} s. Each hour's last decision, "
            "its evidence:\n   what followed similar states [usually]; and the equity, USDT."
        )
        decisions = self._trade(DAY_START_MS, self._end_of_day_ms)
        stretch = self._stretch(decisions, DAY_START_MS, self._end_of_day_ms)
        least = len(decisions) * 9 // 10
        if len(decisions) - len(stretch.without_evidence()) < least:
            raise DemoError(f"fewer than {least} decisions had evidence")
        self._show(f"The day, {self.screen.seconds():.0f} s from the start:", stretch)

    def kills(self) -> None:
        """The workflow is killed first, as its time was set when it was started."""
        middle_ms = (self._end_of_day_ms + self._end_ms) // 2
        middle_ms -= middle_ms % QUARTER_MS
        self.screen.say(
            "\n5. It goes on: the workflow is killed in the middle of an order, and half-way\n"
            "   the RAG server."
        )
        self._steering.restart = self._restart
        decisions = self._trade(self._end_of_day_ms, middle_ms)
        self._watch_rag(False)
        self._rag.kill()
        self.screen.say(f"   {clock_time(middle_ms)} the RAG server is killed by SIGKILL")
        later = self._trade(middle_ms, self._end_ms)
        stretch = self._stretch([*decisions, *later], self._end_of_day_ms, self._end_ms)
        self._check_kills(stretch, later)
        self._show(f"With the kills, {self.screen.seconds():.0f} s from the start:", stretch)
        run = self._steering.killed_run
        self.screen.named("resumed", f"{run}: done, one order")
        reasons = {one.retrieval_error for one in later}
        self.screen.named("baseline", f"{len(later)} decisions without the server, which say why:")
        for reason in sorted(filter(None, reasons))[:1]:
            self.screen.named("", reason[:66])

    def _check_kills(self, stretch: Stretch, later: list[RecordedDecision]) -> None:
        run = self._steering.killed_run
        if run is None:
            raise DemoError("no order was placed in which the workflow could be killed")
        if (count := stretch.orders_of(run)) != 1:
            raise DemoError(f"run {run} was killed in its order and has {count} orders, not 1")
        for one in later:
            if one.has_evidence or one.arm_used != "baseline" or not one.retrieval_error:
                raise DemoError(
                    f"decision {one.id} of {one.symbol} was made without the server and does not "
                    "say so"
                )

    def _trade(self, start_ms: Millis, end_ms: Millis) -> list[RecordedDecision]:
        made: list[RecordedDecision] = []
        count = (end_ms - start_ms) // QUARTER_MS
        for number, pair in enumerate(self._steering.decisions(start_ms, count), 1):
            made += pair
            worth = equity(books_of(self.surroundings))
            last = pair[number // 4 % len(pair)]
            shown = decision_line(last, worth)
            if number % 4 == 0 or number == count:
                self.screen.say(f"   {shown}")
            else:
                self.screen.progress(number, count, f"{number} of {count} quarter-hours")
        return made

    def _stretch(
        self, decisions: list[RecordedDecision], start_ms: Millis, end_ms: Millis
    ) -> Stretch:
        self._steering.stand_still()
        stretch = stretch_of(self.surroundings, decisions, start_ms, end_ms)
        check(stretch, len(SYMBOLS) * (end_ms - start_ms) // QUARTER_MS)
        return stretch

    def _show(self, title: str, stretch: Stretch) -> None:
        self.screen.say(f"\n{title}")
        for name, text in lines(stretch):
            self.screen.named(name, text)

    def _restart(self) -> Process:
        now = clock_time(self.surroundings.clock.now_ms())
        run = self._steering.killed_run
        self.screen.say(
            f"   {now} the workflow is killed by SIGKILL in the order of its run\n"
            f"         {run}, and starts again"
        )
        return self.surroundings.workflow(self._model_url)

    def _watch_rag(self, is_watched: bool) -> None:
        watched = self._steering.watched
        watched.append(self._rag) if is_watched else watched.remove(self._rag)

    def _ask_first(self) -> None:
        """The first answer takes longest, as the index is read for it."""
        end_s = time.monotonic() + _ANSWER_S
        with Client(f"tcp://127.0.0.1:{self.surroundings.rag_port}") as client:
            for symbol in SYMBOLS:
                left_s = end_s - time.monotonic()
                client.query_patterns(symbol, DAY_START_MS - QUARTER_MS, timeout_s=left_s)
