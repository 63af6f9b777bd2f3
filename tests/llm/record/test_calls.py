from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from llm_trader.errors import ConfigurationError, StoreError
from llm_trader.llm.providers.protocol import LlmRequest, ProviderError
from llm_trader.llm.record.call_rows import CallFailure, RecordedCall
from llm_trader.llm.record.calls import Started, UnderWay
from llm_trader.llm.record.record import DecisionRecord
from llm_trader.llm.record.requests import canonical_json, request_hash
from llm_trader.timeframe import DAY_MS
from tests.llm.record.calls import NOON_MS, begin, open_record, reply, request, spent, started


@pytest.fixture
def record(tmp_path: Path) -> Iterator[DecisionRecord]:
    with open_record(tmp_path) as opened:
        yield opened


def left_behind(folder: Path, text: str = "What now?") -> None:
    """Leaves a call as a process does that dies: its lock is gone, and its row stays."""
    record = open_record(folder)
    started(record, text)
    record.close()


def test_the_hash_of_a_request_is_that_of_everything_in_it() -> None:
    changes = [
        *({"model": "other"}, {"system": "You wait."}, {"temperature": 0.1}, {"effort": "low"}),
        *({"schema": {"type": "object"}}, {"sample": 1}, {"provider": "openai"}),
    ]
    hashes = {request_hash(request(**one)) for one in [{}, *changes]} | {
        request_hash(request("And now?"))
    }
    assert len(hashes) == len(changes) + 2
    # A model writes its reply in the order of the schema.
    one, other = request(schema={"a": 1, "b": 2}), request(schema={"b": 2, "a": 1})
    assert request_hash(one) != request_hash(other)


def test_the_hash_of_a_request_stays_when_fields_with_a_default_are_added() -> None:
    assert canonical_json(request()) == (
        b'{"max_output_tokens":500,"messages":[{"role":"user","text":"What now?"}],'
        b'"model":"claude","provider":"anthropic","system":"You trade."}'
    )
    assert msgspec.json.decode(canonical_json(request()), type=LlmRequest) == request()


def test_a_call_is_on_record_from_its_start_to_its_reply(record: DecisionRecord) -> None:
    call_id = started(record)
    before = record.calls.get(call_id)
    assert (before.state, before.reply, before.cost_usd, before.reserved_usd) == (
        *("started", None, None),
        0.25,
    )
    ended = record.calls.replied(call_id, reply(), Decimal("0.0123"), NOON_MS + 900)
    assert ended == record.calls.get(call_id) == record.calls.find(request_hash(request()))
    assert (ended.state, ended.reply, ended.cost_usd) == ("replied", reply(), 0.0123)
    assert ended.request == request()
    assert (ended.started_at_ms, ended.ended_at_ms) == (NOON_MS, NOON_MS + 900)


def test_a_reply_on_record_is_used_again_unless_it_is_asked_for_anew(
    record: DecisionRecord,
) -> None:
    first = record.calls.replied(started(record), reply(), Decimal("0.01"), NOON_MS)
    assert begin(record) == first
    again = started(record, reuse=False)
    second = record.calls.replied(again, reply("LONG"), Decimal("0.01"), NOON_MS)
    assert begin(record) == second
    assert spent(record) == Decimal("0.02")


def test_a_failed_call_is_repeated(record: DecisionRecord) -> None:
    error = ProviderError("no answer", kind="timeout", attempts=4, latency_ms=30.0, unanswered=2)
    failed = record.calls.failed(started(record), error, Decimal("0.5"), NOON_MS)
    assert failed.failure == CallFailure(
        kind="timeout", message="no answer", attempts=4, latency_ms=30.0, unanswered=2
    )
    assert isinstance(begin(record), Started)
    assert record.calls.find(request_hash(request())) is None
    assert record.calls.find_ended(request_hash(request())) == failed


def test_a_call_that_was_left_behind_is_repeated_once_and_never_a_third_time(
    tmp_path: Path,
) -> None:
    left_behind(tmp_path)
    left_behind(tmp_path)
    with open_record(tmp_path) as record:
        refused = begin(record)
        assert isinstance(refused, RecordedCall)
        assert (refused.state, refused.cost_usd) == ("refused", 0.0)
        assert refused.failure is not None
        assert refused.failure.kind == "unended"
        assert "a third is not made" in refused.failure.message
        # The two may have been paid, so they count at their worst case.
        assert spent(record) == Decimal("0.5")
        assert isinstance(begin(record, "something else"), Started)
        assert isinstance(begin(record, reuse=False), Started)


def test_a_call_that_is_under_way_in_another_process_is_not_made_twice(tmp_path: Path) -> None:
    with open_record(tmp_path) as one, open_record(tmp_path) as other:
        call_id = started(one)
        assert begin(other) == UnderWay(call_id)
        ended = one.calls.replied(call_id, reply(), Decimal("0.01"), NOON_MS)
        assert begin(other) == ended


def test_the_budget_counts_open_and_lost_calls_at_their_worst_case(tmp_path: Path) -> None:
    left_behind(tmp_path, "lost")
    with open_record(tmp_path) as record:
        record.calls.replied(started(record, "paid"), reply(), Decimal("0.01"), NOON_MS)
        record.calls.replied(started(record, "tokens unknown"), reply(), None, NOON_MS)
        started(record, "open", symbol="ETHUSDT")
        assert spent(record) == Decimal("0.76")
        assert spent(record, days_later=1) == 0
        refused = begin(record, "too much", limit_usd="1.00")
        assert isinstance(refused, RecordedCall)
        assert refused.failure is not None
        assert refused.failure.kind == "budget"
        assert "0.7600 of the 1.00 USD of 2024-01-01" in refused.failure.message
        assert isinstance(begin(record, "fits", limit_usd="1.01"), Started)
        tomorrow = begin(record, "too much", limit_usd="0.25", now_ms=NOON_MS + DAY_MS)
        assert isinstance(tomorrow, Started)


def test_processes_that_ask_at_once_cannot_spend_the_same_money(tmp_path: Path) -> None:
    # Each with its own connection, as processes have; the file alone keeps them apart.
    begun: list[object] = []
    barrier = threading.Barrier(8)

    def spend(number: int) -> None:
        with open_record(tmp_path) as record:
            barrier.wait()
            begun.append(begin(record, f"question {number}", limit_usd="0.75"))
            barrier.wait()

    threads = [threading.Thread(target=spend, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(one, Started) for one in begun) == 3
    assert sum(isinstance(one, RecordedCall) for one in begun) == 5


def test_processes_may_make_the_record_at_the_same_time(tmp_path: Path) -> None:
    opened = []
    for attempt in range(5):
        barrier = threading.Barrier(6)

        def make(folder: Path, barrier: threading.Barrier) -> None:
            barrier.wait()
            with open_record(folder) as record:
                opened.append(started(record, threading.current_thread().name))

        place = tmp_path / str(attempt), barrier
        threads = [threading.Thread(target=make, args=place) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(opened) == 30


def test_keys_are_never_on_record(tmp_path: Path) -> None:
    key = "sk-live-0123456789abcdef"
    with DecisionRecord.open(tmp_path, secrets=[key, ""]) as record:
        refused = f"Incorrect API key provided: {key}; headers {{'authorization': 'Bearer {key}'}}"
        error = ProviderError(refused, kind="credentials", attempts=1, latency_ms=5.0)
        call = record.calls.failed(started(record), error, Decimal(0), NOON_MS)
        assert call.failure is not None
        assert call.failure.message.startswith("Incorrect API key provided: [removed];")
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert len(files) >= 3  # the file, its log, and the lock of the process
        assert not [path for path in files if key.encode() in path.read_bytes()]
    assert not {"key", "headers", "authorization"} & {*LlmRequest.__struct_fields__}


def test_a_record_that_is_not_there_or_not_one_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no record of decisions at .*llm-trader decide"):
        DecisionRecord.open(tmp_path / "none", create=False)
    (tmp_path / "record.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(StoreError, match="cannot be used: file is not a database; move it away"):
        open_record(tmp_path)


def test_a_record_of_a_newer_program_is_refused(tmp_path: Path) -> None:
    open_record(tmp_path).close()
    connection = sqlite3.connect(tmp_path / "record.sqlite")
    connection.execute("PRAGMA user_version = 9")
    connection.close()
    with pytest.raises(StoreError, match=r"record of decisions at .* has version 9, .* reads 1"):
        open_record(tmp_path)
