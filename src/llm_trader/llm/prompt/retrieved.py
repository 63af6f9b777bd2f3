"""The part of an answer that a prompt is written from; it decodes from `rag.query_patterns`."""

from __future__ import annotations

import msgspec

from llm_trader.retrieval.answer import Answer, Evidence, Match


class Retrieved(msgspec.Struct, frozen=True):
    """Matches and evidence, with the names of the wire; other keys of a result are ignored."""

    matches: list[Match]
    evidence: Evidence

    @classmethod
    def of_answer(cls, answer: Answer) -> Retrieved:
        return cls(answer.matches, answer.evidence)

    @property
    def is_empty(self) -> bool:
        """Whether it tells of no past state at all."""
        return not self.matches and not self.evidence.horizons
