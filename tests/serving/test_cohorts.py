"""`rag.cohort_open`, `rag.cohort_refine` and `rag.cohort_rank` on a real store and index."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from llm_trader.retrieval.cohort.conditions import CONDITIONS, looks
from llm_trader.rpc.client import RpcClient, RpcError
from llm_trader.serving.cohorts import CohortRankResult, CohortResult
from llm_trader.timeframe import DAY_MS, MINUTE_MS, iso8601
from tests.cli.corridor import AT_MS, START_MS, SYMBOL, Corridor, answering

NAME = f"{SYMBOL}@{iso8601(AT_MS)}"


@pytest.fixture
async def rag(corridor: Corridor) -> AsyncIterator[RpcClient]:
    async with answering(corridor) as client:
        yield client


async def opened(rag: RpcClient, timestamp: int = AT_MS) -> CohortResult:
    moment = {"symbol": SYMBOL, "timestamp": timestamp}
    return await rag.call("rag.cohort_open", moment, CohortResult)


async def refined(rag: RpcClient, cohort: str, *conditions: str) -> CohortResult:
    params = {"cohort": cohort, "conditions": conditions}
    return await rag.call("rag.cohort_refine", params, CohortResult)


async def ranked(rag: RpcClient, cohort: str) -> CohortRankResult:
    return await rag.call("rag.cohort_rank", {"cohort": cohort}, CohortRankResult)


def timeless(result: Any) -> Any:
    return result.cohort, result.conditions, result.outcomes


async def test_a_cohort_is_opened_ranked_and_refined(rag: RpcClient) -> None:
    cohort = await opened(rag, AT_MS + 7 * MINUTE_MS)
    assert cohort.cohort == NAME
    assert cohort.metadata.as_of == AT_MS
    # Of 34 days that were known then.
    assert cohort.outcomes.states == round(0.1 * cohort.outcomes.window_states)
    ranking = await ranked(rag, cohort.cohort)
    assert {entry.condition for entry in ranking.ranking} == set(CONDITIONS)
    sizes = [abs(entry.deviation or 0) for entry in ranking.ranking]
    assert sizes == sorted(sizes, reverse=True)
    best = ranking.ranking[0]
    smaller = await refined(rag, cohort.cohort, best.condition)
    assert smaller.cohort == f"{NAME}/{best.condition}"
    assert smaller.outcomes.states == best.states == cohort.outcomes.conditions_left[best.condition]
    assert smaller.outcomes.looks == looks(1) > cohort.outcomes.looks


async def test_every_path_to_a_cohort_gives_the_same_answer_on_any_server(
    corridor: Corridor,
) -> None:
    async with answering(corridor) as rag:
        both = await refined(rag, NAME, "hour=8-16", "trend=up")
        by_turns = await refined(rag, (await refined(rag, NAME, "trend=up")).cohort, "hour=8-16")
        assert timeless(both) == timeless(by_turns)
    # A server that never heard of it, as another worker or after a restart.
    async with answering(corridor) as other:
        assert timeless(await refined(other, NAME, "trend=up", "hour=8-16")) == timeless(both)


async def test_going_back_and_asking_again_makes_no_look_cheaper(rag: RpcClient) -> None:
    first = await refined(rag, NAME, "trend=up")
    for condition in ("hour=0-8", "hour=8-16", "volume=low"):
        await refined(rag, NAME, condition)
    await opened(rag)
    again = await refined(rag, NAME, "trend=down")
    assert again.outcomes.looks == first.outcomes.looks == looks(1)


@pytest.mark.parametrize(
    ("cohort", "conditions", "reason"),
    [
        (NAME, ["trend=sideways"], "'trend=sideways' is unknown; choose from funding=negative"),
        (NAME + "/trend=up", ["trend=down"], "it already has trend=up"),
        (NAME.replace("12:00", "12:07"), ["trend=up"], "no usable state of BTCUSDT at"),
        (
            f"{SYMBOL}@{iso8601(START_MS - DAY_MS)}",
            ["trend=up"],
            "candle is too old: there is none",
        ),
        ("DOGEUSDT@2025-02-25T12:00:00Z", ["trend=up"], "DOGEUSDT"),
        ("nonsense", ["trend=up"], "no name of a cohort"),
    ],
)
async def test_what_cannot_be_a_cohort_is_refused(
    rag: RpcClient, cohort: str, conditions: list[str], reason: str
) -> None:
    with pytest.raises(RpcError, match=reason):
        await refined(rag, cohort, *conditions)


async def test_a_window_without_a_known_state_is_insufficient(rag: RpcClient) -> None:
    with pytest.raises(RpcError, match="similar past states found") as refusal:
        await opened(rag, START_MS + 20 * DAY_MS)
    assert refusal.value.rpc_code == -32001


async def test_a_server_without_a_store_says_what_a_cohort_needs(
    corridor: Corridor, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with answering(corridor, market__store="var/market") as storeless:
        with pytest.raises(RpcError, match="no market store; start it with --store"):
            await opened(storeless)
