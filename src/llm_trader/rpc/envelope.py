"""The JSON-RPC 2.0 envelope: telling what a document is, and writing the reply around a result.

`params` and `id` stay raw JSON, so a number or a string returns exactly as the client wrote it.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec
from msgspec import Raw

from llm_trader.rpc.errors import (
    ErrorObject,
    InvalidRequestError,
    ParseError,
    error_object,
)

NULL: Final = b"null"
UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_NO_JSON: Final = Raw(b"")


class Call(msgspec.Struct):
    """A request, or a notification when `id` is empty."""

    jsonrpc: Literal["2.0"]
    method: str
    params: Raw = _NO_JSON
    id: Raw = _NO_JSON


_CALLS: Final = msgspec.json.Decoder(Call)
_MEMBERS: Final = msgspec.json.Decoder(list[Raw])
# Error details are plain data by contract; one that is not must not cost the client its reply.
_ERROR_ENCODER: Final = msgspec.json.Encoder(enc_hook=str)


def is_batch(document: bytes) -> bool:
    return document.lstrip()[:1] == b"["


def batch_members(document: bytes, max_members: int) -> list[bytes]:
    """Raises `ParseError`, or `InvalidRequestError` for a batch that is empty or too long."""
    try:
        members = _MEMBERS.decode(document)
    except UNREADABLE as error:
        raise parse_error(error) from None
    if not 0 < len(members) <= max_members:
        raise InvalidRequestError(f"a batch has 1 to {max_members} members, not {len(members)}")
    return [bytes(member) for member in members]


def decode_call(document: bytes) -> tuple[Call, bytes] | None:
    """The call and its raw id (empty for a notification); None when `refusal` must answer."""
    try:
        call = _CALLS.decode(document)
        raw_id = bytes(call.id)
        if raw_id[:1] == b'"':
            msgspec.json.decode(raw_id, type=str)
    except UNREADABLE:
        return None
    if raw_id[:1] in (b"{", b"[", b"t", b"f"):
        return None
    return call, raw_id


def refusal(document: bytes) -> bytes:
    """The reply that says why a document is not a call; slow, and only for such documents."""
    try:
        value = msgspec.json.decode(document)
    except msgspec.ValidationError:
        return failure(NULL, error_object(InvalidRequestError("a number is out of range")))
    except UNREADABLE as error:
        return failure(NULL, error_object(parse_error(error)))
    if not isinstance(value, dict):
        flaw = "expected a request object or a batch of them"
        return failure(NULL, error_object(InvalidRequestError(flaw)))
    return failure(_salvaged_id(value), error_object(InvalidRequestError(_flaw(value))))


def raw_params(call: Call) -> bytes:
    """An object or an array; absent and null params are an empty object.

    Raises `InvalidRequestError` for any other JSON value.
    """
    raw = bytes(call.params)
    if raw in (b"", NULL):
        return b"{}"
    if raw[:1] not in (b"{", b"["):
        raise InvalidRequestError("params must be an object or an array")
    return raw


def parse_error(error: Exception) -> ParseError:
    return ParseError("nested too deeply" if isinstance(error, RecursionError) else str(error))


def success(raw_id: bytes, result: bytes) -> bytes:
    return b'{"jsonrpc":"2.0","result":' + result + b',"id":' + raw_id + b"}"


def failure(raw_id: bytes, error: ErrorObject) -> bytes:
    body = _ERROR_ENCODER.encode(error)
    return b'{"jsonrpc":"2.0","error":' + body + b',"id":' + raw_id + b"}"


def _flaw(request: dict[str, Any]) -> str:
    if request.get("jsonrpc") != "2.0":
        return 'member jsonrpc must be "2.0"'
    if not isinstance(request.get("method"), str):
        return "member method must be a string"
    return "id must be a string, a number or null"


def _salvaged_id(request: dict[str, Any]) -> bytes:
    value = request.get("id")
    usable = isinstance(value, str | int | float) and not isinstance(value, bool)
    return msgspec.json.encode(value) if usable else NULL
