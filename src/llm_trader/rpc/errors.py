"""Errors on the wire: the protocol's own exceptions, and the table from exceptions to codes.

`PROTOCOL_ERRORS` has the codes of JSON-RPC and of the transport; a server extends it by the codes
of its domain and gives the extended table to its `Dispatcher`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from llm_trader.errors import ConfigurationError, InvalidInputError, LlmTraderError

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
SERVER_ERROR: Final = -32000
UNAUTHORIZED: Final = -32010
RATE_LIMITED: Final = -32011
OVERLOADED: Final = -32012
DEADLINE_EXCEEDED: Final = -32013

# Clients match the standard titles at the start of these messages.
_OPENS_WITH_TITLE: Final = frozenset(
    {PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS, INTERNAL_ERROR}
)


class FieldError(msgspec.Struct, frozen=True):
    """One refused parameter: its dotted path, such as `current_state.rsi_7`, and why."""

    field: str
    error: str


class ParseError(LlmTraderError):
    """Send one JSON document per line; this one is not JSON."""

    code = "parse"


class InvalidRequestError(LlmTraderError):
    """Send a JSON-RPC 2.0 request object; this document is other JSON."""

    code = "invalid_request"


class MethodNotFoundError(LlmTraderError):
    """Call a method that `rpc.discover` lists."""

    code = "method_not_found"

    def __init__(self, name: str, suggestion: str) -> None:
        super().__init__(f"no method {name!r}; {suggestion}", suggestion=suggestion)


class InvalidParamsError(InvalidInputError):
    """Correct every field in `errors`; all of them are reported at once."""

    code = "invalid_params"

    def __init__(self, errors: Sequence[FieldError], unknown_fields: Sequence[str] = ()) -> None:
        shown = "; ".join(f"{e.field} {e.error}" if e.field else e.error for e in errors[:3])
        more = f"; and {len(errors) - 3} more" if len(errors) > 3 else ""
        super().__init__(shown + more, errors=list(errors))
        if unknown_fields:
            self.details["unknown_fields"] = list(unknown_fields)


class UnauthorizedError(LlmTraderError):
    """Call `rpc.authenticate` with a valid token first."""

    code = "unauthorized"


class RateLimitedError(LlmTraderError):
    """Wait `retry_after_ms`, then send again."""

    code = "rate_limited"

    def __init__(self, retry_after_ms: int) -> None:
        super().__init__(
            f"rate limited; send again after {retry_after_ms} ms", retry_after_ms=retry_after_ms
        )


class OverloadedError(LlmTraderError):
    """Send again later, or to another server."""

    code = "overloaded"


class DrainingError(LlmTraderError):
    """Reconnect: this process is stopping and takes no new requests."""

    code = "draining"

    def __init__(self) -> None:
        super().__init__("draining: the server is stopping; connect again in a moment")


class DeadlineExceededError(LlmTraderError):
    """Ask for less at once, or raise the server's request deadline."""

    code = "deadline_exceeded"


class ErrorObject(msgspec.Struct, frozen=True, omit_defaults=True):
    """The `error` member of a reply."""

    code: int
    message: str
    data: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


@dataclass(frozen=True, slots=True)
class ErrorTable:
    """JSON-RPC codes by exception class, and titles by code.

    A class without an entry takes its nearest ancestor's. `logged` has the codes of faults on our
    side, which the operator must see whoever sent the request.
    """

    codes: Mapping[type[LlmTraderError], int]
    titles: Mapping[int, str]
    logged: frozenset[int]

    def extended(
        self,
        codes: Mapping[type[LlmTraderError], int],
        titles: Mapping[int, str],
        logged: frozenset[int],
    ) -> ErrorTable:
        return ErrorTable({**self.codes, **codes}, {**self.titles, **titles}, self.logged | logged)

    def code_of(self, kind: type[LlmTraderError]) -> int:
        return next(self.codes[base] for base in kind.__mro__ if base in self.codes)

    def error_object(self, error: LlmTraderError) -> ErrorObject:
        """The code, the message, and the exception's details as `data`."""
        code = self.code_of(type(error))
        message = error.message
        if code in _OPENS_WITH_TITLE:
            message = f"{self.titles[code]}: {message}"
        return ErrorObject(code, message, error.details or msgspec.UNSET)


PROTOCOL_ERRORS: Final = ErrorTable(
    {
        LlmTraderError: SERVER_ERROR,
        ConfigurationError: SERVER_ERROR,
        InvalidInputError: INVALID_PARAMS,
        DrainingError: SERVER_ERROR,
        ParseError: PARSE_ERROR,
        InvalidRequestError: INVALID_REQUEST,
        MethodNotFoundError: METHOD_NOT_FOUND,
        InvalidParamsError: INVALID_PARAMS,
        UnauthorizedError: UNAUTHORIZED,
        RateLimitedError: RATE_LIMITED,
        OverloadedError: OVERLOADED,
        DeadlineExceededError: DEADLINE_EXCEEDED,
    },
    {
        PARSE_ERROR: "Parse error",
        INVALID_REQUEST: "Invalid Request",
        METHOD_NOT_FOUND: "Method not found",
        INVALID_PARAMS: "Invalid params",
        INTERNAL_ERROR: "Internal error",
        SERVER_ERROR: "Server error",
        UNAUTHORIZED: "Unauthorized",
        RATE_LIMITED: "Rate limited",
        OVERLOADED: "Overloaded",
        DEADLINE_EXCEEDED: "Deadline exceeded",
    },
    frozenset({SERVER_ERROR}),
)


def internal_error(request_id: str) -> ErrorObject:
    """An unexpected exception without its internals, which the log has under `request_id`."""
    message = f"Internal error: quote request_id {request_id} to the operator"
    return ErrorObject(INTERNAL_ERROR, message, {"request_id": request_id})
