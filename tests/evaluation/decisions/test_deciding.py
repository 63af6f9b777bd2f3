"""Many cases decided at once."""

from __future__ import annotations

import asyncio

import pytest

from llm_trader.errors import StoreError
from llm_trader.evaluation.decisions.deciding import Ask, Made, decide_all, price_of
from llm_trader.llm.decision import Case, Decision
from tests.llm.builders import case


class Slow:
    """Later cases are ready first; every fifth fails."""

    name = "it"
    at_once = 16

    def __init__(self, count: int) -> None:
        self.count, self.running, self.most = count, 0, 0

    async def make(self, ask: Ask) -> Made:
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep((self.count - ask.sample) / 20_000)
        self.running -= 1
        if ask.sample % 5 == 0:
            raise StoreError("the record cannot be written")
        return Made(Decision("LONG", None, str(ask.sample)), 0.5, 0.25, 10, 2)


def asks(count: int, of: Case | None = None) -> list[Ask]:
    return [Ask(of or case(), "rag", sample=i) for i in range(count)]


async def test_results_come_in_the_order_of_the_asks_and_a_failure_is_a_hold_by_error() -> None:
    seen: list[tuple[int, int]] = []
    decider = Slow(200)
    made = await decide_all(
        decider, asks(200), lambda label, done, total: seen.append((done, total))
    )
    assert [one.decision.reasoning for one in made[1:5]] == ["1", "2", "3", "4"]
    assert made[0].decision == Decision.hold("error", "the record cannot be written")
    assert sum(one.decision.hold_reason == "error" for one in made) == 40
    assert seen == [(i + 1, 200) for i in range(200)]
    assert decider.most == 16


async def test_a_bug_is_not_counted_as_a_failed_decision() -> None:
    class Broken(Slow):
        async def make(self, ask: Ask) -> Made:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await decide_all(Broken(3), asks(3))


async def test_an_interruption_begins_nothing_more_and_waits_for_what_is_under_way() -> None:
    class Counted(Slow):
        begun = ended = 0
        thirty = asyncio.Event()

        async def make(self, ask: Ask) -> Made:
            self.begun += 1
            if self.begun == 30:
                self.thirty.set()
            await asyncio.sleep(0.005)
            self.ended += 1
            return Made(Decision.hold("model", ""))

    decider = Counted(100)
    study = asyncio.create_task(decide_all(decider, asks(100)))
    await decider.thirty.wait()
    study.cancel()
    with pytest.raises(asyncio.CancelledError):
        await study
    assert 30 <= decider.begun == decider.ended < 64


def test_a_price_sums_what_was_paid_ever_and_now() -> None:
    price = price_of([Made(Decision.hold("model", ""), 0.5, 0.25, 10, 2)] * 4)
    assert (price.decisions, price.total_usd, price.new_usd) == (4, 2.0, 1.0)
    assert (price.per_decision_usd, price.input_tokens, price.output_tokens) == (0.5, 40, 8)
    assert price_of([]).per_decision_usd is None
