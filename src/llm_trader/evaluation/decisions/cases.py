"""Cases of past states: the evidence that a server would have given then, as it was or altered.

Altered evidence is an answer of the retriever like any other, from altered data, so that all of its
figures and sentences agree with each other:

flip      from the same states with the opposite outcomes (`index.memory_index.mirrored`). The
          neighbours, similarities, novelty and expected volatilities are the same, as none of them
          depends on outcomes. Which of -2 and +3 % came first is decided anew from the stored path.
shuffle   the neighbours of another state, as of the same time, in units of the volatility that is
          expected of this one
removal   no answer at all

A calibration's margins are added to flipped evidence as they are: they widen a band on both sides
alike. Its judgement at which horizons forecasts had skill is that of the true outcomes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from math import isfinite
from typing import Final, NamedTuple

import numpy as np

from llm_trader.arrays import Times
from llm_trader.errors import LlmTraderError
from llm_trader.evaluation.dataset import Dataset
from llm_trader.evaluation.decisions.reading import ORIGINAL, lean
from llm_trader.index.memory_index import MemoryIndex, mirrored
from llm_trader.index.protocol import Collection
from llm_trader.llm.decision import Case
from llm_trader.progress import Progress, StepCounter, no_progress
from llm_trader.retrieval.answer import Answer
from llm_trader.retrieval.calibration import LoadedCalibration
from llm_trader.retrieval.retriever import Question, Retriever
from llm_trader.retrieval.search_spec import SearchSpec
from llm_trader.snapshot.table import SnapshotTable
from llm_trader.timeframe import DAY_MS, Millis

# Reading shows only where the evidence leans to a side, so of so many states drawn at random the
# one that leans most is taken. With 1 half of them would hardly lean.
CANDIDATES_PER_STATE: Final = 4
# Further ones would share hardly more, and hold their windows in memory together.
_ASKED_TOGETHER: Final = 96


class Evaluated(NamedTuple):
    """A state with the cases that are decided on, by the name of their evidence."""

    state: SnapshotTable
    leans: dict[str, float]
    cases: dict[str, Case]

    @property
    def symbol(self) -> str:
        return self.state.symbol

    @property
    def as_of_ms(self) -> Millis:
        return int(self.state.as_of_ms[0])


class Evidences:
    """Answers about past states, from points that are held in memory."""

    def __init__(
        self,
        dataset: Dataset,
        collection: Collection,
        spec: SearchSpec,
        calibration: LoadedCalibration | None = None,
    ) -> None:
        self.spec = spec
        space = collection.state_space()
        true, opposite = (
            MemoryIndex(collection, tables)
            for tables in (
                dataset.points,
                {symbol: mirrored(points) for symbol, points in dataset.points.items()},
            )
        )
        self._true = Retriever(true, space, calibration=calibration)
        self._opposite = Retriever(opposite, space, calibration=calibration)

    async def answers(
        self, states: Sequence[SnapshotTable], progress: Progress = no_progress
    ) -> list[Answer | LlmTraderError]:
        """What a server would have answered to each state at its own time, or why it could not.

        States that follow each other and are of one symbol share work.
        """
        counter = StepCounter(progress, "evidence", len(states))
        answers: list[Answer | LlmTraderError] = []
        for _, of_symbol in groupby(states, key=lambda state: state.symbol):
            waiting = list(of_symbol)
            for first in range(0, len(waiting), _ASKED_TOGETHER):
                part = waiting[first : first + _ASKED_TOGETHER]
                questions = [Question(state, int(state.as_of_ms[0])) for state in part]
                answers += [a async for a in self._true.query_many(questions, self.spec)]
                counter(len(part))
        return answers

    async def flipped(self, state: SnapshotTable) -> Answer:
        return await self._opposite.query(state, int(state.as_of_ms[0]), self.spec)

    async def of_another(self, state: SnapshotTable, other: SnapshotTable) -> Answer:
        as_of_ms = int(state.as_of_ms[0])
        return await self._true.query(state, as_of_ms, self.spec, neighbours_of=other)


def draw_times(dataset: Dataset, step_ms: Millis, states: int, seed: int) -> dict[str, Times]:
    """Candidates drawn at random among all queries, by symbol, increasing."""
    pairs = [
        (symbol, int(time_ms))
        for symbol in sorted(dataset.points)
        for time_ms in dataset.queries(symbol, step_ms).timestamp_ms
    ]
    count = min(len(pairs), CANDIDATES_PER_STATE * states)
    chosen = np.random.default_rng(seed).choice(len(pairs), count, replace=False)
    times: dict[str, list[int]] = {}
    for position in np.sort(chosen):
        symbol, time_ms = pairs[position]
        times.setdefault(symbol, []).append(time_ms)
    return {symbol: np.array(times[symbol], np.int64) for symbol in times}


async def most_leaning(
    evidences: Evidences,
    candidates: Sequence[SnapshotTable],
    states: int,
    progress: Progress = no_progress,
) -> list[tuple[SnapshotTable, Answer]]:
    """Of each run of candidates the state whose evidence leans most, with its answer.

    There are as many runs as states. Over all candidates the most leaning would be those of a few
    days, which share their evidence.
    """
    answers = await evidences.answers(candidates, progress)
    chosen = []
    for run in np.array_split(np.arange(len(candidates)), min(states, len(candidates))):
        pairs = [(candidates[row], answers[row]) for row in run.tolist()]
        known = [(state, answer) for state, answer in pairs if isinstance(answer, Answer)]
        leaning = [pair for pair in known if isfinite(lean(pair[1]))]
        if leaning:
            chosen.append(max(leaning, key=lambda pair: abs(lean(pair[1]))))
    return chosen


async def altered_cases(
    evidences: Evidences, chosen: Sequence[tuple[SnapshotTable, Answer]], seed: int
) -> list[Evaluated]:
    """Each state with its evidence as it was, repeated, flipped, shuffled and removed."""
    leans = [lean(answer) for _, answer in chosen]
    partners = _partners([state for state, _ in chosen], leans, seed)
    evaluated = []
    for row, (state, answer) in enumerate(chosen):
        answers = {ORIGINAL: answer, "repeat": answer, "flip": await evidences.flipped(state)}
        partner = partners.get(row)
        if partner is not None:
            answers["shuffle"] = await evidences.of_another(state, chosen[partner][0])
        cases = {name: Case.of_answer(state, altered) for name, altered in answers.items()}
        cases["removal"] = Case(state, {})
        altered_leans = {name: lean(altered) for name, altered in answers.items()}
        evaluated.append(Evaluated(state, altered_leans, cases))
    return evaluated


def _partners(
    states: Sequence[SnapshotTable], leans: Sequence[float], seed: int
) -> Mapping[int, int]:
    """For each state another one of its symbol, at random among those that suit best.

    Best is one that leans to the other side, so that reading shows, and whose own outcome was not
    yet known: else it would be its own nearest neighbour, with a similarity of 1.
    """
    rng = np.random.default_rng([seed, 1])
    times = np.array([int(state.as_of_ms[0]) for state in states])
    symbols = np.array([state.symbol for state in states])
    signs = np.sign(leans)
    partners = {}
    for row in range(len(states)):
        others = (symbols == symbols[row]) & (times != times[row])
        if not others.any():
            continue
        unknown, opposite = times > times[row] - DAY_MS, signs == -signs[row]
        suits = next(
            mask for mask in (others & unknown & opposite, others & opposite, others) if mask.any()
        )
        partners[row] = int(rng.choice(np.flatnonzero(suits)))
    return partners
