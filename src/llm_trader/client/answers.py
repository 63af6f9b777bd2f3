"""The result of a query as the answer that the retriever of the server gave."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_trader.retrieval.answer import Answer

if TYPE_CHECKING:
    from llm_trader.serving.wire import QueryPatternsResult


def answer_of_result(result: QueryPatternsResult) -> Answer:
    """Durations are known to the millisecond."""
    meta = result.metadata
    return Answer(
        matches=result.matches,
        statistics=result.statistics,
        evidence=result.evidence,
        filters_applied=meta.filters_applied,
        features_missing=meta.features_missing,
        points_eligible=meta.points_eligible,
        embedding_us=meta.embedding_duration_ms * 1000,
        retrieval_us=meta.retrieval_duration_ms * 1000,
        calibration=meta.calibration,
        warnings=meta.warnings,
        index_end_ms=meta.index_end,
    )
