"""Reciprocal rank fusion of two orders."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.retrieval.fusion import fuse_by_rank

orders = st.lists(st.integers(0, 40), unique=True, max_size=30)


def fused(*lists: list[int]) -> list[int]:
    return fuse_by_rank([np.array(of, np.int64) for of in lists]).tolist()


@given(left=orders, right=orders)
def test_scores_are_sums_of_reciprocal_ranks_and_equal_ones_come_oldest_first(
    left: list[int], right: list[int]
) -> None:
    score: dict[int, Fraction] = {}
    for of in (left, right):
        for rank, stamp in enumerate(of, start=1):
            score[stamp] = score.get(stamp, Fraction(0)) + Fraction(1, 60 + rank)
    assert fused(left, right) == sorted(score, key=lambda stamp: (-score[stamp], stamp))


@given(left=orders, right=orders)
def test_the_order_of_the_lists_does_not_matter(left: list[int], right: list[int]) -> None:
    assert fused(left, right) == fused(right, left)


@given(left=orders)
def test_a_list_fused_with_itself_or_with_nothing_stays_as_it_is(left: list[int]) -> None:
    assert fused(left, left) == fused(left, []) == left


def test_two_good_ranks_beat_one_that_is_best() -> None:
    assert fused([7, 1, 2], [3, 1, 4])[0] == 1
