"""The course of a call, without I/O: what to do next, until its result or its error.

A face of the client does each step, sends its outcome in, and gets the next step. So the deadline,
the attempts and the types are here once, for both faces.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator
from typing import Any, NamedTuple, TypeVar

from llm_trader.client.calls import Call
from llm_trader.client.retries import RetryPolicy
from llm_trader.errors import LlmTraderError
from llm_trader.rpc.conversation import NoReplyError, Reply

T = TypeVar("T")


class Exchange(NamedTuple):
    """Send a request and come back with its reply, or throw in why there is none."""

    method: str
    params: dict[str, Any]
    timeout_s: float


class Wait(NamedTuple):
    seconds: float


Step = Exchange | Wait
Course = Generator[Step, Reply | None, T]


def course(
    call: Call[T], policy: RetryPolicy, timeout_s: float, now_s: Callable[[], float]
) -> Course[T]:
    timeout_s = timeout_s if call.timeout_s is None else call.timeout_s
    deadline_s = now_s() + timeout_s
    for attempt in itertools.count(1):
        left_s = deadline_s - now_s()
        if left_s <= 0:
            raise NoReplyError(f"{call.method}: no reply in {timeout_s:g} s")
        try:
            # The server gives up a little earlier, so that its word for it still arrives.
            params = call.params_within(max(left_s - 0.05, left_s * 0.8))
            reply = yield Exchange(call.method, params, left_s)
            return call.result(reply or Reply())
        except LlmTraderError as error:
            left_s = deadline_s - now_s()
            wait_s = policy.wait_s(error, attempt, left_s, repeatable=call.repeatable)
            if wait_s is None:
                raise
        yield Wait(wait_s)
    raise AssertionError  # `count` does not end
