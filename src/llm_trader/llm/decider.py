"""The input of a decision, and the protocol of deciders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import msgspec
import numpy as np

from llm_trader.errors import InvalidInputError
from llm_trader.llm.decision import Decision
from llm_trader.retrieval.answer import Answer, Evidence
from llm_trader.snapshot.table import SnapshotTable
from llm_trader.timeframe import Millis


class Outlook(msgspec.Struct, frozen=True):
    """The outcomes of a state's neighbours over one horizon.

    `mean_pct` and `median_pct` are % changes; `p_up` is the share of changes above 0. Outcomes
    that overlap in time count as fewer `effective_episodes`.
    """

    mean_pct: float
    median_pct: float
    p_up: float
    episodes: int
    effective_episodes: float
    similarity_mean: float | None

    @classmethod
    def of_evidence(cls, evidence: Evidence, horizon: str) -> Outlook:
        statistics = evidence.horizons[horizon]
        return cls(
            statistics.mean.value,
            statistics.p50.value,
            statistics.p_up.value,
            evidence.episodes,
            statistics.effective_episodes,
            evidence.similarity_mean,
        )


def outlooks_of(answer: Answer) -> dict[str, Outlook]:
    """The outlooks of an answer's evidence, by horizon."""
    evidence = answer.evidence
    return {horizon: Outlook.of_evidence(evidence, horizon) for horizon in evidence.horizons}


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One state to decide on, with its evidence.

    `state` is a table of one row; `state.snapshot(0)` is the record with its series. `outlooks`
    maps horizons to outlooks. It is empty if there are no neighbours, and `None` if the decider
    works without retrieval. `answer` also holds the matches.
    """

    state: SnapshotTable
    outlooks: Mapping[str, Outlook] | None = None
    answer: Answer | None = None

    def __post_init__(self) -> None:
        if len(self.state) != 1:
            raise InvalidInputError(f"a case is one state, this table has {len(self.state)} rows")

    @classmethod
    def of_answer(cls, state: SnapshotTable, answer: Answer) -> Case:
        return cls(state, outlooks_of(answer), answer)

    @property
    def symbol(self) -> str:
        return self.state.symbol

    @property
    def as_of_ms(self) -> Millis:
        return int(self.state.as_of_ms[0])

    def value(self, field: str) -> float | None:
        """A scalar field of the state, `None` if it is unknown."""
        value = float(self.state.column(field)[0])
        return None if np.isnan(value) else value


class Decider(Protocol):
    """Makes a decision for a case; `name` identifies it in logs and reports."""

    @property
    def name(self) -> str: ...

    async def decide(self, case: Case) -> Decision: ...
