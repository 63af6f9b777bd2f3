"""Kinds of neighbours beside each other: one grid for the page and the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Final

from llm_trader.evaluation.report.units import DASH
from llm_trader.evaluation.results import Direction, Skill
from llm_trader.retrieval.intervals import Interval

# Symbol, kind of neighbours, horizon.
Case = tuple[str, str, str]

SAME: Final = "the same"


def case_of(one: Skill | Direction) -> Case:
    return one.symbol, one.variant, one.horizon


def the_same(one: Skill) -> bool:
    """Not by chance: the forecasts are those of the reference."""
    return one.skill == Interval(0, 0, 0)


def grid_of(cells: Mapping[Case, str]) -> tuple[list[str], list[list[str]]]:
    """The head, and a row for each symbol and kind of neighbours, a column for each horizon."""
    symbols, variants, horizons = ({case[at]: None for case in cells} for at in range(3))
    rows = [
        [symbol, variant, *(cells.get((symbol, variant, horizon), DASH) for horizon in horizons)]
        for symbol, variant in product(symbols, variants)
    ]
    return ["symbol", "neighbours", *horizons], rows
