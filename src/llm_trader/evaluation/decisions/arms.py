"""The arms of a language model in an A/B: what is asked for each, and the decisions as it traded.

All arms decide on the same states; they differ in what the prompt says of each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from llm_trader.arrays import Times
from llm_trader.errors import LlmTraderError
from llm_trader.evaluation.backtest.strategies import BASELINE, MASKED, MODEL_ARMS, RAG, GivenArm
from llm_trader.evaluation.dataset import Dataset
from llm_trader.evaluation.decisions.cases import Evidences
from llm_trader.evaluation.decisions.deciding import Ask, Made, price_of
from llm_trader.evaluation.results import DecidedArm
from llm_trader.llm.cases import states_at
from llm_trader.llm.decision import Case
from llm_trader.llm.prompt.render import Arm
from llm_trader.market.store import MarketStore
from llm_trader.progress import Progress, no_progress
from llm_trader.timeframe import Millis

_PROMPTS: Final[dict[str, Arm]] = {RAG: "rag", BASELINE: "baseline"}


class ArmAsks(NamedTuple):
    """What one arm is asked about the states of one symbol, in the order of time."""

    symbol: str
    arm: str
    time_ms: Times
    asks: list[Ask]


def model_arms(arm_a: str, arm_b: str, *, masked: bool) -> list[str]:
    """The arms that a model decides in; with `masked` each is also asked with masked prompts."""
    named = [arm for arm in (arm_a, arm_b) if arm in MODEL_ARMS]
    extra = [arm + MASKED for arm in named if masked and not arm.endswith(MASKED)]
    return list(dict.fromkeys([*named, *extra]))


async def arm_asks(
    dataset: Dataset,
    store: MarketStore,
    evidences: Evidences,
    arms: Sequence[str],
    step_ms: Millis,
    progress: Progress = no_progress,
) -> list[ArmAsks]:
    """Every query of the data set, with the evidence that a server would have had then.

    A state whose evidence failed is asked about all the same, and ends as a HOLD by error.
    """
    result = []
    for symbol in sorted(dataset.points):
        times_ms = dataset.queries(symbol, step_ms).timestamp_ms
        states = list(states_at(store, symbol, dataset.intraday, times_ms, dataset.rules))
        answers = await evidences.answers(states, progress)
        for arm in arms:
            prompt, masked = _PROMPTS[arm.removesuffix(MASKED)], arm.endswith(MASKED)
            asks = [
                Ask(Case(state), prompt, masked=masked, retrieval_error=answer.message)
                if isinstance(answer, LlmTraderError)
                else Ask(Case.of_answer(state, answer), prompt, masked=masked)
                for state, answer in zip(states, answers, strict=True)
            ]
            result.append(ArmAsks(symbol, arm, times_ms, asks))
    return result


def given_arms(
    parts: Sequence[ArmAsks], made: Sequence[Made], account_usd: float
) -> tuple[dict[str, dict[str, GivenArm]], list[DecidedArm]]:
    """The decisions as a backtest takes them, by symbol and arm, and what they were and cost.

    Bills are what a decision costs whoever pays now, also where its reply was on record.
    """
    results = iter(made)
    given: dict[str, dict[str, GivenArm]] = {}
    decided = []
    for part in parts:
        of_arm = [next(results) for _ in part.asks]
        bills = np.array([one.cost_usd for one in of_arm]) / account_usd
        decisions = [one.decision for one in of_arm]
        given.setdefault(part.symbol, {})[part.arm] = GivenArm(part.time_ms, decisions, bills)
        decided.append(
            DecidedArm(
                symbol=part.symbol,
                arm=part.arm,
                states=len(decisions),
                actions=dict(Counter(d.action for d in decisions)),
                holds=dict(Counter(d.hold_reason for d in decisions if d.hold_reason)),
                price=price_of(of_arm),
                bill_pct=100 * float(bills.sum()),
            )
        )
    return given, decided


def all_asks(parts: Sequence[ArmAsks]) -> list[Ask]:
    return [ask for part in parts for ask in part.asks]
