from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.retrieval.scores import quantile_scores, sample_scores


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=20), st.floats(-60, 60))
def test_samples_are_scored_as_just_these_samples(samples: list[float], observed: float) -> None:
    x = np.array(samples)
    plain = np.abs(x - observed).mean() - np.abs(x[:, None] - x).mean() / 2
    score = sample_scores(np.sort(x)[None], np.array([observed]))[0]
    assert score == pytest.approx(plain, abs=1e-9)


@pytest.mark.parametrize("observed", [-2.5, 0.0, 0.7])
def test_dense_quantiles_of_a_normal_have_its_crps(observed: float) -> None:
    normal = NormalDist()
    levels = np.arange(1, 1000) / 1000
    quantiles = np.array([[normal.inv_cdf(level) for level in levels]])
    # The closed form (Gneiting and Raftery 2007).
    exact = observed * (2 * normal.cdf(observed) - 1) + 2 * normal.pdf(observed) - np.pi**-0.5
    score = quantile_scores(quantiles, levels, np.array([observed]))[0]
    assert score == pytest.approx(exact, rel=2e-3)
