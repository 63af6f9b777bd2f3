"""States of the past have the series, and so the prompts, that the live ones had."""

from __future__ import annotations

import msgspec
import numpy as np

from llm_trader.app.indexes import open_retriever
from llm_trader.llm.cases import case_at, states_at
from llm_trader.llm.decision import Case
from llm_trader.llm.prompt.render import ARMS, render_prompt
from llm_trader.llm.prompt.retrieved import Retrieved
from llm_trader.market.store import MarketStore
from llm_trader.rpc.client import RpcClient
from llm_trader.snapshot.model import SERIES, MarketSnapshot
from llm_trader.snapshot.source import SnapshotSource
from llm_trader.timeframe import HOUR_MS, M5, Millis
from tests.cli.corridor import AT_MS, QUARTER_MS, SYMBOL, Corridor, answering

# Over midnight, with a hole in the middle.
TIMES = [AT_MS + hours * HOUR_MS for hours in (0, 1, 11, 12, 13, 40)]


async def live_prompts(client: RpcClient, as_of_ms: Millis) -> list[str]:
    """The text of each arm as a workflow has it: from what comes over the wire alone."""
    moment = {"symbol": SYMBOL, "timestamp": as_of_ms}
    current = await client.call("rag.get_snapshot", moment)
    snapshot = msgspec.convert(current["snapshot"], MarketSnapshot)
    result = await client.call("rag.query_patterns", moment)
    return both_arms(snapshot, msgspec.convert(result, Retrieved))


def both_arms(snapshot: MarketSnapshot, retrieved: Retrieved) -> list[str]:
    return [render_prompt(arm, snapshot, retrieved).user for arm in ARMS]


async def evaluated_prompts(corridor: Corridor) -> list[list[str]]:
    settings = corridor.settings()
    spec = settings.retrieval.search()
    times = np.array(TIMES, dtype=np.int64)
    prompts = []
    async with open_retriever(settings, {}) as retriever:
        with MarketStore.open(corridor.store) as store:
            for as_of_ms, state in zip(TIMES, states_at(store, SYMBOL, M5, times), strict=True):
                case = Case.of_answer(state, await retriever.query(state, as_of_ms, spec))
                assert case.answer is not None
                prompts.append(both_arms(case.state.snapshot(0), Retrieved.of_answer(case.answer)))
    return prompts


async def test_the_live_prompt_and_the_evaluated_one_of_a_state_are_the_same_text(
    corridor: Corridor,
) -> None:
    async with answering(corridor) as client:
        live = [await live_prompts(client, as_of_ms) for as_of_ms in TIMES]
    assert await evaluated_prompts(corridor) == live
    with_evidence, without = zip(*live, strict=True)
    assert len(set(with_evidence)) == len(set(without)) == len(TIMES)
    assert all(" -> " in prompt for prompt in with_evidence)
    # Nothing is unknown, the series least of all.
    assert not any("n/a" in prompt for prompt in without)


def test_a_case_of_one_state_is_that_of_many_with_its_series(corridor: Corridor) -> None:
    with MarketStore.open(corridor.store) as store:
        view = SnapshotSource(store, M5, QUARTER_MS).view(SYMBOL)
        states = states_at(store, SYMBOL, M5, np.array(TIMES, dtype=np.int64))
        snapshots = [state.snapshot(0) for state in states]
        assert snapshots == [case_at(view, as_of_ms).state.snapshot(0) for as_of_ms in TIMES]
    assert [snapshot.timestamp for snapshot in snapshots] == TIMES
    assert all(len(getattr(snapshot, name)) == 10 for snapshot in snapshots for name in SERIES)
