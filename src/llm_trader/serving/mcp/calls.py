"""A call of a tool becomes a call of the dispatcher: the same gate, turns, limits and records."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from llm_trader.errors import LlmTraderError
from llm_trader.retrieval.retriever import Retriever
from llm_trader.retrieval.search_spec import SearchSpec
from llm_trader.rpc.admission import Admission
from llm_trader.rpc.dispatcher import Dispatcher, RequestContext
from llm_trader.rpc.errors import ErrorObject, FieldError, InvalidParamsError
from llm_trader.rpc.params import ParamsDecoder
from llm_trader.serving.mcp.receipts import Receipt, digest_of
from llm_trader.serving.mcp.tools import TOOLS, Tool, time_of, with_time
from llm_trader.serving.pattern_queries import PatternQueries
from llm_trader.serving.wire import SCHEMA_VERSION
from llm_trader.timeframe import Millis

_BY_NAME: Final = {tool.name: tool for tool in TOOLS}
_DECODERS: Final = {tool.name: ParamsDecoder(tool.arguments_type) for tool in TOOLS}
_ENCODER: Final = msgspec.json.Encoder()


class ToolCalls:
    """Answers calls of tools. Without a `clock` questions must say their time."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        gate: Admission,
        queries: PatternQueries,
        version: str,
        clock: Callable[[], Millis] | None,
    ) -> None:
        self.dispatcher = dispatcher
        self.gate = gate
        self._queries = queries
        self._version = version
        self._clock = clock

    async def call(
        self, name: str, arguments: Mapping[str, Any], context: RequestContext
    ) -> bytes | ErrorObject:
        """The answer of a known tool with its receipt, as JSON, or why there is none."""
        tool = _BY_NAME[name]
        try:
            complete = self._complete(tool, arguments)
            params = msgspec.json.encode(tool.params(complete))
        except LlmTraderError as error:
            # Refused calls count and are recorded like answered ones.
            return await self._refused(tool, error, context)

        def encode(result: Any) -> bytes:
            answer = tool.answer(result, getattr(complete, "symbol", None) or "")
            receipt = self._receipt(tool, complete, answer)
            return _ENCODER.encode(msgspec.structs.replace(answer, receipt=receipt))

        unsent = context.session.unsent
        try:
            return await self.dispatcher.call(tool.method, params, context, self.gate, encode)
        finally:
            unsent.batch_bytes = 0
            self.gate.budget.update(unsent, self.gate.clock.now_s())

    def _complete(self, tool: Tool, arguments: Mapping[str, Any]) -> Any:
        unknown: list[str] = []
        given = _DECODERS[tool.name].decode(msgspec.Raw(msgspec.json.encode(arguments)), unknown)
        if unknown:
            raise InvalidParamsError([FieldError(n, "is no argument of it") for n in unknown])
        return with_time(given, None if self._clock is None else self._clock())

    async def _refused(
        self, tool: Tool, error: LlmTraderError, context: RequestContext
    ) -> ErrorObject:
        gate, session = self.gate, context.session
        try:
            context.principal = gate.principal_of(None, session, context.received_s)
            await gate.admit("query", session, context.principal, context.received_s)
        except LlmTraderError as refusal:
            error = refusal
        outcome = self.dispatcher.error_object(error)
        self.dispatcher.observe(context, tool.method, outcome.code, None)
        return outcome

    def _receipt(self, tool: Tool, arguments: Any, answer: Any) -> Receipt:
        return Receipt(
            tool=tool.name,
            arguments=_built(arguments),
            as_of=time_of(arguments),
            search=_built(self._queries.defaults),
            versions=_versions(self._queries.retriever, self._version),
            reproducible=tool.reproducible,
            digest=digest_of(answer),
        )


def search_of(receipt: Receipt) -> SearchSpec:
    """Raises `msgspec.ValidationError` for the settings of another version."""
    return msgspec.convert(receipt.search, SearchSpec)


def _built(struct: Any) -> dict[str, Any]:
    """Its fields without those that say nothing."""
    built: dict[str, Any] = msgspec.to_builtins(struct)
    return {name: value for name, value in built.items() if value is not None}


def _versions(retriever: Retriever, version: str) -> dict[str, str | None]:
    collection, calibration = retriever.index.collection, retriever.calibration
    return {
        "program": version,
        "schema": str(SCHEMA_VERSION),
        "exchange": collection.exchange,
        "features": collection.feature_version,
        "state_vectors": collection.state_space_id,
        "text_vectors": collection.text_space_id,
        "volatility_model": collection.volatility_model,
        "calibration": None if calibration is None else calibration.calibration.digest,
    }
