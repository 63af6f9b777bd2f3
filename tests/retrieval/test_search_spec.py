from __future__ import annotations

import msgspec
import pytest

from llm_trader.retrieval.search_spec import SearchSpec
from llm_trader.timeframe import HORIZONS


@pytest.mark.parametrize(
    "wrong",
    [
        {"lookback_days": 0},
        {"lookback_days": 366},
        {"top_k": 0},
        {"top_k": 51},
        {"min_similarity": 1.01},
        {"min_similarity": -0.1},
        {"min_gap_hours": -1},
        {"min_gap_hours": 169},
        {"evidence_k": 9},
        {"evidence_k": 501},
        {"horizons": []},
        {"horizons": ["2h"]},
        {"vector": "colour"},
        {"unheard_of": 1},
    ],
    ids=str,
)
def test_a_specification_out_of_bounds_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(wrong, SearchSpec)


def test_a_specification_has_the_defaults_of_the_wire() -> None:
    plain = msgspec.convert({}, SearchSpec)
    assert (plain.lookback_days, plain.top_k, plain.min_similarity) == (90, 5, 0.7)
    assert (plain.include_regime_filters, plain.min_gap_hours) == (True, 4.0)
    assert (plain.evidence_k, plain.horizons) == (50, tuple(HORIZONS))


def test_the_fields_that_decide_the_neighbours_are_not_those_that_decide_what_is_shown() -> None:
    spec = SearchSpec(lookback_days=30, vector="hybrid", evidence_k=20, min_gap_hours=1.0, top_k=9)
    assert spec.neighbour_fields() == {
        "vector": "hybrid",
        "lookback_days": 30,
        "include_regime_filters": True,
    }
