from __future__ import annotations

import msgspec
import pytest

from llm_trader.errors import InsufficientMatchesError
from llm_trader.retrieval.answer import Answer
from llm_trader.workflow.nodes.retrieving import VerdictError, retrieval_of


def test_an_answer_that_meets_the_rules_passes_with_what_they_ask_for(answer: Answer) -> None:
    retrieval = retrieval_of(answer, 1, ("informative", "weak", "none"))
    assert retrieval.answer is answer
    assert retrieval.matches == len(answer.matches)
    assert retrieval.verdict == answer.evidence.verdict


def test_too_few_matches_are_refused(answer: Answer) -> None:
    few = msgspec.structs.replace(answer, matches=answer.matches[:1])
    with pytest.raises(InsufficientMatchesError, match="1 similar past states found, 2 required"):
        retrieval_of(few, 2, ("informative", "weak", "none"))


def test_another_verdict_than_the_accepted_ones_is_refused(answer: Answer) -> None:
    evidence = msgspec.structs.replace(answer.evidence, verdict="none", reason="No difference.")
    nothing = msgspec.structs.replace(answer, evidence=evidence)
    with pytest.raises(VerdictError, match="verdict of the evidence is none, and informative or"):
        retrieval_of(nothing, 1, ("informative", "weak"))
    assert retrieval_of(nothing, 1, ("none",)).verdict == "none"
