"""Moments of sliding windows against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.evaluation.forecast.window_moments import window_moments


def brute(values: np.ndarray, first: int, last: int, at: np.ndarray) -> tuple[np.ndarray, float]:
    window = values[first:last]
    pairs = np.abs(window[:, None] - window).mean()
    return np.abs(window[:, None] - at).mean(axis=0), float(pairs)


@given(seed=st.integers(0, 2**32), n=st.integers(2, 300), step=st.sampled_from([0, 1, 3, 40]))
def test_moments_are_those_of_each_window_however_windows_move(
    seed: int, n: int, step: int
) -> None:
    rng = np.random.default_rng(seed)
    values = np.round(rng.standard_normal(400), 1)
    first = np.minimum(np.cumsum(rng.integers(0, step + 1, n)), 380)
    last = np.minimum(first + rng.integers(0, 60, n), 400)
    at = rng.standard_normal((n, 3))
    found = window_moments(values, first, last, at)
    for i in range(n):
        if last[i] == first[i]:
            assert np.isnan(found.mean_abs[i]).all()
            assert np.isnan(found.spread[i])
        else:
            mean_abs, spread = brute(values, int(first[i]), int(last[i]), at[i])
            np.testing.assert_allclose(found.mean_abs[i], mean_abs, atol=1e-10)
            assert found.spread[i] == pytest.approx(spread, abs=1e-10)


def test_windows_that_jump_back_and_forth_are_scored_as_well() -> None:
    rng = np.random.default_rng(1)
    values = rng.standard_normal(1000)
    first = rng.integers(0, 900, 200)
    last = first + rng.integers(1, 100, 200)
    at = rng.standard_normal((200, 2))
    found = window_moments(values, first, last, at)
    for i in range(200):
        mean_abs, spread = brute(values, int(first[i]), int(last[i]), at[i])
        np.testing.assert_allclose(found.mean_abs[i], mean_abs, atol=1e-10)
        assert found.spread[i] == pytest.approx(spread, abs=1e-10)
