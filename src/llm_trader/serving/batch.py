"""Many queries in one request, which share work: the answers are those of single queries.

Queries of one symbol and one search are put in the order of their times and cut into blocks. A
block is one turn in the queue of all clients, with a pause after each answer, so that pings and
other clients' queries pass between. An answer is encoded as soon as it is made.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from llm_trader.errors import LlmTraderError
from llm_trader.retrieval.answer import Answer
from llm_trader.retrieval.retriever import Question
from llm_trader.retrieval.search_spec import SearchSpec
from llm_trader.rpc.dispatcher import RequestContext
from llm_trader.serving import wire
from llm_trader.serving.brief import BriefResult
from llm_trader.timeframe import DAY_MS

if TYPE_CHECKING:
    from llm_trader.serving.methods import Prepared, RagMethods

METHOD: Final = "rag.query_batch"
# Some 60 ms of CPU, for which other clients' queries wait; larger ones share hardly more.
_BLOCK: Final = 32
# Windows further apart share too little of a product to pay for the rest of it.
_SPAN_MS: Final = 15 * DAY_MS


class _Numbered(NamedTuple):
    number: int
    query: wire.PatternQuery


class EncodedBatch(msgspec.Struct, frozen=True):
    """`wire.QueryBatchResult`, its answers encoded."""

    answers: list[msgspec.Raw]
    metadata: wire.BatchMetadata


async def query_batch(
    methods: RagMethods, params: wire.QueryBatchParams, context: RequestContext
) -> EncodedBatch:
    started = time.perf_counter()
    run = _Run(methods, context, [msgspec.Raw()] * len(params.queries))
    groups: dict[tuple[str, SearchSpec], list[_Numbered]] = defaultdict(list)
    for number, query in enumerate(params.queries):
        try:
            search = methods.search(params.query_config, query.query_config)
        except LlmTraderError as error:
            run.refuse(number, error)
            continue
        groups[query.symbol, search].append(_Numbered(number, query))
    try:
        for (_, search), queries in groups.items():
            for block in _blocks(queries):
                await run.answer(block, search)
                await context.next_turn(METHOD)
    finally:
        context.session.unsent.batch_bytes -= run.reply_bytes
    duration_us = round((time.perf_counter() - started) * 1e6)
    return EncodedBatch(
        run.answers,
        wire.BatchMetadata(duration_us, context.request_id, context.unknown_fields, run.refused),
    )


def _blocks(queries: list[_Numbered]) -> Iterator[list[_Numbered]]:
    block: list[_Numbered] = []
    for numbered in sorted(queries, key=lambda numbered: numbered.query.timestamp):
        if block:
            span_ms = numbered.query.timestamp - block[0].query.timestamp
            if len(block) == _BLOCK or span_ms > _SPAN_MS:
                yield block
                block = []
        block.append(numbered)
    if block:
        yield block


class _Run:
    """One batch under way: its encoded answers by number."""

    def __init__(
        self, methods: RagMethods, context: RequestContext, answers: list[msgspec.Raw]
    ) -> None:
        self.answers = answers
        self.refused = 0
        self.reply_bytes = 0
        self._methods = methods
        self._context = context

    async def answer(self, block: Sequence[_Numbered], search: SearchSpec) -> None:
        prepared: list[tuple[int, Prepared]] = []
        for number, query in block:
            try:
                prepared.append((number, self._methods.prepare(query, search)))
            except LlmTraderError as error:
                self.refuse(number, error)
            await self._context.pause()
        questions = [Question(one.state.table, one.query.timestamp) for _, one in prepared]
        remaining = iter(prepared)
        many = self._methods.retriever.query_many(questions, search, self._context.pause)
        async for answer in many:
            number, one = next(remaining)
            if isinstance(answer, LlmTraderError):
                self.refuse(number, answer)
            else:
                await self._complete(number, one, answer)
            await self._context.pause()

    def refuse(self, number: int, error: LlmTraderError) -> None:
        self.refused += 1
        self._methods.count_refusal(error)
        self._set(number, wire.BatchAnswer(error=wire.RAG_ERRORS.error_object(error)))

    async def _complete(self, number: int, one: Prepared, answer: Answer) -> None:
        try:
            if self._context.gate is not None:
                self._context.gate.expect_room(self._context.session)
            result = await self._methods.complete(one, answer, self._context, f"queries[{number}].")
        except LlmTraderError as error:
            self.refuse(number, error)
            return
        if isinstance(result, BriefResult):
            self._set(number, wire.BatchAnswer(brief=result))
        else:
            self._set(number, wire.BatchAnswer(result=result))

    def _set(self, number: int, answer: wire.BatchAnswer) -> None:
        encoded = msgspec.json.encode(answer)
        self.answers[number] = msgspec.Raw(encoded)
        self.reply_bytes += len(encoded)
        unsent, gate = self._context.session.unsent, self._context.gate
        unsent.batch_bytes += len(encoded)
        if gate is not None:
            gate.budget.update(unsent, gate.clock.now_s())
