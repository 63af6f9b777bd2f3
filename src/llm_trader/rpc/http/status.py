"""The HTTP status of a reply, and the body of a refusal that no method made."""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec

from llm_trader.errors import LlmTraderError
from llm_trader.rpc import envelope
from llm_trader.rpc.errors import INTERNAL_ERROR, PROTOCOL_ERRORS, ErrorObject

INVALID_REQUEST: Final = -32600
OVERLOADED: Final = -32012
UNAUTHORIZED: Final = -32010

# A method's own error, such as wrong parameters or too few matches, is an answer and stays 200:
# many clients read the body of nothing else. What concerns the request as a whole has a status.
_STATUSES: Final = {
    -32700: 400,
    INVALID_REQUEST: 400,
    INTERNAL_ERROR: 500,
    UNAUTHORIZED: 401,
    -32011: 429,
    OVERLOADED: 503,
    -32013: 504,
}
_RETRY_S: Final = 1
_ERROR_PREFIX: Final = b'{"jsonrpc":"2.0","error":'


class _Refusal(msgspec.Struct):
    error: ErrorObject


def http_status(code: int) -> int:
    """The HTTP status for a JSON-RPC error code."""
    return _STATUSES.get(code, 200)


def status_and_headers(reply: bytes, *, draining: bool) -> tuple[int, dict[str, str]]:
    """Those of the reply to one document; a batch is 200 whatever its members are."""
    if not reply.startswith(_ERROR_PREFIX):
        return 200, {}
    error = msgspec.json.decode(reply, type=_Refusal).error
    return status_of_error(error, draining=draining)


def status_of_error(error: ErrorObject, *, draining: bool) -> tuple[int, dict[str, str]]:
    """Those of a request that has no other outcome than this error."""
    status = http_status(error.code)
    if draining and status == 200:
        return 503, {"retry-after": str(_RETRY_S), "connection": "close"}
    return status, _headers(status, error.data)


def _headers(status: int, data: Any) -> dict[str, str]:
    headers = {"www-authenticate": "Bearer"} if status == 401 else {}
    wait_ms = data.get("retry_after_ms") if isinstance(data, dict) else None
    if status in (429, 503) or (status == 401 and wait_ms is not None):
        headers["retry-after"] = str(max(_RETRY_S, math.ceil((wait_ms or 0) / 1000)))
    return headers


def refusal(message: str, code: int = INVALID_REQUEST) -> bytes:
    """A JSON-RPC error, so that clients find the message where they look for it."""
    return envelope.reply(envelope.NULL, ErrorObject(code, message))


def refusal_of(error: LlmTraderError) -> bytes:
    """The same with the code and the details of an error."""
    return envelope.reply(envelope.NULL, PROTOCOL_ERRORS.error_object(error))
