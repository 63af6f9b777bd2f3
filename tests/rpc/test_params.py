from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from llm_trader.rpc.errors import InvalidParamsError
from llm_trader.rpc.params import ParamsDecoder
from tests.rpc.stub import Line

VALID: dict[str, Any] = {
    "symbol": "BTCUSDT",
    "timestamp": 1730811225000,
    "current_state": {"price": 70000, "rsi_7": 55.5},
}


class Loose(msgspec.Struct):
    a: int


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    n: int

    def __post_init__(self) -> None:
        if self.n > 5:
            raise ValueError("n must not exceed 5")


class Outer(msgspec.Struct, forbid_unknown_fields=True):
    inner: Inner
    more: list[Inner] = []


async def test_every_field_error_is_reported_at_once(line: Line) -> None:
    params = {
        "timestamp": "soon",
        "current_state": {"price": None, "rsi_14": "high"},
        "query_config": {"top_k": 0, "horizons": [1, "x"]},
    }
    error = (await line.call("query", params))["error"]
    assert error["code"] == -32602
    assert {e["field"]: e["error"] for e in error["data"]["errors"]} == {
        "symbol": "is required",
        "timestamp": "expected int, got str",
        "current_state.price": "expected float, got null",
        "current_state.rsi_7": "is required",
        "current_state.rsi_14": "expected float | null, got str",
        "query_config.top_k": "expected int >= 1",
        "query_config.horizons[1]": "expected int, got str",
    }


async def test_unknown_fields_are_tolerated_and_told_to_the_method(line: Line) -> None:
    params = {
        **VALID,
        "simbol": 1,
        "current_state": {**VALID["current_state"], "rsi_41": 3, "mood": "good"},
    }
    reply = await line.call("query", params)
    assert reply["result"]["unknown_fields"] == [
        "simbol",
        "current_state.mood",
        "current_state.rsi_41 (did you mean rsi_14?)",
    ]


async def test_a_misspelt_required_field_is_recognised(line: Line) -> None:
    params = {**VALID, "current_state": {"price": 1, "rsi7": 50}}
    data = (await line.call("query", params))["error"]["data"]
    assert data["errors"] == [
        {"field": "current_state.rsi_7", "error": "is required (did 'rsi7' mean it?)"}
    ]
    assert data["unknown_fields"] == ["current_state.rsi7 (did you mean rsi_7?)"]


async def test_an_integral_float_is_an_integer(line: Line) -> None:
    params = {**VALID, "timestamp": 1730811225000.0, "query_config": {"horizons": [1.0, 2]}}
    reply = await line.call("query", params)
    assert reply["result"]["params"]["timestamp"] == 1730811225000
    assert reply["result"]["params"]["query_config"]["horizons"] == [1, 2]


async def test_an_integral_float_out_of_range_is_refused_for_its_range(line: Line) -> None:
    error = (await line.call("query", {**VALID, "query_config": {"top_k": 51.0}}))["error"]
    assert error["data"]["errors"] == [
        {"field": "query_config.top_k", "error": "expected int <= 50"}
    ]


async def test_a_fraction_is_not_an_integer(line: Line) -> None:
    error = (await line.call("query", {**VALID, "timestamp": 1730811225000.5}))["error"]
    assert [e["field"] for e in error["data"]["errors"]] == ["timestamp"]


async def test_params_by_position_follow_the_order_of_the_fields(line: Line) -> None:
    reply = await line.call("query", list(VALID.values()))
    assert reply["result"]["params"]["symbol"] == "BTCUSDT"


async def test_a_number_beyond_all_range_is_invalid_params(line: Line) -> None:
    line.send(b'{"jsonrpc":"2.0","method":"subtract","params":[1e999,1],"id":1}\n')
    assert (await line.receive())["error"]["code"] == -32602


async def test_text_that_is_not_utf8_is_a_parse_error(line: Line) -> None:
    line.send(b'{"jsonrpc":"2.0","method":"query","params":{"symbol":"\xff"},"id":1}\n')
    assert (await line.receive())["error"]["code"] == -32700


def test_unknown_fields_are_found_also_where_a_struct_would_ignore_them() -> None:
    unknown: list[str] = []
    assert ParamsDecoder(Loose).decode(b'{"a":1,"b":2}', unknown) == Loose(1)
    assert unknown == ["b"]


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"inner": {"n": 9}}, "inner"),
        ({"inner": {"n": 1}, "more": [{"n": 2}, {"n": 9}]}, "more[1]"),
    ],
)
def test_a_rule_of_a_nested_struct_is_reported_at_its_place(
    params: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidParamsError) as caught:
        ParamsDecoder(Outer).decode(json.dumps(params).encode(), [])
    assert [e.field for e in caught.value.details["errors"]] == [field]
    assert "n must not exceed 5" in caught.value.message


def test_a_flood_of_unknown_fields_is_reported_in_part() -> None:
    unknown: list[str] = []
    flood = {f"x{n}": n for n in range(10_000)}
    ParamsDecoder(Loose).decode(json.dumps({"a": 1, **flood}).encode(), unknown)
    assert len(unknown) == 50
