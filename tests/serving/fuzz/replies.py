"""What an answer must be, whatever was asked. Each check raises `AssertionError`."""

from __future__ import annotations

import json
from typing import Any

_INTERNAL_ERROR = -32603


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def _integer(digits: str) -> int | float:
    """Python refuses very long ones, which JSON allows; an id returns as it came."""
    return int(digits) if len(digits) < 100 else float(digits)


def document(data: bytes) -> Any:
    """Strict JSON in UTF-8."""
    return json.loads(data.decode(), parse_constant=_refuse, parse_int=_integer)


def check(data: bytes, *, may_push: bool = False) -> set[Any]:
    """A reply, or a batch of them; returns the ids. A server may push where it has a channel."""
    try:
        value = document(data)
    except ValueError as error:
        error.add_note(f"in the reply {data[:300]!r}")
        raise
    if isinstance(value, list):
        assert value, "an empty batch of replies"
        return {_check_one(member) for member in value}
    if may_push and "method" in value:
        assert set(value) == {"jsonrpc", "method", "params"}, data[:300]
        return set()
    return {_check_one(value)}


def _check_one(reply: Any) -> Any:
    assert isinstance(reply, dict), reply
    assert reply["jsonrpc"] == "2.0", reply
    assert set(reply) in ({"jsonrpc", "result", "id"}, {"jsonrpc", "error", "id"}), reply
    reply_id = reply["id"]
    assert reply_id is None or (
        isinstance(reply_id, str | int | float) and not isinstance(reply_id, bool)
    ), reply
    if "error" in reply:
        error = reply["error"]
        assert set(error) <= {"code", "message", "data"}, error
        assert isinstance(error["message"], str), error
        assert isinstance(error["code"], int), error
        assert error["code"] != _INTERNAL_ERROR, error
    return reply_id


def http_responses(data: bytes) -> list[tuple[int, dict[bytes, bytes], bytes]]:
    """Status, headers and body of each response of a connection, up to a change of protocol."""
    responses = []
    while data:
        head, end, data = data.partition(b"\r\n\r\n")
        assert end, head[:300]
        first, *lines = head.split(b"\r\n")
        version, status_text, _ = first.split(b" ", 2)
        assert version == b"HTTP/1.1", first
        status = int(status_text)
        headers = {}
        for line in lines:
            name, colon, value = line.partition(b": ")
            assert colon, line
            assert name.lower() not in headers, line
            headers[name.lower()] = value
        size = int(headers.get(b"content-length", 0))
        assert status in (101, 100, 204) or b"content-length" in headers, head
        body, data = data[:size], data[size:]
        assert len(body) == size, (size, len(body))
        responses.append((status, headers, body))
        if status == 101:
            break
    return responses


def check_http(status: int, headers: dict[bytes, bytes], body: bytes) -> None:
    assert status < 500 or status in (503, 504), (status, body[:300])
    if status == 405:
        assert b"allow" in headers, headers
    if status in (400, 426) and body.startswith(b"Failed to open a WebSocket connection"):
        return  # the words of the WebSocket library
    if not body:
        assert status in (100, 101, 204), (status, headers)
        return
    assert headers[b"content-type"] == b"application/json", headers
    value = document(body)
    if status in (200, 503) and isinstance(value, dict) and "jsonrpc" not in value:
        return  # a page
    check(body)
    if status == 503:
        assert int(headers[b"retry-after"]) >= 1, headers
