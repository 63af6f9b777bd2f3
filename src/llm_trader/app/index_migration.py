"""Copies an index to another backend, and proves that the copy gives the same answers."""

from __future__ import annotations

from typing import Final

import msgspec

from llm_trader.app.indexes import Backend, open_index
from llm_trader.app.job import Job, blocking
from llm_trader.app.retrievers import query_texts
from llm_trader.checks.agreement import AgreementReport, compare_answers
from llm_trader.checks.copy_verification import CopyProblem, verify_copy
from llm_trader.errors import InvalidInputError
from llm_trader.index.migration import CopyReport, copy_points
from llm_trader.progress import StepCounter
from llm_trader.retrieval.retriever import Retriever

# Some 6 MB with text vectors; ten times as many come near the message limit of a Qdrant server.
_POINTS_PER_BATCH: Final = 2000


class Migration(msgspec.Struct, frozen=True, kw_only=True):
    """The copied points, the differences, and the agreement of answers."""

    copied: list[CopyReport]
    problems: list[CopyProblem]
    agreement: AgreementReport

    @property
    def true_copy(self) -> bool:
        rounding = all(difference.of_rounding for difference in self.agreement.disagreements)
        return not self.problems and rounding


@blocking
async def migrate_index(
    job: Job, source: Backend, target: Backend, *, samples: int, seed: int
) -> Migration:
    """Copy all points; compare counts, times, contents and sampled answers."""
    if source == target:
        raise InvalidInputError(
            f"an index cannot be migrated from {source} to {target}; give two different backends"
        )
    settings, environ = job.settings, job.environ
    async with (
        open_index(settings, environ, source) as old,
        open_index(settings, environ, target, create=old.collection) as new,
    ):
        copied = await copy_points(old, new, [], _POINTS_PER_BATCH, job.progress)
        problems = await verify_copy(old, new, seed=seed)
        count = StepCounter(job.progress, "comparing answers", samples)
        space = old.collection.state_space()
        async with query_texts(settings, environ, old.collection) as texts:
            reference, copy = (Retriever(index, space, texts) for index in (old, new))
            agreement = await compare_answers(reference, copy, samples, seed, lambda: count(1))
    return Migration(copied=copied, problems=problems, agreement=agreement)
