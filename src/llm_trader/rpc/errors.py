"""Errors on the wire: the protocol's own exceptions, and the table from exceptions to codes.

`PROTOCOL_ERRORS` has the codes of JSON-RPC and of the transport. A server gives its `Dispatcher` a
table with the kinds of its domain as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from msgspec import Meta

from llm_trader.errors import ConfigurationError, InvalidInputError, LlmTraderError

INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
SERVER_ERROR: Final = -32000

# JSON-RPC's own codes lie at and below it; clients match their titles at the start of messages.
_LAST_STANDARD_CODE: Final = -32600
# Load passes within a few turns; a client that comes back much sooner adds to it.
_OVERLOADED_MS: Final = 1000


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
    """Send a valid key that has the scope in `missing_scope`, if there is one."""

    code = "unauthorized"


class RateLimitedError(LlmTraderError):
    """Wait `retry_after_ms`, then send again."""

    code = "rate_limited"

    def __init__(self, retry_after_ms: int) -> None:
        message = f"rate limited; send again after {retry_after_ms} ms"
        super().__init__(message, retry_after_ms=retry_after_ms)


class OverloadedError(LlmTraderError):
    """Send again after `retry_after_ms`, or to another server."""

    code = "overloaded"

    def __init__(self, message: str) -> None:
        super().__init__(message, retry_after_ms=_OVERLOADED_MS)


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

    code: Annotated[int, Meta(description="JSON-RPC error code.")]
    message: Annotated[str, Meta(description="What is wrong, and what to do.")]
    data: Annotated[Any, Meta(description="More about it; depends on the code.")] = None


class ErrorKind(NamedTuple):
    """A JSON-RPC code, its title, and the exceptions that become it.

    `logged` marks a fault on our side, which the operator must see whoever sent the request.
    """

    code: int
    title: str
    exceptions: tuple[type[LlmTraderError], ...] = ()
    logged: bool = False


class ErrorTable:
    """JSON-RPC codes by exception class; a class without an entry takes its nearest ancestor's."""

    def __init__(self, kinds: Iterable[ErrorKind]) -> None:
        self.kinds = tuple(kinds)
        self.codes = {error: kind.code for kind in self.kinds for error in kind.exceptions}
        self.titles = {kind.code: kind.title for kind in self.kinds}
        self.logged = {kind.code for kind in self.kinds if kind.logged}

    def code_of(self, kind: type[LlmTraderError]) -> int:
        return next(self.codes[base] for base in kind.__mro__ if base in self.codes)

    def error_object(self, error: LlmTraderError) -> ErrorObject:
        """The code, the message, and the exception's details as `data`."""
        code = self.code_of(type(error))
        message = error.message
        if code <= _LAST_STANDARD_CODE:
            message = f"{self.titles[code]}: {message}"
        return ErrorObject(code, message, error.details or None)


PROTOCOL_ERRORS: Final = ErrorTable(
    (
        ErrorKind(-32700, "Parse error", (ParseError,)),
        ErrorKind(-32600, "Invalid Request", (InvalidRequestError,)),
        ErrorKind(-32601, "Method not found", (MethodNotFoundError,)),
        ErrorKind(INVALID_PARAMS, "Invalid params", (InvalidInputError, InvalidParamsError)),
        ErrorKind(INTERNAL_ERROR, "Internal error"),
        ErrorKind(
            SERVER_ERROR, "Server error", (LlmTraderError, ConfigurationError, DrainingError), True
        ),
        ErrorKind(-32010, "Unauthorized", (UnauthorizedError,)),
        ErrorKind(-32011, "Rate limited", (RateLimitedError,)),
        ErrorKind(-32012, "Overloaded", (OverloadedError,)),
        ErrorKind(-32013, "Deadline exceeded", (DeadlineExceededError,)),
    )
)
