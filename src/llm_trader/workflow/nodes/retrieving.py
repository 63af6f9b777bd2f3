"""The tool: a query over JSON-RPC, and whether its answer is good enough to be shown."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from llm_trader.client import AsyncClient
from llm_trader.client.answers import answer_of_result
from llm_trader.errors import InsufficientMatchesError, LlmTraderError
from llm_trader.retrieval.answer import Answer
from llm_trader.timeframe import SECOND_MS
from llm_trader.workflow.graph.document import RpcConfig
from llm_trader.workflow.values import QueryInputs, Retrieval, plain


class VerdictError(LlmTraderError):
    """The evidence says too little; decide without it."""

    code = "verdict"


def retrieval_of(answer: Answer, min_matches: int, verdicts: Collection[str]) -> Retrieval:
    """Raises `LlmTraderError` for an answer that the node must not pass on."""
    evidence, matches = answer.evidence, len(answer.matches)
    if matches < min_matches:
        raise InsufficientMatchesError(matches, min_matches, "lower min_matches of the node")
    if evidence.verdict not in verdicts:
        raise VerdictError(
            f"the verdict of the evidence is {evidence.verdict}, and {' or '.join(verdicts)} is "
            f"needed: {evidence.reason}"
        )
    novelty = evidence.novelty.percentile if evidence.novelty else None
    return Retrieval(
        answer=answer, matches=matches, verdict=evidence.verdict, novelty_percentile=novelty
    )


@dataclass(slots=True)
class RpcRetrieve:
    """Queries servers over their own client; `url` takes the place of what graphs say."""

    connect: Callable[[str, float], AsyncClient]
    url: str | None = None
    _clients: dict[str, AsyncClient] = field(default_factory=dict)

    async def __call__(
        self, inputs: QueryInputs, rpc: RpcConfig, query: Mapping[str, Any]
    ) -> Answer:
        host = f"[{rpc.host}]" if ":" in rpc.host else rpc.host
        url = self.url or f"tcp://{host}:{rpc.port}"
        client = self._clients.get(url)
        if client is None:
            client = self._clients[url] = self.connect(url, rpc.timeout_ms / SECOND_MS)
        result = await client.query_patterns(
            inputs.symbol,
            inputs.timestamp,
            _state(inputs),
            timeout_s=rpc.timeout_ms / SECOND_MS,
            **query,
        )
        return answer_of_result(result)

    async def aclose(self) -> None:
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.close()


def _state(inputs: QueryInputs) -> dict[str, Any] | None:
    """The fields of a state; symbol and time stand beside it."""
    if inputs.current_state is None:
        return None
    state: dict[str, Any] = plain(inputs.current_state)
    return {name: value for name, value in state.items() if name not in ("symbol", "timestamp")}
