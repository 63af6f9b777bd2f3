"""What a server would have answered to the queries of past states, computed for many at once.

A query at T sees what was known at T (`index/asof.py`), so the points of the whole backtest may lie
in memory. Answers are those of the server's own retriever, without a connection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from llm_trader.errors import InsufficientMatchesError, LlmTraderError
from llm_trader.retrieval.answer import Answer
from llm_trader.retrieval.retriever import Question, Retriever
from llm_trader.retrieval.search_spec import SearchSpec
from llm_trader.snapshot.model import MarketSnapshot
from llm_trader.snapshot.table import SnapshotTable
from llm_trader.timeframe import Millis
from llm_trader.workflow.graph.document import RpcConfig, ToolNode
from llm_trader.workflow.graph.model import Graph
from llm_trader.workflow.values import QueryInputs


@dataclass(slots=True, eq=False)
class StoredEvidence:
    """Takes the place of a RAG server whose settings are `defaults` and `min_matches`."""

    retriever: Retriever
    defaults: SearchSpec
    min_matches: int
    _states: dict[Millis, tuple[MarketSnapshot, SnapshotTable]] = field(default_factory=dict)
    _answers: dict[tuple[Millis, SearchSpec], Answer | LlmTraderError] = field(default_factory=dict)

    def search(self, query: Mapping[str, Any]) -> SearchSpec:
        """The defaults with what a node's `query` sets. Raises `InvalidInputError`."""
        return msgspec.convert({**msgspec.to_builtins(self.defaults), **query}, SearchSpec)

    async def prepare(
        self, states: Sequence[tuple[MarketSnapshot, SnapshotTable]], graph: Graph
    ) -> None:
        """Answers what the tools of a graph will ask about the next states of one symbol."""
        self._states = {snapshot.timestamp: (snapshot, table) for snapshot, table in states}
        self._answers.clear()
        questions = [Question(table, snapshot.timestamp) for snapshot, table in states]
        for search in searches_of(graph, self):
            answers = [one async for one in self.retriever.query_many(questions, search)]
            for question, answer in zip(questions, answers, strict=True):
                self._answers[question.as_of_ms, search] = answer

    async def __call__(
        self, inputs: QueryInputs, rpc: RpcConfig, query: Mapping[str, Any]
    ) -> Answer:
        search, stored = self.search(query), self._states.get(inputs.timestamp)
        answer: Answer | LlmTraderError | None = None
        # A graph may ask about a state that it has altered.
        if stored is not None and inputs.current_state in (None, stored[0]):
            answer = self._answers.get((inputs.timestamp, search))
        if answer is None:
            answer = await self._query(inputs, search)
        if isinstance(answer, LlmTraderError):
            raise answer
        required = min(self.min_matches, search.top_k)
        if len(answer.matches) < required:
            remedy = "increase lookback_days, or lower min_similarity, of the node's query"
            raise InsufficientMatchesError(len(answer.matches), required, remedy)
        return answer

    async def _query(self, inputs: QueryInputs, search: SearchSpec) -> Answer:
        if inputs.current_state is None:
            _, state = self._states[inputs.timestamp]
        else:
            intraday = self.retriever.space.intraday
            state = SnapshotTable.of_snapshot(inputs.current_state, intraday)
        return await self.retriever.query(state, inputs.timestamp, search)


def searches_of(graph: Graph, evidence: StoredEvidence) -> list[SearchSpec]:
    """The different searches of a graph's tools."""
    tools = [node.document for node in graph.nodes if isinstance(node.document, ToolNode)]
    return list(dict.fromkeys(evidence.search(tool.config.query) for tool in tools))
