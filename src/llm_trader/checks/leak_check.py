"""Proof on samples that an answer used only what was known at its time, and that it still holds.

For a sampled symbol and time T:

1. The state at T is built twice, from everything stored and from what was known at T. A field
   that differs means that snapshots read the future.
2. The query asks for its 50 nearest states. Each must have been resolved by T.
3. The outcome of each is computed again from the candles that had closed by T. An outcome that
   is missing there, or differs from the index, means that the index knows more than T did.
4. Some of the states are built again from what was known at their own time. State and index
   must agree, and so must every vector that was compared.

Before that, all stored outcomes and some states are compared with the data of now, by
`stored_points`: a correction that did not reach the index is found there.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np

from llm_trader.arrays import Floats
from llm_trader.checks.cutoff import changed_fields, history_with_future, same_vectors
from llm_trader.checks.sampling import sample
from llm_trader.checks.stored_points import StoredPoints, compare_stored_points
from llm_trader.errors import InvalidInputError, SymbolNotFoundError
from llm_trader.market.history import MarketHistory
from llm_trader.market.store import MarketStore
from llm_trader.progress import Progress, no_progress
from llm_trader.retrieval.answer import Match, MatchState
from llm_trader.retrieval.retriever import Retriever
from llm_trader.retrieval.search_spec import QueryVectors, SearchSpec
from llm_trader.snapshot.affected import whole_in_store
from llm_trader.snapshot.builder import SnapshotRules, build_snapshots
from llm_trader.snapshot.outcome import LONGEST_HORIZON_MS, OUTCOMES, Outcome, label_outcomes
from llm_trader.snapshot.table import SnapshotTable
from llm_trader.timeframe import DAY_MS, M15, Millis, iso8601

_TOP_K: Final = 50  # all episodes that evidence sums up by default
_REBUILT_PER_QUERY: Final = 2  # each reads 60 days of candles again; all 50 would read ten years

_MATCH_FIELDS: Final = MatchState.__struct_fields__
_OUTCOME_NUMBERS: Final = OUTCOMES[:-1]  # the last one is the name of a barrier


class Leak(msgspec.Struct, frozen=True):
    """A query, what is wrong with its answer, and the match concerned if it is one."""

    symbol: str
    query_at: str
    problem: str
    match_at: str | None = None


class LeakReport(msgspec.Struct):
    """Counts of what was looked at, and what was wrong."""

    queries: int = 0
    matches_checked: int = 0
    states_rebuilt: int = 0
    leaks: list[Leak] = []
    stored: StoredPoints = msgspec.field(default_factory=StoredPoints)

    @property
    def passed(self) -> bool:
        return not self.leaks and not self.stored.differing


async def check_for_leaks(
    retriever: Retriever,
    store: MarketStore,
    rules: SnapshotRules,
    symbols: list[str],
    samples: int,
    seed: int,
    progress: Progress = no_progress,
    *,
    now_ms: Millis,
    vector: QueryVectors = "state",
) -> LeakReport:
    """Check the stored points, and `samples` queries at random times; no symbols means all.

    Raises `InvalidInputError` when no sampled query had a match to check: that would prove
    nothing.
    """
    rng = np.random.default_rng(seed)
    query_times = await _query_times(retriever, symbols)
    spec = SearchSpec(top_k=_TOP_K, min_similarity=0.0, vector=vector)
    names = [symbol for symbol, _ in query_times]
    # With choices of its own, so that a seed stands for the same queries as before.
    choices = np.random.default_rng([seed, 1])
    stored = await compare_stored_points(retriever.index, store, rules, names, now_ms, choices)
    report = LeakReport(stored=stored)
    for done in range(1, samples + 1):
        symbol, times = query_times[rng.integers(len(query_times))]
        as_of_ms = times[rng.integers(len(times))]
        await _QueryCheck(retriever, store, rules, spec, symbol, as_of_ms, report).run(rng)
        progress("checking", done, samples)
        await asyncio.sleep(0)  # Ctrl-C takes effect only where the event loop gets its turn
    if not report.matches_checked:
        raise InvalidInputError(
            "no sampled query had a match, so nothing was proven; take more --samples, or an "
            "index over a longer time"
        )
    return report


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


@dataclass(frozen=True, slots=True)
class _QueryCheck:
    """Checks the answer to one query, and reports what is wrong with it."""

    retriever: Retriever
    store: MarketStore
    rules: SnapshotRules
    spec: SearchSpec
    symbol: str
    as_of_ms: Millis
    report: LeakReport

    async def run(self, rng: np.random.Generator) -> None:
        history, state = self._state_at(self.as_of_ms)
        from_everything = build_snapshots(history, state.as_of_ms, self.rules)
        if not np.array_equal(from_everything.scalars, state.scalars, equal_nan=True):
            self._add("the snapshot changes when the future is cut off")
        if not state.usable()[0]:
            return
        self.report.queries += 1
        matches = (await self.retriever.query(state, self.as_of_ms, self.spec)).matches
        self.report.matches_checked += len(matches)
        if matches:
            self._check_outcomes(sorted(matches, key=lambda match: match.timestamp))
        times = np.array([match.timestamp for match in matches], np.int64)
        # Older data was removed because of its age, so these states cannot be built again.
        whole = np.flatnonzero(whole_in_store(times, self.store.kept_from_ms(self.symbol)))
        for row in sample(whole, _REBUILT_PER_QUERY, rng).tolist():
            self.report.states_rebuilt += 1
            await self._check_match(matches[row])

    def _add(self, problem: str, match: Match | None = None) -> None:
        match_at = iso8601(match.timestamp) if match else None
        self.report.leaks.append(Leak(self.symbol, iso8601(self.as_of_ms), problem, match_at))

    def _state_at(self, as_of_ms: Millis) -> tuple[MarketHistory, SnapshotTable]:
        """A history that reaches beyond a time, and the state of what was known then."""
        intraday = self.retriever.space.intraday
        history = history_with_future(self.store, self.symbol, intraday, as_of_ms, as_of_ms)
        times = np.array([as_of_ms], dtype=np.int64)
        return history, build_snapshots(history.known_at(as_of_ms), times, self.rules)

    def _check_outcomes(self, matches: list[Match]) -> None:
        """Computes the outcomes of matches again; the matches are in time order."""
        times = np.array([match.timestamp for match in matches], dtype=np.int64)
        intraday, end_ms = self.retriever.space.intraday, self.as_of_ms + DAY_MS
        first_ms = int(times[0]) - intraday.ms
        stored = self.store.stored_history(self.symbol, intraday, first_ms, end_ms)
        labels = label_outcomes(stored.decode().known_at(self.as_of_ms).intraday, times)
        for match, label in zip(matches, labels.T.tolist(), strict=True):
            if max(match.resolved_at, match.timestamp + LONGEST_HORIZON_MS) > self.as_of_ms:
                self._add("the match was not resolved yet", match)
            elif not _same_outcome(Outcome.of_values(label), match.outcomes):
                self._add("the outcome is not the one that was known by then", match)

    async def _check_match(self, match: Match) -> None:
        """Builds the state of a match again from what was known at its own time."""
        _, state = self._state_at(match.timestamp)
        if not state.usable()[0]:
            self._add("the store knew no whole state at the match's own time", match)
            return
        rebuilt = np.array([state.column(name) for name in _MATCH_FIELDS])
        stored = _fields(match.market_state, _MATCH_FIELDS)
        for name in changed_fields(_MATCH_FIELDS, rebuilt, stored):
            problem = f"{name} differs from the store's, as known then; corrected since? rag-ingest"
            self._add(problem, match)
        probes = await self.retriever.probes(state, self.spec.vector)
        points = await self.retriever.index.fetch(self.symbol, state.as_of_ms, probes)
        for name, probe in probes.items():
            if not same_vectors(probe.vector, points.vectors[name]):
                problem = f"its {name} vector is not of what was known at the match's own time"
                self._add(problem, match)


def _same_outcome(recomputed: Outcome, stored: Outcome) -> bool:
    # Ratios of two stored prices: unlike an EMA, they do not depend on where a recursion began.
    columns = (_fields(outcome, _OUTCOME_NUMBERS) for outcome in (recomputed, stored))
    changed = changed_fields(_OUTCOME_NUMBERS, *columns, relative=0)
    return recomputed.first_barrier == stored.first_barrier and not changed


def _fields(record: MatchState | Outcome, names: tuple[str, ...]) -> Floats:
    """Fields of a record, shape (fields, 1); NaN where they are unknown."""
    return np.array([[getattr(record, name)] for name in names], dtype=np.float64)
