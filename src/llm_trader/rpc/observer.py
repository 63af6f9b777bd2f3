"""Reports each request to observers, for logs, metrics and audit."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

import msgspec
import structlog


class RequestRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One request with its reply; refused requests and notifications are included.

    `method` has at most 64 characters and is None if the document is not a call. `code` is the
    JSON-RPC error code, None for a result. `stages` maps the reached ones of `queue` (all waits
    for a turn), `decode`, `handle` and `encode` to seconds; a method may add its own, and `handle`
    is the rest of its work then.
    `reply_bytes` is 0 for a notification. `batch_position` counts from 1; None outside batches.
    `key_id` is the id of the caller's key; None where no valid one was sent.
    """

    request_id: str
    peer: str
    method: str | None
    code: int | None
    stages: Mapping[str, float]
    duration_s: float
    request_bytes: int
    reply_bytes: int
    notification: bool
    batch_position: int | None
    key_id: str | None = None


# Called once for each request, on the event loop: it must return quickly.
RequestObserver = Callable[[RequestRecord], None]


def log_request(record: RequestRecord) -> None:
    """Writes a debug line."""
    structlog.get_logger(__name__).debug(
        "rpc_request",
        method=record.method,
        request_id=record.request_id,
        peer=record.peer,
        key_id=record.key_id,
        error_code=record.code,
        duration_ms=record.duration_s * 1000,
    )


def log_observers() -> Sequence[RequestObserver]:
    """The request log if debug lines are enabled; otherwise the records would only cost time."""
    enabled: bool = structlog.get_logger(__name__).bind().is_enabled_for(logging.DEBUG)
    return (log_request,) if enabled else ()
