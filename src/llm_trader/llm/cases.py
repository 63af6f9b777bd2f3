"""Cases of past states, with the series that a prompt shows: equal to the live ones bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from llm_trader.arrays import Times
from llm_trader.llm.decision import Case
from llm_trader.market.store import MarketStore
from llm_trader.retrieval.answer import Answer
from llm_trader.snapshot.builder import DEFAULT_RULES, SnapshotRules, build_snapshots
from llm_trader.snapshot.source import SymbolView, read_history
from llm_trader.snapshot.table import SnapshotTable
from llm_trader.timeframe import DAY_MS, Millis, Timeframe


def case_at(view: SymbolView, as_of_ms: Millis, answer: Answer | None = None) -> Case:
    """The state of the store at a time of the grid, with what was retrieved for it."""
    state = view.exactly_at(as_of_ms)
    return Case(state) if answer is None else Case.of_answer(state, answer)


def states_at(
    store: MarketStore,
    symbol: str,
    intraday: Timeframe,
    as_of_ms: Times,
    rules: SnapshotRules = DEFAULT_RULES,
) -> Iterator[SnapshotTable]:
    """The states at increasing times, a table of one row for each.

    Those of a UTC day are built together, which takes a fraction of the time of one by one.
    """
    starts = np.flatnonzero(np.diff(as_of_ms // DAY_MS, prepend=-1))
    for first, end in pairwise([*starts.tolist(), len(as_of_ms)]):
        times = as_of_ms[first:end]
        history = read_history(store, symbol, intraday, int(times[0]), int(times[-1]) + 1)
        table = build_snapshots(history, times, rules)
        for row in range(len(times)):
            yield table.take(np.array([row]))
