"""What goes wrong with an answer. An answer is a row of steps: bytes to send, seconds to wait, or
`ABORT`; a fault makes other steps of it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal


class End(Enum):
    ABORT = "the connection is reset"
    FOREVER = "nothing more comes, and the connection stays"


Step = bytes | float | End


@dataclass(frozen=True, slots=True)
class Answer:
    """What would be sent: `parts` of a body, each an event if it is a stream."""

    api: Literal["responses", "chat", "messages"]
    parts: Sequence[bytes]
    stream: bool

    def steps(self) -> list[Step]:
        return [head(200, _type(self.stream)), *map(chunk, self.parts), chunk(b"")]


@dataclass(frozen=True, slots=True)
class Status:
    """An error as this interface words it, or `body` as it is."""

    status: int
    retry_after_s: float | None = None
    body: bytes | None = None
    code: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def steps(self, answer: Answer) -> list[Step]:
        headers = dict(self.headers)
        if self.retry_after_s is not None:
            headers["retry-after"] = str(self.retry_after_s)
        body = self.body
        if body is None:
            body = error_body(answer.api, self.status, f"status {self.status}", self.code)
        first = head(self.status, "application/json", **headers)
        return [first, *map(chunk, filter(None, [body])), chunk(b"")]


@dataclass(frozen=True, slots=True)
class Drop:
    """The connection is reset before the answer, or after some of its parts."""

    after_parts: int | None = None

    def steps(self, answer: Answer) -> list[Step]:
        if self.after_parts is None:
            return [End.ABORT]
        return [*answer.steps()[: 1 + self.after_parts], 0.02, End.ABORT]


@dataclass(frozen=True, slots=True)
class Hang:
    """Nothing comes, or nothing more after some parts, and the connection stays open."""

    after_parts: int | None = None

    def steps(self, answer: Answer) -> list[Step]:
        sent = 0 if self.after_parts is None else 1 + self.after_parts
        return [*answer.steps()[:sent], End.FOREVER]


@dataclass(frozen=True, slots=True)
class Drip:
    """The right answer, a byte at a time: each read is in time, and the whole never is."""

    pause_s: float

    def steps(self, answer: Answer) -> list[Step]:
        first, *rest = answer.steps()
        steps: list[Step] = [first]
        for step in rest:
            assert isinstance(step, bytes)
            for byte in step:
                steps += [bytes([byte]), self.pause_s]
        return steps


@dataclass(frozen=True, slots=True)
class Late:
    """The right answer, too late."""

    delay_s: float

    def steps(self, answer: Answer) -> list[Step]:
        return [self.delay_s, *answer.steps()]


@dataclass(frozen=True, slots=True)
class Cut:
    """The answer ends properly after some parts, although it is not complete."""

    after_parts: int

    def steps(self, answer: Answer) -> list[Step]:
        return [*answer.steps()[: 1 + self.after_parts], chunk(b"")]


@dataclass(frozen=True, slots=True)
class Body:
    """Other bytes instead of the body: no JSON, JSON of something else, or a page of a proxy."""

    body: bytes
    content_type: str | None = None

    def steps(self, answer: Answer) -> list[Step]:
        content_type = self.content_type or _type(answer.stream)
        return [head(200, content_type), *map(chunk, filter(None, [self.body])), chunk(b"")]


@dataclass(frozen=True, slots=True)
class Event:
    """An event in the midst of a stream, after which it ends: broken, or an error."""

    data: bytes
    after_parts: int = 1

    def steps(self, answer: Answer) -> list[Step]:
        return [*answer.steps()[: 1 + self.after_parts], chunk(self.data), chunk(b"")]


Fault = Status | Drop | Hang | Drip | Late | Cut | Body | Event


def head(status: int, content_type: str, **headers: str) -> bytes:
    fields = {
        "content-type": content_type,
        "transfer-encoding": "chunked",
        "request-id": "req_stub",
        **headers,
    }
    lines = [f"HTTP/1.1 {status} Stub", *(f"{name}: {value}" for name, value in fields.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def chunk(part: bytes) -> bytes:
    return f"{len(part):x}\r\n".encode() + part + b"\r\n"


def error_body(api: str, status: int, message: str, code: str | None = None) -> bytes:
    """The words for an error that each interface has."""
    if api == "messages":
        body: dict[str, Any] = {
            "type": "error",
            "error": {"type": code or _ANTHROPIC.get(status, "api_error"), "message": message},
            "request_id": "req_stub",
        }
    else:
        kind = "server_error" if status >= 500 else "invalid_request_error"
        body = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    return json.dumps(body).encode()


def _type(stream: bool) -> str:
    return "text/event-stream" if stream else "application/json"


_ANTHROPIC = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}
