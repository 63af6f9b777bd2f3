from __future__ import annotations

import inspect

import pytest

from llm_trader import errors as shared
from llm_trader.errors import (
    ConfigurationError,
    EmbeddingError,
    InsufficientMatchesError,
    InvalidDataError,
    InvalidInputError,
    LlmTraderError,
    StaleDataError,
    StoreError,
    StoreLockedError,
    SymbolNotFoundError,
    VectorIndexError,
)
from llm_trader.rpc import errors as own
from llm_trader.rpc.dispatcher import Method
from llm_trader.serving.wire import RAG_ERRORS
from tests.rpc.stub import connected, raising, serving

RAISED: list[tuple[BaseException, int, str]] = [
    (LlmTraderError("broken"), -32000, "broken"),
    (ConfigurationError("no path"), -32000, "no path"),
    (StoreLockedError("locked"), -32000, "locked"),
    (InvalidDataError("candles", {"unsorted": 2}), -32000, "candles: refused, 2 × unsorted"),
    (own.DrainingError(), -32000, "draining"),
    (InsufficientMatchesError(2, 3, "widen"), -32001, "2 similar past states found"),
    (SymbolNotFoundError("XUSDT", ["BTCUSDT"]), -32002, "no data for symbol 'XUSDT'"),
    (StoreError("torn"), -32000, "torn"),
    (VectorIndexError("gone"), -32003, "gone"),
    (EmbeddingError("too little"), -32004, "too little"),
    (StaleDataError("old"), -32005, "old"),
    (InvalidInputError("top_k is odd"), -32602, "Invalid params: top_k is odd"),
    (own.ParseError("x"), -32700, "Parse error: x"),
    (own.InvalidRequestError("x"), -32600, "Invalid Request: x"),
    (own.MethodNotFoundError("x", "y"), -32601, "Method not found: no method 'x'; y"),
    (own.UnauthorizedError("who"), -32010, "who"),
    (own.RateLimitedError(250), -32011, "rate limited"),
    (own.OverloadedError("full"), -32012, "full"),
    (own.DeadlineExceededError("late"), -32013, "late"),
    (KeyError("secret path"), -32603, "Internal error"),
    (TimeoutError("inner"), -32603, "Internal error"),
]


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [pytest.param(*row, id=type(row[0]).__name__) for row in RAISED],
)
async def test_each_error_reaches_the_client_under_its_code(
    error: BaseException, code: int, message: str
) -> None:
    fail = raising("fail", error)
    async with serving(fail, errors=RAG_ERRORS) as server, connected(server) as line:
        reply = await line.call("fail")
        assert reply["error"]["code"] == code
        assert reply["error"]["message"].startswith(message)
        if isinstance(error, LlmTraderError) and error.details:
            assert reply["error"]["data"] == error.details
        assert (await line.call("rpc.ping"))["result"]["pong"] is True


async def test_an_unexpected_exception_shows_an_incident_id_and_no_internals() -> None:
    async with serving(raising("fail", KeyError("secret"))) as server, connected(server) as line:
        error = (await line.call("fail"))["error"]
        assert error["data"]["request_id"] in error["message"]
        assert "secret" not in str(error)


async def test_a_result_that_cannot_be_encoded_is_an_internal_error() -> None:
    async def odd(params: None, context: object) -> object:
        return object()

    async with serving(Method("odd", None, odd, "")) as server, connected(server) as line:
        assert (await line.call("odd"))["error"]["code"] == -32603


async def test_details_that_are_not_plain_data_do_not_cost_the_reply() -> None:
    error = StoreError("torn", where=ValueError("here"))
    async with serving(raising("fail", error)) as server, connected(server) as line:
        assert (await line.call("fail"))["error"]["data"] == {"where": "here"}


def test_every_error_class_has_its_own_entry_in_the_table() -> None:
    declared = {
        kind
        for module in (shared, own)
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, LlmTraderError)
    }
    assert declared - RAG_ERRORS.codes.keys() == set()


def test_a_class_from_another_room_takes_its_nearest_ancestors_code() -> None:
    class TornPageError(VectorIndexError):
        pass

    assert RAG_ERRORS.code_of(TornPageError) == -32003


@pytest.mark.parametrize("table", [own.PROTOCOL_ERRORS, RAG_ERRORS], ids=["protocol", "rag"])
def test_every_code_has_a_title(table: own.ErrorTable) -> None:
    assert set(table.codes.values()) | {own.INTERNAL_ERROR} == table.titles.keys()
