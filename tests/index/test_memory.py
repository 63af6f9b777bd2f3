"""The shortlist of a search, on scores alone."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from llm_trader.index.memory import nearest

# Rounding moves a cosine by less than the first; scores further apart than the second differ.
ROUNDING, APART = np.float32(5e-7), np.float32(2e-6)


@given(
    n=st.integers(1, 600),
    limit=st.integers(1, 620),
    step=st.sampled_from([0.2, 1e-3, 3e-7, 6e-8]),
    steps=st.integers(0, 40),
    seed=st.integers(0, 2**32),
)
@example(n=600, limit=70, step=6e-8, steps=12, seed=0)
def test_the_shortlist_is_of_the_greatest_and_all_that_rounding_could_put_among_them(
    n: int, limit: int, step: float, steps: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    cosine = (0.5 + step * rng.integers(-steps, steps + 1, n)).astype(np.float32)
    rows = nearest(cosine, limit).tolist()
    least = np.sort(cosine)[::-1][min(limit, n) - 1]
    assert rows == sorted(set(rows))
    assert set(np.flatnonzero(cosine >= least - ROUNDING).tolist()) <= set(rows)
    if limit < n:
        assert (cosine[rows] >= least - APART).all()


def test_the_shortlist_keeps_a_tie_that_the_cut_of_the_sample_would_lose() -> None:
    # Every eighth score is the sample; its cut is a hair above where the limit falls.
    cosine = np.full(800, 0.1, np.float32)
    cosine[::8] = np.float32(0.5)
    cosine[1:40:8] = np.float32(0.5) - np.float32(9e-7)
    cosine[2:40:8] = np.float32(0.5) - np.float32(1.2e-6)
    for limit in range(1, 110):
        least = np.sort(cosine)[::-1][limit - 1]
        expected = set(np.flatnonzero(cosine >= least - ROUNDING).tolist())
        assert expected <= set(nearest(cosine, limit).tolist())
