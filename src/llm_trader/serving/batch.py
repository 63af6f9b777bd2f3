"""Many queries in one request, which share work: the answers are those of single queries.

Queries of one symbol and one search are put in the order of their times and cut into blocks. A
block pauses every few milliseconds, so that pings pass, and takes another turn in the queue of all
clients every 10, so that their queries pass. An answer is encoded as soon as it is made.

A batch stops shortly before its deadline and answers what it has: queries that it did not reach
have the error of the deadline. If it reached none, the whole request has that error.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from typing import Final, NamedTuple

import msgspec

from llm_trader.errors import LlmTraderError
from llm_trader.retrieval.answer import Answer
from llm_trader.retrieval.retriever import Question
from llm_trader.retrieval.search_spec import SearchSpec
from llm_trader.rpc.dispatcher import RequestContext
from llm_trader.rpc.errors import DeadlineExceededError
from llm_trader.serving import wire
from llm_trader.serving.brief import BriefResult
from llm_trader.serving.pattern_queries import PatternQueries, Prepared
from llm_trader.timeframe import DAY_MS

METHOD: Final = "rag.query_batch"
# Some 35 ms of CPU; larger ones share hardly more.
_BLOCK: Final = 32
# Other clients' queries wait for so long, and for one step more.
_TURN_S: Final = 0.01
# Windows further apart share too little of a product to pay for the rest of it.
_SPAN_MS: Final = 15 * DAY_MS
_NONE: Final = msgspec.Raw()
# For the last step, and for encoding and sending the reply: 20 MB take 50 ms of CPU, and several
# times that beside other processes.
_LEAST_RESERVE_S: Final = 0.1
_RESERVED_SHARE: Final = 0.1


class _Numbered(NamedTuple):
    number: int
    query: wire.PatternQuery


class EncodedBatch(msgspec.Struct, frozen=True):
    """`wire.QueryBatchResult`, its answers encoded."""

    answers: list[msgspec.Raw]
    metadata: wire.BatchMetadata


async def query_batch(
    pattern_queries: PatternQueries, params: wire.QueryBatchParams, context: RequestContext
) -> EncodedBatch:
    started = time.perf_counter()
    run = _Run(pattern_queries, context, [_NONE] * len(params.queries))
    try:
        async with asyncio.timeout_at(_end_s(context)) as end:
            groups = await run.groups(params)
            for (_, search), queries in groups.items():
                for block in _blocks(queries):
                    await run.answer(block, search)
    except TimeoutError:
        if not end.expired():
            raise
        context.worked_since_s = time.monotonic()
        run.refuse_unreached()
    finally:
        context.session.unsent.batch_bytes -= run.reply_bytes
    duration_us = round((time.perf_counter() - started) * 1e6)
    return EncodedBatch(
        run.answers,
        wire.BatchMetadata(duration_us, context.request_id, context.unknown_fields, run.refused),
    )


def _end_s(context: RequestContext) -> float | None:
    """When a batch stops, so that what it has reaches the client in time."""
    if context.deadline_s is None:
        return None
    allowed_s = context.deadline_s - context.received_s
    reserve_s = max(_RESERVED_SHARE * allowed_s, _LEAST_RESERVE_S)
    return context.deadline_s - min(reserve_s, allowed_s / 2)


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
        self, pattern_queries: PatternQueries, context: RequestContext, answers: list[msgspec.Raw]
    ) -> None:
        self.answers = answers
        self.refused = 0
        self.reply_bytes = 0
        self._queries = pattern_queries
        self._context = context
        self._turn_ends_s = time.monotonic() + _TURN_S

    async def groups(
        self, params: wire.QueryBatchParams
    ) -> dict[tuple[str, SearchSpec], list[_Numbered]]:
        """The queries by symbol and search; those whose search is wrong are refused."""
        groups: dict[tuple[str, SearchSpec], list[_Numbered]] = defaultdict(list)
        for number, query in enumerate(params.queries):
            try:
                search = self._queries.search(params.query_config, query.query_config)
            except LlmTraderError as error:
                self.refuse(number, error)
                continue
            groups[query.symbol, search].append(_Numbered(number, query))
            await self._pause()
        return groups

    async def answer(self, block: Sequence[_Numbered], search: SearchSpec) -> None:
        prepared: list[tuple[int, Prepared]] = []
        view = self._queries.view(block[0].query.symbol)
        for number, query in block:
            try:
                prepared.append((number, self._queries.prepare(query, search, view)))
            except LlmTraderError as error:
                self.refuse(number, error)
            await self._pause()
        questions = [
            Question(q.state.table, q.query.timestamp, self._queries.wants_references(q))
            for _, q in prepared
        ]
        remaining = iter(prepared)
        many = self._queries.retriever.query_many(questions, search, self._pause)
        async with aclosing(many):
            async for answer in many:
                number, query_of_answer = next(remaining)
                if isinstance(answer, LlmTraderError):
                    self.refuse(number, answer)
                else:
                    await self._complete(number, query_of_answer, answer)
                await self._pause()

    async def _pause(self) -> None:
        if time.monotonic() < self._turn_ends_s:
            await self._context.pause()
            return
        await self._context.next_turn(METHOD)
        self._turn_ends_s = time.monotonic() + _TURN_S

    def refuse_unreached(self) -> None:
        """Gives the error of the deadline to the queries that have no answer yet, or raises it if
        none has.
        """
        unreached = [number for number, answer in enumerate(self.answers) if answer is _NONE]
        error = DeadlineExceededError(
            f"deadline exceeded: the batch reached {len(self.answers) - len(unreached)} of its "
            f"{len(self.answers)} queries; send the others again, or allow more time"
        )
        if len(unreached) == len(self.answers):
            raise error
        for number in unreached:
            self.refuse(number, error)

    def refuse(self, number: int, error: LlmTraderError) -> None:
        self.refused += 1
        self._queries.count_refusal(error)
        self._set(number, wire.BatchAnswer(error=wire.RAG_ERRORS.error_object(error)))

    async def _complete(self, number: int, prepared: Prepared, answer: Answer) -> None:
        try:
            if self._context.gate is not None:
                self._context.gate.expect_room(self._context.session)
            path = f"queries[{number}]."
            result = await self._queries.complete(prepared, answer, self._context, path)
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
