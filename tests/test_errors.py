from __future__ import annotations

import inspect
import re

import pytest

from llm_trader import errors
from llm_trader.errors import (
    InsufficientMatchesError,
    InvalidDataError,
    InvalidInputError,
    LlmTraderError,
    SymbolNotFoundError,
)

CLASSES = [
    value
    for _, value in inspect.getmembers(errors, inspect.isclass)
    if issubclass(value, LlmTraderError)
]


def test_every_error_has_a_code_of_its_own():
    codes = [error.code for error in CLASSES]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z_]+", code) for code in codes)


def test_the_drawn_tree_is_the_real_tree():
    drawn: dict[str, str | None] = {}
    above: list[str] = []
    for indent, name in re.findall(r"^((?:[ │]{4}|[├└]── )*)(\w+Error)\b", errors.__doc__, re.M):
        depth = len(indent) // 4 - 1
        del above[depth:]
        drawn[name] = above[-1] if above else None
        above.append(name)
    real = {error.__name__: error.__base__.__name__ for error in CLASSES}
    assert drawn == real | {"LlmTraderError": None}


@pytest.mark.parametrize("error", CLASSES)
def test_every_error_is_caught_as_the_packages_own_and_not_as_a_builtin_one(error: type):
    assert not issubclass(error, ValueError | RuntimeError | OSError | LookupError)


def test_the_message_is_what_it_prints_and_the_details_are_kept_apart():
    error = LlmTraderError("the store is gone", path="var/market")
    assert str(error) == error.message == "the store is gone"
    assert error.details == {"path": "var/market"}


def test_an_unknown_symbol_names_those_that_are_there():
    error = SymbolNotFoundError("BTCUSD", ["BTCUSDT", "ETHUSDT"])
    assert str(error) == "no data for symbol 'BTCUSD'; available: BTCUSDT, ETHUSDT"
    assert error.details == {"available": ["BTCUSDT", "ETHUSDT"]}
    assert isinstance(error, InvalidInputError)


def test_an_unknown_symbol_in_an_empty_store_says_none():
    assert str(SymbolNotFoundError("BTCUSDT", [])).endswith("available: none")


def test_refused_records_are_counted_by_reason():
    error = InvalidDataError("candles.csv", {"high below low": 2, "time not on the grid": 1})
    assert str(error) == "candles.csv: refused, 2 × high below low, 1 × time not on the grid"
    assert error.details == {"reasons": {"high below low": 2, "time not on the grid": 1}}


def test_refused_records_are_named_with_their_place_and_the_remedy():
    error = InvalidDataError(
        "a.csv",
        {"close not a number": 1},
        places={"close not a number": "line 9"},
        remedy="mend it",
    )
    assert str(error) == "a.csv: refused, 1 × close not a number (line 9); mend it"
    assert error.details["places"] == {"close not a number": "line 9"}


def test_too_few_matches_say_how_many_and_what_to_do():
    error = InsufficientMatchesError(1, 3, "lower min_similarity")
    assert str(error) == "1 similar past states found, 3 required"
    assert error.details == {
        "matches_found": 1,
        "min_required": 3,
        "suggestion": "lower min_similarity",
    }
