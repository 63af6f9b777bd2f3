"""The JSON-RPC 2.0 envelope: recognises requests, and writes the reply around a result.

`params` and `id` stay raw JSON, so a number or a string returns exactly as the client wrote it.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec
from msgspec import Raw

from llm_trader.errors import LlmTraderError
from llm_trader.rpc.errors import (
    ErrorObject,
    FieldError,
    InvalidParamsError,
    InvalidRequestError,
    ParseError,
)
from llm_trader.rpc.framing import nested_deeper

NULL: Final = b"null"
# The deepest request of a batch has 7.
MAX_DEPTH: Final = 32
UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Call(msgspec.Struct):
    """A request, or a notification when `id` is empty."""

    jsonrpc: Literal["2.0"]
    method: str
    params: Raw = Raw(b"")
    id: Raw = Raw(b"")


class _Meta(msgspec.Struct):
    """`params._meta`: what is about the call and not for the method."""

    token: str | None = None


_META: Final = msgspec.json.Decoder(_Meta)
_FIELDS: Final = msgspec.json.Decoder(dict[str, Raw])
_CALLS: Final = msgspec.json.Decoder(Call)
_MEMBERS: Final = msgspec.json.Decoder(list[Raw])
# Error details are plain data by contract; one that is not must not cost the client its reply.
_ERROR_ENCODER: Final = msgspec.json.Encoder(enc_hook=str)


def batch_members(document: bytes, max_members: int) -> list[bytes]:
    """Raises `ParseError`, or `InvalidRequestError` for a batch that is empty, long or deep."""
    if nested_deeper(document, MAX_DEPTH):
        raise _too_deep()
    try:
        members = _MEMBERS.decode(document)
    except UNREADABLE as error:
        raise parse_error(error) from None
    if not 0 < len(members) <= max_members:
        raise InvalidRequestError(f"a batch has 1 to {max_members} members, not {len(members)}")
    return [bytes(member) for member in members]


def decode_call(document: bytes) -> tuple[Call, bytes] | None:
    """The call and its raw id (empty for a notification); None for `explain_refusal` to explain."""
    if nested_deeper(document, MAX_DEPTH):
        return None
    try:
        call = _CALLS.decode(document)
        raw_id = bytes(call.id)
        # Raw JSON is not checked for valid UTF-8, and the reply must be valid.
        if raw_id[:1] == b'"':
            msgspec.json.decode(raw_id, type=str)
    except UNREADABLE:
        return None
    if raw_id[:1] in (b"{", b"[", b"t", b"f"):
        return None
    return call, raw_id


def raw_id(document: bytes) -> bytes:
    """The id to refuse a document under that is not answered; null if it is no single call."""
    decoded = decode_call(document)
    return (decoded and decoded[1]) or NULL


def explain_refusal(document: bytes) -> tuple[LlmTraderError, bytes]:
    """Why a document is not a call, and the raw id to reply under. Slow; for refusals only."""
    if nested_deeper(document, MAX_DEPTH):
        return _too_deep(), NULL
    try:
        value = msgspec.json.decode(document)
    except msgspec.ValidationError:
        return InvalidRequestError("a number is out of range"), NULL
    except UNREADABLE as error:
        return parse_error(error), NULL
    if not isinstance(value, dict):
        return InvalidRequestError("expected a request object or a batch of them"), NULL
    request_id = value.get("id")
    usable = isinstance(request_id, str | int | float) and not isinstance(request_id, bool)
    if value.get("jsonrpc") != "2.0":
        flaw = 'member jsonrpc must be "2.0"'
    elif not isinstance(value.get("method"), str):
        flaw = "member method must be a string"
    else:
        flaw = "id must be a string, a number or null"
    return InvalidRequestError(flaw), msgspec.json.encode(request_id) if usable else NULL


def take_token(call: Call) -> str | None:
    """Removes `_meta` from the params, and returns the token in it, if any.

    Raises `InvalidParamsError` if it is not an object with a token of text.
    """
    raw = bytes(call.params)
    if b'"_meta"' not in raw or raw[:1] != b"{":
        return None
    try:
        fields = _FIELDS.decode(raw)
        meta = fields.pop("_meta", None)
        if meta is None:  # some other string or a deeper field has the name
            return None
        call.params = Raw(msgspec.json.encode(fields))
        return _META.decode(meta).token
    except msgspec.ValidationError:
        # The message could repeat the token.
        problem = FieldError("_meta", 'must be an object such as {"token": "…"}')
        raise InvalidParamsError([problem]) from None
    except UNREADABLE as error:
        raise parse_error(error) from None


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


def _too_deep() -> InvalidRequestError:
    return InvalidRequestError(
        f"a document may have at most {MAX_DEPTH} brackets within each other", limit_depth=MAX_DEPTH
    )


def parse_error(error: Exception) -> ParseError:
    return ParseError("nested too deeply" if isinstance(error, RecursionError) else str(error))


def reply(raw_id: bytes, outcome: bytes | ErrorObject) -> bytes:
    """The reply around an encoded result or an error."""
    if isinstance(outcome, ErrorObject):
        return b'{"jsonrpc":"2.0","error":%b,"id":%b}' % (_ERROR_ENCODER.encode(outcome), raw_id)
    # In one step, as each copy of a reply of many MB takes milliseconds.
    return b"".join((b'{"jsonrpc":"2.0","result":', outcome, b',"id":', raw_id, b"}"))
