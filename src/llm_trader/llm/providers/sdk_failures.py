"""What an SDK raises, as kinds of failure: one table for both, as their errors are alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import httpx2

from llm_trader.errors import raised_inside
from llm_trader.llm.providers.protocol import FailureKind, TokenUsage

_OF_STATUS: Final[dict[int, FailureKind]] = {
    400: "bad_request",
    401: "credentials",
    402: "credentials",
    403: "credentials",
    404: "unknown_model",
    408: "timeout",
    410: "unknown_model",
    413: "bad_request",
    422: "bad_request",
    429: "rate_limited",
}

# The types and codes of errors in bodies and streams. They say more than a status, which is 200
# once a stream has begun.
_OF_CODE: Final[dict[str, FailureKind]] = {
    "api_error": "overloaded",
    "authentication_error": "credentials",
    "billing_error": "credentials",
    "billing_hard_limit_reached": "credentials",
    "context_length_exceeded": "bad_request",
    "insufficient_quota": "credentials",
    "invalid_api_key": "credentials",
    "invalid_prompt": "bad_request",
    "invalid_request_error": "bad_request",
    "model_not_found": "unknown_model",
    "not_found_error": "unknown_model",
    "overloaded_error": "overloaded",
    "permission_error": "credentials",
    "rate_limit_error": "rate_limited",
    "rate_limit_exceeded": "rate_limited",
    "request_too_large": "bad_request",
    "server_error": "overloaded",
    "timeout_error": "timeout",
}

# What to do about a failure that does not pass by itself.
REMEDIES: Final[dict[FailureKind, str]] = {
    "bad_reply": "check that llm.base_url is the address of such an interface",
    "credentials": "check the key, and what its account may do and has paid for",
    "rate_limited": "lower llm.requests_per_minute, or ask the provider for more",
    "unknown_model": "the model is retired, misspelt or not open to this key: change llm.model",
}

_TRANSPORTS: Final = ("httpx2", "httpcore2", "anyio")

# Raised where a reply lacks what its API promises: the SDKs make objects of anything.
_UNREADABLE: Final = (
    *(AttributeError, KeyError, IndexError, TypeError, ValueError),
    RecursionError,  # of brackets within each other
)


class BrokenReplyError(Exception):
    """A reply that came, or began to come, and cannot be used."""

    def __init__(
        self, message: str, kind: FailureKind = "bad_reply", usage: TokenUsage | None = None
    ) -> None:
        super().__init__(message)
        self.kind: FailureKind = kind
        self.usage = usage


def kind_of_code(code: str | None) -> FailureKind | None:
    return _OF_CODE.get(code or "")


def kind_of_status(status: int) -> FailureKind:
    if status >= 500:
        return "overloaded"
    return _OF_STATUS.get(status, "bad_request" if status >= 400 else "bad_reply")


def failure_of(error: Exception) -> tuple[FailureKind, str] | None:
    """The kind and what to say of it; `None` for an error that no reply explains."""
    if isinstance(error, BrokenReplyError):
        return error.kind, str(error)
    if isinstance(error.__cause__, BrokenReplyError):
        return failure_of(error.__cause__)
    if type(error).__name__ == "APITimeoutError" or isinstance(error, httpx2.TimeoutException):
        return "timeout", "the provider stayed silent for too long"
    if type(error).__name__ == "APIConnectionError" or isinstance(error, httpx2.HTTPError):
        cause = error.__cause__ or error
        return "connection", f"the connection failed ({type(cause).__name__}: {cause})"
    if isinstance(status := getattr(error, "status_code", None), int):
        return _of_error_reply(error, status)
    if hasattr(error, "body") and hasattr(error, "request"):  # an error in the midst of a stream
        code = next(iter(_codes(getattr(error, "body", None))), None)
        return kind_of_code(code) or "overloaded", f"an error in the stream: {error}"
    said = f"{type(error).__name__}: {error}"
    if isinstance(error, _UNREADABLE):
        return "bad_reply", f"the reply is not of its interface ({said})"
    # Event loops have errors of their own for connections that are gone, such as RuntimeError.
    return ("connection", said) if raised_inside(error, _TRANSPORTS) else None


def _of_error_reply(error: Exception, status: int) -> tuple[FailureKind, str]:
    """A code goes before a status, unless it is vague: OpenAI's `invalid_request_error` is also the
    type of wrong keys and unknown models.
    """
    body = getattr(error, "body", None)
    kinds = [_OF_CODE[code] for code in _codes(body) if code in _OF_CODE]
    kinds.append(kind_of_status(status))
    kind = next((one for one in kinds if one not in ("bad_request", "bad_reply")), kinds[0])
    message = _error_of(body).get("message")
    if isinstance(message, str) and message:
        return kind, f"{status}: {message}"
    # Whoever knows the interface says what is not found; others do not know its paths.
    return "bad_reply" if kind == "unknown_model" else kind, f"{status}: {error}"


def _codes(body: Any) -> list[str]:
    inner = _error_of(body)
    return [value for key in ("code", "type") if isinstance(value := inner.get(key), str)]


def _error_of(body: Any) -> Mapping[str, Any]:
    """OpenAI's SDK hands on what is in `error`, Anthropic's the whole body."""
    if not isinstance(body, Mapping):
        return {}
    inner = body.get("error")
    return inner if isinstance(inner, Mapping) else body
