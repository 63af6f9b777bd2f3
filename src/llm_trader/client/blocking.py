"""The client for threads: a call has a connection to itself, `send_all` puts many calls on one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

from llm_trader.client import calls
from llm_trader.client.blocking_pool import BlockingPool, Outcome
from llm_trader.client.calls import Call
from llm_trader.client.course import Course, Exchange, Step, Wait, course
from llm_trader.client.endpoint import Endpoint
from llm_trader.client.face import Face
from llm_trader.errors import LlmTraderError

P = ParamSpec("P")
T = TypeVar("T")


def _sent(build: Callable[P, Call[T]]) -> Callable[Concatenate[Client, P], T]:
    def send(client: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return client.send(build(*args, **kwargs))

    send.__doc__ = build.__doc__
    return send


class Client(Face[BlockingPool]):
    """Use it as a context manager, or call `close`; threads may share it.

    It opens at most `connections`; a call waits for one that is free.
    """

    def send(self, call: Call[T]) -> T:
        """The typed result of a call; raises the server's error by its type, or why none came."""
        return self.send_all([call])[0]

    def send_all(self, together: Sequence[Call[T]]) -> list[T]:
        """The results of many calls that are under way at once; the first error is raised."""
        results: dict[int, T] = {}
        courses = [
            course(call, self._retries, self._timeout_s, time.monotonic) for call in together
        ]
        steps: dict[int, Step] = {number: next(steps) for number, steps in enumerate(courses)}
        while steps:
            due = {n: step for n, step in steps.items() if isinstance(step, Exchange)}
            outcomes: dict[int, Outcome | None] = dict.fromkeys(due or steps)
            if due:
                outcomes.update(zip(due, self._exchange(list(due.values())), strict=True))
            else:
                time.sleep(max(step.seconds for step in steps.values() if isinstance(step, Wait)))
            for number, outcome in outcomes.items():
                try:
                    steps[number] = _next_step(courses[number], outcome)
                except StopIteration as done:
                    results[number] = done.value
                    del steps[number]
        return [results[number] for number in range(len(courses))]

    query_patterns = _sent(calls.query_patterns)
    query_briefly = _sent(calls.query_briefly)
    query_batch = _sent(calls.query_batch)
    get_snapshot = _sent(calls.get_snapshot)
    get_candles = _sent(calls.get_candles)
    get_funding = _sent(calls.get_funding)
    get_open_interest = _sent(calls.get_open_interest)
    compare_states = _sent(calls.compare_states)
    series_report = _sent(calls.series_report)
    cohort_open = _sent(calls.cohort_open)
    cohort_refine = _sent(calls.cohort_refine)
    cohort_rank = _sent(calls.cohort_rank)
    list_decisions = _sent(calls.list_decisions)
    get_decision = _sent(calls.get_decision)
    paper_account = _sent(calls.paper_account)
    list_evaluations = _sent(calls.list_evaluations)
    forecast_quality = _sent(calls.forecast_quality)
    stats = _sent(calls.stats)
    ping = _sent(calls.ping)
    discover = _sent(calls.discover)
    reload_settings = _sent(calls.reload_settings)

    def close(self) -> None:
        """Closes the connections that no call is using."""
        self._pool.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _exchange(self, exchanges: list[Exchange]) -> list[Outcome]:
        until_s = time.monotonic() + max(exchange.timeout_s for exchange in exchanges)
        try:
            with self._pool.connection(until_s) as connection:
                return connection.exchange(exchanges, time.monotonic())
        except LlmTraderError as error:
            return [error] * len(exchanges)

    def _pool_of(self, endpoint: Endpoint, connections: int) -> BlockingPool:
        return BlockingPool(endpoint, connections)


def _next_step(steps: Course[Any], outcome: Outcome | None) -> Step:
    if isinstance(outcome, LlmTraderError):
        return steps.throw(outcome)
    return steps.send(outcome)
