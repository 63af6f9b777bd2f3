from __future__ import annotations

from math import nan

from llm_trader.evaluation.report.formats import DASH, number, p_value, skill, value_range


def test_numbers_have_units_and_signs() -> None:
    assert [skill(value) for value in (0.0123, -0.5, 0.000001, None, nan)] == [
        "+1.23 %",
        "−50.00 %",
        "0.00 %",
        DASH,
        DASH,
    ]
    assert number(-12345.678, 1, " pts") == "−12,345.7 pts"
    assert [p_value(value) for value in (0.0, 0.0004, 0.031, 1.0, None, nan)] == [
        "< 0.001",
        "< 0.001",
        "0.031",
        "1.000",
        DASH,
        DASH,
    ]


def test_a_range_names_its_unit_once_and_leaves_unknown_numbers_out() -> None:
    assert value_range([0.02, None, 0.01, nan], skill) == "+1.00 to +2.00 %"
    assert value_range([0.02, 0.02], skill) == "+2.00 %"
    assert value_range([None], skill) == DASH
