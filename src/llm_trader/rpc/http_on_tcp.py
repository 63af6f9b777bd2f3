"""What a client is told that speaks HTTP to the port of lines."""

from __future__ import annotations

from llm_trader.rpc import envelope
from llm_trader.rpc.errors import PROTOCOL_ERRORS, InvalidRequestError


def http_error(http_address: tuple[str, int] | None) -> bytes:
    """An HTTP response that names the right port."""
    message = "this port speaks JSON-RPC over TCP, one document per line"
    if http_address is None:
        message += "; this server was started without HTTP (serving.http, --no-http)"
    else:
        message += f"; for HTTP use port {http_address[1]}: POST /rpc"
    error = PROTOCOL_ERRORS.error_object(InvalidRequestError(message))
    body = envelope.reply(envelope.NULL, error)
    return (
        b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(body), body)
    )
