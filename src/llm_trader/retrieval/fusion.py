"""One order out of several: reciprocal rank fusion.

A point's score is the sum of 1 / (60 + rank) over the lists that hold it, ranks from 1 (Cormack,
Clarke and Büttcher, SIGIR 2009). Ranks can be added where scores of different spaces cannot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from llm_trader.arrays import Times

_RANK_OFFSET: Final = 60


def fuse_by_rank(lists: Sequence[Times]) -> Times:
    """All that are in any list, each in it once, best first; of equal ones the oldest first."""
    stamps, position = np.unique(np.concatenate(lists), return_inverse=True)
    reciprocal = np.concatenate([1 / (_RANK_OFFSET + 1 + np.arange(len(of))) for of in lists])
    score = np.bincount(position, reciprocal, minlength=len(stamps))
    return stamps[np.argsort(-score, kind="stable")]
