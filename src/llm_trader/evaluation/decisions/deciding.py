"""Many cases decided at once. One that fails is a HOLD that is counted, never the end of all."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from llm_trader.errors import LlmTraderError
from llm_trader.evaluation.results import Price
from llm_trader.llm.decision import Case, Decider, Decision
from llm_trader.llm.prompt.render import Arm
from llm_trader.progress import Progress, StepCounter, no_progress


class Made(NamedTuple):
    """A decision, and what it cost: `cost_usd` whenever it was paid, `new_usd` in this run."""

    decision: Decision
    cost_usd: float = 0.0
    new_usd: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0


class Ask(NamedTuple):
    """A case to decide on. `variant` names how its evidence was altered, `sample` which of several
    replies to the same prompt is meant; `retrieval_error` says why there is no evidence.
    """

    case: Case
    arm: Arm
    variant: str = "original"
    sample: int = 0
    masked: bool = False
    retrieval_error: str | None = None


class StudyDecider(Protocol):
    """Decides on the cases of a study; `name` identifies it in reports."""

    @property
    def name(self) -> str: ...

    @property
    def at_once(self) -> int:
        """How many decisions may be under way together."""
        ...

    async def make(self, ask: Ask) -> Made: ...


class KeylessDecider:
    """A decider that costs nothing, for the controls with a known answer."""

    at_once = 1

    def __init__(self, decider: Decider) -> None:
        self._decider = decider

    @property
    def name(self) -> str:
        return self._decider.name

    async def make(self, ask: Ask) -> Made:
        return Made(await self._decider.decide(ask.case))


async def decide_all(
    decider: StudyDecider, asks: Sequence[Ask], progress: Progress = no_progress
) -> list[Made]:
    """One result for each ask, in their order, whatever order they end in.

    Where it is cancelled, as by Ctrl-C, it begins nothing more, and ends when what is under way
    has: a call that is given up is paid for all the same.
    """
    results: list[Made | None] = [None] * len(asks)
    waiting = iter(enumerate(asks))
    counter = StepCounter(progress, "deciding", len(asks))
    stopped = False

    async def work() -> None:
        while not stopped and (pair := next(waiting, None)) is not None:
            results[pair[0]] = await _made(decider, pair[1])
            counter(1)

    workers = [asyncio.create_task(work()) for _ in range(min(decider.at_once, len(asks)))]
    try:
        await asyncio.shield(asyncio.gather(*workers))
    except asyncio.CancelledError:
        stopped = True
        under_way = sum(not worker.done() for worker in workers)
        progress("interrupted, waiting for calls under way", 0, under_way)
        await asyncio.gather(*workers, return_exceptions=True)
        raise
    finally:
        for worker in workers:
            worker.cancel()
    return [made for made in results if made is not None]


async def _made(decider: StudyDecider, ask: Ask) -> Made:
    try:
        return await decider.make(ask)
    except LlmTraderError as error:
        return Made(Decision.hold("error", error.message))


def price_of(made: Iterable[Made]) -> Price:
    decisions = list(made)
    total_usd = sum(one.cost_usd for one in decisions)
    return Price(
        decisions=len(decisions),
        total_usd=total_usd,
        new_usd=sum(one.new_usd for one in decisions),
        input_tokens=sum(one.input_tokens for one in decisions),
        output_tokens=sum(one.output_tokens for one in decisions),
        per_decision_usd=total_usd / len(decisions) if decisions else None,
    )
