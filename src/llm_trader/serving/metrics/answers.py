"""Counts what answers say: matches, similarity, episodes, verdicts."""

from __future__ import annotations

from typing import Final

from llm_trader.errors import (
    EmbeddingError,
    InsufficientMatchesError,
    LlmTraderError,
    StaleDataError,
    SymbolNotFoundError,
)
from llm_trader.retrieval.answer import Answer
from llm_trader.serving.metrics import definitions
from llm_trader.serving.metrics.registry import Registry
from llm_trader.timeframe import HORIZONS

_VERDICTS: Final = ("informative", "weak", "none")
_REASONS: Final = {
    StaleDataError: "stale",
    EmbeddingError: "says_too_little",
    SymbolNotFoundError: "unknown_symbol",
    InsufficientMatchesError: "insufficient_matches",
}


class AnswerMetrics:
    """Observes the answers of `rag.query_patterns`."""

    def __init__(self, registry: Registry) -> None:
        self._matches = registry.histogram(definitions.MATCHES)
        self._similarity = registry.histogram(definitions.SIMILARITY)
        self._episodes = {name: registry.histogram(definitions.EPISODES, name) for name in HORIZONS}
        self._verdicts = {name: registry.counter(definitions.VERDICTS, name) for name in _VERDICTS}
        self._refused = {
            kind: registry.counter(definitions.STATES_REFUSED, reason)
            for kind, reason in _REASONS.items()
        }

    def found(self, answer: Answer) -> None:
        """What a query found, whether it is answered or refused."""
        self._matches.observe(len(answer.matches))
        percentile = answer.matches[0].similarity_percentile if answer.matches else None
        if percentile is not None:
            self._similarity.observe(percentile)

    def answered(self, answer: Answer) -> None:
        evidence = answer.evidence
        self._verdicts[evidence.verdict].inc()
        for name, horizon in evidence.horizons.items():
            self._episodes[name].observe(horizon.effective_episodes)

    def refused(self, error: LlmTraderError) -> None:
        counter = self._refused.get(type(error))
        if counter is not None:
            counter.inc()
