from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from llm_trader.errors import InvalidInputError
from llm_trader.llm.decision import Decision
from llm_trader.llm.expiry import Expiry
from llm_trader.llm.record import decisions
from llm_trader.llm.record.decisions import DecisionFilter, Veto
from llm_trader.llm.record.record import DecisionRecord
from llm_trader.timeframe import DAY_MS
from tests.llm.record.calls import NOON_MS, open_record, reply, spent, started
from tests.llm.record.decisions import LONG, SHORT, recorded


@pytest.fixture
def record(tmp_path: Path) -> Iterator[DecisionRecord]:
    with open_record(tmp_path) as opened:
        yield opened


def replied(record: DecisionRecord, text: str, days_ago: int = 0) -> int:
    call = started(record, text, now_ms=NOON_MS - days_ago * DAY_MS)
    return record.calls.replied(call, reply(), Decimal("0.01"), NOON_MS).id


def test_decisions_are_found_by_all_that_a_person_remembers_of_them(
    record: DecisionRecord,
) -> None:
    held = Decision.hold("error", "timeout")
    added = [
        record.decisions.add(one)
        for one in (
            recorded(LONG),
            recorded(SHORT, symbol="ETHUSDT", model="gpt"),
            recorded(held, arm="baseline", origin="evaluate ab"),
            recorded(LONG, created_at_ms=NOON_MS + DAY_MS),
        )
    ]
    chosen = {
        (1, 2, 3, 4): DecisionFilter(),
        (2,): DecisionFilter(symbol="ETHUSDT", model="gpt"),
        (3,): DecisionFilter(hold_reason="error", arm="baseline", origin="evaluate ab"),
        (1, 4): DecisionFilter(action="LONG"),
        (4,): DecisionFilter(start_ms=NOON_MS + 1),
        (): DecisionFilter(symbol="DOGEUSDT"),
    }
    for numbers, filters in chosen.items():
        found = record.decisions.summaries(filters)
        assert [one.id for one in found] == [*reversed(numbers)]
        assert record.decisions.count(filters) == len(numbers)
        exported = [one.decision for one in record.decisions.export(filters)]
        assert exported == [added[number - 1] for number in numbers]
    assert [one.id for one in record.decisions.summaries(DecisionFilter(), limit=2)] == [4, 3]
    with pytest.raises(InvalidInputError, match=r"no decision 9 in .*llm-trader decisions list"):
        record.decisions.get(9)


def test_an_export_has_the_calls_of_each_decision_in_order(record: DecisionRecord) -> None:
    first, repair = replied(record, "one"), replied(record, "two")
    record.decisions.add(recorded(calls=[repair, first]))
    (one,) = record.decisions.export(DecisionFilter())
    assert [call.id for call in one.calls] == [repair, first]
    assert one.calls[0].request.messages[0].text == "two"


def test_an_export_of_many_parts_has_each_decision_once(
    record: DecisionRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decisions, "_PART", 4)
    for _ in range(10):
        record.decisions.add(recorded())
    numbers = [one.decision.id for one in record.decisions.export(DecisionFilter())]
    assert numbers == [*range(1, 11)]


def test_whether_a_decision_had_expired_is_added_later(record: DecisionRecord) -> None:
    made = record.decisions.add(recorded())
    expiry = Expiry(("price",), 12.0, 0.8, "the price moved +0.8 %")
    assert record.decisions.set_expiry(made.id, expiry).expiry == expiry
    assert record.decisions.get(made.id).expiry == expiry


def test_the_vetoes_of_guards_are_added_later_to_a_decision_that_stays(
    record: DecisionRecord,
) -> None:
    made = record.decisions.add(recorded(key="a-run/rag"))
    veto = Veto("data_age", "the market data are 700 s old", {"age_s": 700.0, "limit_s": 600.0})
    record.decisions.set_vetoes("a-run/rag", [veto])
    record.decisions.set_vetoes("another-run/rag", [veto])
    stored = record.decisions.get(made.id)
    assert (stored.decision, stored.vetoes) == (made.decision, [veto])
    # A guard that is asked again after a crash may say something else.
    record.decisions.set_vetoes("a-run/rag", [])
    assert record.decisions.get(made.id).vetoes == []


def test_pruning_removes_old_decisions_with_their_calls_and_keeps_what_is_still_used(
    record: DecisionRecord,
) -> None:
    old, shared, unused = (replied(record, text, days_ago=9) for text in ("old", "shared", "none"))
    fresh = replied(record, "fresh")
    record.decisions.add(recorded(calls=[old, shared], created_at_ms=NOON_MS - 9 * DAY_MS))
    kept = record.decisions.add(recorded(calls=[shared, fresh]))
    assert record.prune(NOON_MS - 2 * DAY_MS) == (1, 2)
    assert [one.id for one in record.decisions.summaries(DecisionFilter())] == [kept.id]
    assert [call.id for call in next(record.decisions.export(DecisionFilter())).calls] == [
        *(shared, fresh)
    ]
    assert record.prune(NOON_MS - 2 * DAY_MS) == (0, 0)
    # What was spent today is not forgotten.
    assert spent(record) == Decimal("0.01")
    assert unused not in (shared, fresh)


def test_two_processes_can_add_decisions_at_once(tmp_path: Path, record: DecisionRecord) -> None:
    with open_record(tmp_path) as other:
        numbers = [one.decisions.add(recorded()).id for one in (record, other) * 5]
    assert numbers == [*range(1, 11)]
