from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from llm_trader.errors import InvalidInputError
from llm_trader.llm.aggregator import Aggregator
from llm_trader.llm.decision import Case, Decider, Outlook
from llm_trader.llm.rules import AlwaysLong, MacdSign, RsiReversal
from llm_trader.retrieval.answer import Answer, Estimate, Evidence, HorizonEvidence
from llm_trader.retrieval.evidence import no_evidence
from llm_trader.retrieval.statistics import summarise
from llm_trader.snapshot.table import SnapshotTable
from llm_trader.timeframe import M5
from tests.llm.builders import NOON_MS, case


def estimate(value: float) -> Estimate:
    return Estimate(value, None, None, 0.0)


def evidence(**horizons: HorizonEvidence) -> Evidence:
    return Evidence("weak", "", 50, 0.9, 9000, 0.81, (0.7, 0.9), None, None, horizons)


def answer_of(told: Evidence) -> Answer:
    return Answer([], summarise([], []), told, [], [], 9000, 1, 1)


def outlooks_of(answer: Answer) -> Mapping[str, Outlook] | None:
    return Case.of_answer(case().state, answer).outlooks


P10, P25, P50, P75, P90 = (estimate(value) for value in (-2.0, -1.0, 0.3, 1.0, 2.0))
HOUR = HorizonEvidence(33.5, estimate(0.4), estimate(0.61), P10, P25, P50, P75, P90, None)


def test_an_outlook_takes_the_mean_the_median_and_the_share_of_its_horizon() -> None:
    answer = answer_of(evidence(**{"1h": HOUR}))
    assert outlooks_of(answer) == {"1h": Outlook(0.4, 0.3, 0.61, 50, 33.5, 0.81)}


def test_a_horizon_that_the_evidence_does_not_tell_of_has_no_outlook() -> None:
    assert outlooks_of(answer_of(evidence(**{"1h": HOUR}))).keys() == {"1h"}
    assert outlooks_of(answer_of(no_evidence("nothing alike", 0))) == {}


def test_an_answer_gives_a_case_all_the_horizons_it_tells_of() -> None:
    bare = case()
    answer = answer_of(evidence(**{"1h": HOUR, "4h": HOUR}))
    made = Case.of_answer(bare.state, answer)
    assert made.outlooks is not None
    assert made.outlooks.keys() == {"1h", "4h"}
    assert made.answer is answer


def test_a_case_knows_its_symbol_its_time_and_its_fields() -> None:
    one = case(rsi_7=25.0)
    assert (one.symbol, one.as_of_ms) == ("BTCUSDT", NOON_MS)
    assert one.value("rsi_7") == 25.0
    assert one.value("macd") is None


def test_a_case_is_of_one_state() -> None:
    with pytest.raises(InvalidInputError, match="2 rows"):
        Case(SnapshotTable.unknown("BTCUSDT", M5, np.array([NOON_MS, NOON_MS + 1])))


@pytest.mark.parametrize("decider", [Aggregator(), AlwaysLong(), RsiReversal(), MacdSign()])
async def test_every_decider_has_a_name_and_says_what_it_saw(decider: Decider) -> None:
    assert decider.name
    assert (await decider.decide(case(rsi_7=20.0, macd=1.0))).reasoning
