"""Receipts: every answer can be made again from store and index, and a changed one is found."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.app.ingestion import ingest_from_store
from llm_trader.app.job import Job
from llm_trader.app.receipts import verify_receipt
from llm_trader.errors import InvalidInputError
from llm_trader.rpc.dispatcher import RequestContext
from llm_trader.serving.mcp.receipts import digest_of
from llm_trader.timeframe import DAY_MS
from tests.cli.corridor import AT_MS, END_MS, Corridor
from tests.serving.mcp.clients import ARGUMENTS

REPRODUCIBLE = [name for name in ARGUMENTS if name not in ("data_status", "decisions")]


@pytest.fixture(scope="module")
def answers(corridor: Corridor) -> dict[str, Any]:
    """An answer of every tool."""
    from llm_trader.app.local_tools import local_parts

    async def ask() -> dict[str, Any]:
        async with local_parts(corridor.settings(), {}, lambda: END_MS) as parts:
            found = {}
            for tool, arguments in ARGUMENTS.items():
                outcome = await parts.tools.call(tool, arguments, RequestContext())
                assert isinstance(outcome, bytes), outcome
                found[tool] = json.loads(outcome)
            return found

    return asyncio.run(ask())


def job(corridor: Corridor, **overrides: Any) -> Job:
    return Job(corridor.settings(**overrides), {}, END_MS + 30 * DAY_MS)


def document(answer: Any) -> bytes:
    return json.dumps(answer).encode()


@pytest.mark.parametrize("tool", REPRODUCIBLE)
def test_an_answer_is_made_again_later_and_by_other_settings(
    corridor: Corridor, answers: dict[str, Any], tool: str
) -> None:
    others = {"retrieval__lookback_days": 7, "retrieval__top_k": 1, "retrieval__evidence_k": 12}
    report = verify_receipt(job(corridor, **others), document(answers[tool]))
    assert (report.outcome, report.passed) == ("same", True)
    assert report.made_again == answers[tool]["receipt"]["digest"]


def test_a_receipt_alone_suffices_and_so_does_what_programs_keep(
    corridor: Corridor, answers: dict[str, Any]
) -> None:
    answer = answers["forecast"]
    around = {"jsonrpc": "2.0", "id": 1, "result": {"structuredContent": answer, "content": []}}
    for kept in (answer["receipt"], around):
        assert verify_receipt(job(corridor), document(kept)).outcome == "same"


@given(st.data())
def test_any_changed_value_is_found_without_store_and_index(
    answers: dict[str, Any], data: st.DataObject
) -> None:
    tool = data.draw(st.sampled_from([*ARGUMENTS]))
    answer = json.loads(document(answers[tool]))
    place, path = answer, []
    while isinstance(place, dict | list) and place:
        keys = [k for k in place if path or k != "receipt"] if isinstance(place, dict) else None
        key = data.draw(st.sampled_from(keys if keys is not None else range(len(place))))
        path.append((place, key))
        place = place[key]
    parent, key = path[-1]
    parent[key] = "changed" if parent[key] != "changed" else None
    # The settings name no store that exists: it must not be needed.
    report = verify_receipt(job_of_nothing(), document(answer))
    assert (report.outcome, report.passed) == ("changed", False)


def job_of_nothing() -> Job:
    from llm_trader.settings.loading import load_settings

    nowhere = {"market.store": Path("/nowhere/store"), "index.path": Path("/nowhere/index")}
    return Job(load_settings(environ={}, overrides=nowhere), {}, END_MS)


def test_what_is_not_kept_is_said_to_be(answers: dict[str, Any]) -> None:
    for tool in ("data_status", "decisions"):
        report = verify_receipt(job_of_nothing(), document(answers[tool]))
        assert (report.outcome, report.passed) == ("not_kept", True)


def test_an_invented_answer_is_found_and_what_differs_is_named(
    corridor: Corridor, answers: dict[str, Any]
) -> None:
    answer = json.loads(document(answers["forecast"]))
    answer["horizons"]["4h"]["p_up"] = 0.99
    answer["receipt"]["digest"] = digest_of(answer)
    report = verify_receipt(job(corridor), document(answer))
    assert (report.outcome, report.versions) == ("different", {})
    assert [(d.field, d.answered) for d in report.differences] == [("horizons.4h.p_up", "0.99")]


def test_other_data_give_another_answer_or_say_why_there_is_none(
    corridor: Corridor, answers: dict[str, Any], tmp_path: Path
) -> None:
    index = tmp_path / "index"
    settings = corridor.settings(index__path=index)
    ingest_from_store(Job(settings, {}, END_MS), ["BTCUSDT"], AT_MS - 20 * DAY_MS, AT_MS)
    fewer = job(corridor, index__path=index)
    report = verify_receipt(fewer, document(answers["cohort_open"]))
    assert report.outcome == "different"
    assert "outcomes.window_states" in [d.field for d in report.differences]
    answer = json.loads(document(answers["forecast"]))
    answer["receipt"]["arguments"]["as_of"] = "2025-01-01T06:00:00Z"
    report = verify_receipt(job(corridor), document(answer["receipt"]))
    assert (report.outcome, report.made_again) == ("different", None)
    assert report.reason is not None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"{", "not JSON"),
        (b"[]", "neither a receipt nor an answer"),
        (b'{"receipt": 3}', "neither a receipt nor an answer"),
        (b'{"structuredContent": {"a": 1}}', "neither a receipt nor an answer"),
    ],
)
def test_what_has_no_receipt_is_refused(text: bytes, told: str) -> None:
    with pytest.raises(InvalidInputError, match=told):
        verify_receipt(job_of_nothing(), text)


def test_a_receipt_of_another_tool_or_of_other_settings_is_refused(
    corridor: Corridor, answers: dict[str, Any]
) -> None:
    receipt = dict(answers["forecast"]["receipt"])
    with pytest.raises(InvalidInputError, match="receipt is of the tool 'oracle'"):
        verify_receipt(job_of_nothing(), document(receipt | {"tool": "oracle"}))
    with pytest.raises(InvalidInputError, match="settings of searches are not of this version"):
        verify_receipt(job(corridor), document(receipt | {"search": {"magic": 1}}))


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**53), 2**53)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    )
)
def test_a_digest_survives_programs_that_write_numbers_otherwise(value: Any) -> None:
    def rewritten(value: Any) -> Any:
        """As JavaScript does: one kind of number, in the order that keys came."""
        if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
            return int(value)
        if isinstance(value, list):
            return [rewritten(item) for item in value]
        if isinstance(value, dict):
            return {name: rewritten(value[name]) for name in reversed(value)}
        return value

    assert digest_of({"a": value}) == digest_of(json.loads(json.dumps(rewritten({"a": value}))))
