"""Proof on samples that an answer used only what was known at its time.

For a sampled symbol and time T:

1. The state at T is built twice, from everything stored and from what was known at T. A field
   that differs means that snapshots read the future.
2. The query asks for its 50 nearest states. Each must have been resolved by T.
3. The outcome of each is computed again from the candles that had closed by T. An outcome that
   is missing there, or differs from the index, means that the index knows more than T did.
4. Some of the states are built again from what was known at their own time. State and index
   must agree, and so must every vector that was compared.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import msgspec
import numpy as np

from llm_trader.checks.cutoff import changed_fields, history_with_future, same_vectors
from llm_trader.checks.sampling import sample
from llm_trader.errors import InvalidInputError, SymbolNotFoundError
from llm_trader.market.history import MarketHistory
from llm_trader.market.store import MarketStore
from llm_trader.retrieval.answer import Match, MatchState
from llm_trader.retrieval.retriever import Retriever
from llm_trader.retrieval.search_spec import QueryVectors, SearchSpec
from llm_trader.snapshot.builder import build_snapshots
from llm_trader.snapshot.outcome import (
    HORIZONS,
    LONGEST_HORIZON_MS,
    Outcome,
    label_outcomes,
)
from llm_trader.snapshot.table import SnapshotTable
from llm_trader.timeframe import DAY_MS, M15, Millis, iso8601

_TOP_K: Final = 50  # all episodes that evidence sums up by default
_REBUILT_PER_QUERY: Final = 2  # each reads 60 days of candles again; all 50 would read ten years

_MATCH_FIELDS: Final = MatchState.__struct_fields__
_OUTCOME_NUMBERS: Final = (
    *(f"outcome_{horizon}" for horizon in HORIZONS),
    "max_runup_1h",
    "max_drawdown_1h",
)


class Leak(msgspec.Struct, frozen=True):
    """A query, what is wrong with its answer, and the match concerned if it is one."""

    symbol: str
    query_at: str
    problem: str
    match_at: str | None = None


class LeakReport(msgspec.Struct, frozen=True):
    queries: int
    matches_checked: int
    states_rebuilt: int
    leaks: list[Leak]


class _Problem(NamedTuple):
    text: str
    match: Match | None = None


async def check_for_leaks(
    retriever: Retriever,
    store: MarketStore,
    symbols: list[str],
    samples: int,
    seed: int,
    progress: Callable[[], None] = lambda: None,
    *,
    vector: QueryVectors = "state",
) -> LeakReport:
    """Check `samples` queries at random times; no symbols means all of the index.

    Raises `InvalidInputError` when no sampled query had a match to check: that would prove
    nothing.
    """
    rng = np.random.default_rng(seed)
    query_times = await _query_times(retriever, symbols)
    spec = SearchSpec(top_k=_TOP_K, min_similarity=0.0, vector=vector)
    check = _LeakCheck(retriever, store, spec)
    for _ in range(samples):
        symbol, times = query_times[rng.integers(len(query_times))]
        await check.check_query(symbol, times[rng.integers(len(times))], rng)
        progress()
        await asyncio.sleep(0)  # Ctrl-C takes effect only where the event loop gets its turn
    if not check.matches:
        raise InvalidInputError(
            "no sampled query had a match, so nothing was proven; take more --samples, or an "
            "index over a longer time"
        )
    return LeakReport(check.queries, check.matches, check.states, check.leaks)


async def _query_times(retriever: Retriever, symbols: list[str]) -> list[tuple[str, range]]:
    """Each symbol with the times at which a query can find something."""
    indexed = {record.symbol: record for record in (await retriever.index.info()).symbols}
    for symbol in symbols:
        if symbol not in indexed:
            raise SymbolNotFoundError(symbol, sorted(indexed))
    if not indexed:
        raise InvalidInputError("the index is empty; ingest something first")
    times = []
    for symbol in symbols or indexed:
        first_ms = indexed[symbol].first_timestamp_ms + LONGEST_HORIZON_MS
        last_ms = indexed[symbol].last_timestamp_ms + LONGEST_HORIZON_MS
        times.append((symbol, range(first_ms, last_ms + 1, M15.ms)))
    return times


class _LeakCheck:
    """Checks one query after the other, and counts what it looked at."""

    def __init__(self, retriever: Retriever, store: MarketStore, spec: SearchSpec) -> None:
        self._retriever = retriever
        self._store = store
        self._spec = spec
        self._intraday = retriever.space.intraday
        self.queries = self.matches = self.states = 0
        self.leaks: list[Leak] = []

    async def check_query(self, symbol: str, as_of_ms: Millis, rng: np.random.Generator) -> None:
        history = history_with_future(self._store, symbol, self._intraday, as_of_ms, as_of_ms)
        state, problems = _state_and_problems(history, as_of_ms)
        if state.complete()[0]:
            self.queries += 1
            answer = await self._retriever.query(state, as_of_ms, self._spec)
            matches = answer.matches
            self.matches += len(matches)
            problems += self._outcome_problems(symbol, as_of_ms, matches)
            for row in sample(np.arange(len(matches)), _REBUILT_PER_QUERY, rng).tolist():
                self.states += 1
                problems += await self._match_problems(symbol, matches[row])
        self.leaks += [
            Leak(symbol, iso8601(as_of_ms), text, iso8601(match.timestamp) if match else None)
            for text, match in problems
        ]

    def _outcome_problems(
        self, symbol: str, as_of_ms: Millis, matches: list[Match]
    ) -> Iterator[_Problem]:
        if not matches:
            return
        matches = sorted(matches, key=lambda match: match.timestamp)
        times = np.array([match.timestamp for match in matches], dtype=np.int64)
        first_ms = int(times[0]) - self._intraday.ms
        history = self._store.stored_history(
            symbol, self._intraday, first_ms, as_of_ms + DAY_MS
        ).decode()
        labels = label_outcomes(history.known_at(as_of_ms).intraday, times)
        for match, label in zip(matches, labels.T.tolist(), strict=True):
            if max(match.resolved_at, match.timestamp + LONGEST_HORIZON_MS) > as_of_ms:
                yield _Problem("the match was not resolved yet", match)
            elif not _same_outcome(Outcome.of_values(label), match.outcomes):
                yield _Problem("the outcome is not the one that was known by then", match)

    async def _match_problems(self, symbol: str, match: Match) -> list[_Problem]:
        """What differs in a match once its state is built from what was known at its own time."""
        as_of_ms = match.timestamp
        history = history_with_future(self._store, symbol, self._intraday, as_of_ms, as_of_ms)
        times = np.array([as_of_ms], dtype=np.int64)
        state = build_snapshots(history.known_at(as_of_ms), times)
        if not state.complete()[0]:
            return [_Problem("the store knew no complete state at the match's own time", match)]
        rebuilt = np.array([state.column(name) for name in _MATCH_FIELDS])
        stored = np.array([[getattr(match.market_state, name)] for name in _MATCH_FIELDS])
        problems = [
            _Problem(
                f"{name} differs from the store's, as known then; corrected since? --rebuild",
                match,
            )
            for name in changed_fields(_MATCH_FIELDS, rebuilt, stored)
        ]
        probes = await self._retriever.probes(state, self._spec.vector)
        points = await self._retriever.index.fetch(symbol, times, probes)
        problems += [
            _Problem(f"its {name} vector is not of what was known at the match's own time", match)
            for name, probe in probes.items()
            if not same_vectors(probe.vector, points.vectors[name])
        ]
        return problems


def _state_and_problems(
    history: MarketHistory, as_of_ms: Millis
) -> tuple[SnapshotTable, list[_Problem]]:
    """The state as it was known, and whether the later data change it."""
    times = np.array([as_of_ms], dtype=np.int64)
    state = build_snapshots(history.known_at(as_of_ms), times)
    from_everything = build_snapshots(history, times)
    if np.array_equal(from_everything.scalars, state.scalars, equal_nan=True):
        return state, []
    return state, [_Problem("the snapshot changes when the future is cut off")]


def _same_outcome(recomputed: Outcome, stored: Outcome) -> bool:
    numbers = (
        np.array([[getattr(outcome, name)] for name in _OUTCOME_NUMBERS], dtype=np.float64)
        for outcome in (recomputed, stored)
    )
    return recomputed.first_barrier == stored.first_barrier and not changed_fields(
        _OUTCOME_NUMBERS, *numbers
    )
