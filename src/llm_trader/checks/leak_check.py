"""Proof on samples that an answer used only what was known at its time.

For a sampled symbol and time T:

1. the state at T is built twice, from everything stored and from what was known at T: no field
   may differ, or snapshots read the future;
2. the query is asked for its 50 nearest states: each must have been resolved by T;
3. each one's outcome is computed anew from the candles that had closed by T: it must be there,
   and be the one in the index, or the index knows more than T did;
4. some are built anew from what was known at their own time: state and index must agree, and
   so must every vector that was compared.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Final

import msgspec
import numpy as np

from llm_trader.errors import InvalidInputError, SymbolNotFoundError
from llm_trader.market.history import MarketHistory
from llm_trader.market.store import MarketStore
from llm_trader.retrieval.answer import Match
from llm_trader.retrieval.retriever import Retriever
from llm_trader.retrieval.search_spec import QueryVectors, SearchSpec
from llm_trader.snapshot.builder import build_snapshots
from llm_trader.snapshot.outcome import HORIZONS, LONGEST_HORIZON_MS, Outcome, label_outcomes
from llm_trader.snapshot.source import read_history
from llm_trader.snapshot.table import SnapshotTable
from llm_trader.timeframe import DAY_MS, M15, Millis, iso8601

_TOP_K: Final = 50
_REBUILT_PER_QUERY: Final = 2
_TOLERANCE: Final = 1e-9
_VECTOR_TOLERANCE: Final = 1e-5  # vectors are float32


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
    chances = random.Random(seed)
    places = await _places(retriever, symbols)
    config = SearchSpec(top_k=_TOP_K, min_similarity=0.0, vector=vector)
    queries = matches = rebuilt = 0
    leaks: list[Leak] = []
    for _ in range(samples):
        symbol, times = chances.choice(places)
        at = chances.choice(times)
        check = _Check(retriever, store, symbol, at, config)
        found = await check.run(chances)
        queries += check.asked
        matches += check.matches
        rebuilt += check.rebuilt
        leaks += found
        progress()
        await asyncio.sleep(0)  # Ctrl-C takes effect only where the event loop gets its turn
    if not matches:
        raise InvalidInputError(
            "no sampled query had a match, so nothing was proven; take more --samples, or an "
            "index over a longer time"
        )
    return LeakReport(queries, matches, rebuilt, leaks)


async def _places(retriever: Retriever, symbols: list[str]) -> list[tuple[str, range]]:
    """Each symbol with the times at which a query can have something to find."""
    info = await retriever.index.info()
    known = {of.symbol: of for of in info.symbols}
    for symbol in symbols:
        if symbol not in known:
            raise SymbolNotFoundError(symbol, sorted(known))
    if not known:
        raise InvalidInputError("the index is empty; ingest something first")
    return [
        (
            symbol,
            range(
                known[symbol].first_timestamp_ms + LONGEST_HORIZON_MS,
                known[symbol].last_timestamp_ms + LONGEST_HORIZON_MS + 1,
                M15.ms,
            ),
        )
        for symbol in symbols or known
    ]


class _Check:
    """One query, looked at from all sides."""

    def __init__(
        self,
        retriever: Retriever,
        store: MarketStore,
        symbol: str,
        at_ms: Millis,
        config: SearchSpec,
    ) -> None:
        self._retriever = retriever
        self._store = store
        self._symbol = symbol
        self._at_ms = at_ms
        self._config = config
        self._leaks: list[Leak] = []
        self.asked = self.matches = self.rebuilt = 0

    async def run(self, chances: random.Random) -> list[Leak]:
        state = self._state()
        if not state.complete()[0]:
            return self._leaks
        self.asked = 1
        answer = await self._retriever.query(state, self._at_ms, self._config)
        if answer.matches:
            self._check_outcomes(answer.matches)
        for match in chances.sample(answer.matches, min(_REBUILT_PER_QUERY, len(answer.matches))):
            await self._check_state(match)
        return self._leaks

    def _state(self) -> SnapshotTable:
        everything = self._around(self._at_ms, self._at_ms + DAY_MS)
        times = np.array([self._at_ms], dtype=np.int64)
        seen = build_snapshots(everything, times)
        known = build_snapshots(everything.known_at(self._at_ms), times)
        if not np.array_equal(seen.scalars, known.scalars, equal_nan=True):
            self._report("the snapshot changes when the future is cut off")
        return known

    def _check_outcomes(self, matches: list[Match]) -> None:
        times = sorted(match.timestamp for match in matches)
        space, until_ms = self._retriever.space, self._at_ms + DAY_MS
        history = self._store.history(
            self._symbol, space.intraday, times[0] - space.intraday.ms, until_ms
        ).known_at(self._at_ms)
        labels = label_outcomes(history.intraday, np.array(times, dtype=np.int64))
        recomputed = dict(zip(times, map(Outcome.of_values, labels.T.tolist()), strict=True))
        for match in matches:
            self.matches += 1
            if max(match.resolved_at, match.timestamp + LONGEST_HORIZON_MS) > self._at_ms:
                self._report("the match was not resolved yet", match)
            elif not _same_outcome(recomputed[match.timestamp], match.outcomes):
                self._report("the outcome is not the one that was known by then", match)

    async def _check_state(self, match: Match) -> None:
        self.rebuilt += 1
        history = self._around(match.timestamp, match.timestamp + 1)
        times = np.array([match.timestamp], dtype=np.int64)
        built = build_snapshots(history.known_at(match.timestamp), times)
        if not built.complete()[0]:
            self._report("the store knew no complete state at the match's own time", match)
            return
        for name in match.market_state.__struct_fields__:
            stored = getattr(match.market_state, name)
            if not np.isclose(built.column(name)[0], stored, rtol=_TOLERANCE, atol=_TOLERANCE):
                self._report(
                    f"{name} differs from the store's, as known then; corrected since? --rebuild",
                    match,
                )
        made = await self._retriever.probes(built, self._config.vector)
        stored = await self._retriever.index.fetch(self._symbol, times, made)
        for name, probe in made.items():
            if np.abs(stored.vectors[name] - probe.vector).max() > _VECTOR_TOLERANCE:
                told = f"its {name} vector is not of what was known at the match's own time"
                self._report(told, match)

    def _around(self, first_ms: Millis, end_ms: Millis) -> MarketHistory:
        intraday = self._retriever.space.intraday
        return read_history(self._store, self._symbol, intraday, first_ms, end_ms)

    def _report(self, problem: str, match: Match | None = None) -> None:
        at = iso8601(match.timestamp) if match else None
        self._leaks.append(Leak(self._symbol, iso8601(self._at_ms), problem, at))


def _same_outcome(a: Outcome, b: Outcome) -> bool:
    if a.first_barrier != b.first_barrier:
        return False
    pairs = [(getattr(a, name), getattr(b, name)) for name in _NUMBERS]
    return all(x is not None and y is not None and abs(x - y) <= _TOLERANCE for x, y in pairs)


_NUMBERS: Final = (
    *(f"outcome_{horizon}" for horizon in HORIZONS),
    "max_runup_1h",
    "max_drawdown_1h",
)
