"""One order out of several: reciprocal rank fusion.

A point's score is the sum of 1 / (60 + rank) over the lists that hold it, with ranks from 1
(Cormack, Clarke and Büttcher, SIGIR 2009). Ranks can be added where the scores of different
vector spaces cannot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from llm_trader.arrays import Times

# The paper's constant. With 0 the first of a list outweighs all below it; with 1000 ranks vanish.
_RANK_OFFSET: Final = 60


def fuse_by_rank(rankings: Sequence[Times]) -> Times:
    """All times of the rankings, each once, best first; of equal scores the oldest first."""
    stamps, position = np.unique(np.concatenate(rankings), return_inverse=True)
    reciprocals = [1 / (_RANK_OFFSET + 1 + np.arange(len(ranking))) for ranking in rankings]
    score = np.bincount(position, np.concatenate(reciprocals), minlength=len(stamps))
    return stamps[np.argsort(-score, kind="stable")]
