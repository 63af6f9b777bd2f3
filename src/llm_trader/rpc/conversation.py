"""One side of JSON-RPC calls, without I/O: calls go in, bytes come out, and the other way round.

`Conversation` gives each call an id and finds the call of each reply. A codec puts documents into
a stream of bytes: `Lines` for TCP, `HttpPosts` for HTTP. Whoever owns a socket moves the bytes.
"""

from __future__ import annotations

import itertools
import ssl
from collections import deque
from typing import Any, ClassVar, Final, Protocol

import msgspec

from llm_trader.errors import ConfigurationError, LlmTraderError
from llm_trader.rpc.errors import ErrorObject

# A reply of the most matches and horizons has under 100 KB, one of 1,000 queries some 20 MB.
MAX_REPLY_BYTES: Final = 64 << 20
_MAX_HEAD_BYTES: Final = 1 << 16


class RpcError(LlmTraderError):
    """The server answered with an error: its JSON-RPC code, message and `data`."""

    code: ClassVar[str] = "rpc"

    def __init__(self, error: ErrorObject) -> None:
        super().__init__(error.message, rpc_code=error.code, data=error.data)
        self.rpc_code = error.code
        self.data = error.data


class ConnectionLostError(ConfigurationError):
    """Connect again; the server may have taken the call or not."""

    code = "connection_lost"


class NoReplyError(ConfigurationError):
    """Wait longer, or ask for less; the server may still be at work."""

    code = "no_reply"


class Reply(msgspec.Struct):
    id: int | str | None = None
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: ErrorObject | None = None


_REPLIES: Final = msgspec.json.Decoder(Reply)


class Codec(Protocol):
    """`in_order`: replies come in the order of the calls, so one without an id has its place."""

    in_order: bool

    def encode(self, document: bytes) -> bytes: ...

    def decode(self, data: bytes) -> list[bytes | Reply]:
        """The replies that `data` completes. Raises `ValueError` for what is no reply."""
        ...


class Lines:
    """A document per line."""

    in_order = False

    def __init__(self) -> None:
        self._begun: list[bytes] = []
        self._size = 0

    def encode(self, document: bytes) -> bytes:
        return document + b"\n"

    def decode(self, data: bytes) -> list[bytes | Reply]:
        *ends, rest = data.split(b"\n")
        lines: list[bytes | Reply] = []
        for end in ends:
            line = b"".join([*self._begun, end])
            self._begun, self._size = [], 0
            if line and not line.isspace():
                lines.append(line)
        if rest:
            self._begun.append(rest)
            self._size += len(rest)
            if self._size > MAX_REPLY_BYTES:
                raise ValueError(f"a reply of more than {MAX_REPLY_BYTES >> 20} MiB")
        return lines


class HttpPosts:
    """Each document is the body of a POST, HTTP/1.1. A refusal of HTTP itself becomes an error."""

    in_order = True

    def __init__(self, host: str, path: str, token: str | None = None) -> None:
        head = [f"POST {path} HTTP/1.1", f"Host: {host}", "Content-Type: application/json"]
        if token is not None:
            head.append(f"Authorization: Bearer {token}")
        self._head = "\r\n".join(head).encode()
        self._held = bytearray()
        self._status: int | None = None
        self._fields: dict[str, str] = {}
        self._body = bytearray()

    def encode(self, document: bytes) -> bytes:
        return self._head + b"\r\nContent-Length: %d\r\n\r\n" % len(document) + document

    def decode(self, data: bytes) -> list[bytes | Reply]:
        self._held += data
        replies: list[bytes | Reply] = []
        while self._has_head() and self._has_body():
            replies.append(self._reply(bytes(self._body)))
            self._status, self._body = None, bytearray()
        if len(self._held) + len(self._body) > MAX_REPLY_BYTES:
            raise ValueError(f"a reply of more than {MAX_REPLY_BYTES >> 20} MiB")
        return replies

    def _has_head(self) -> bool:
        if self._status is not None:
            return True
        end = self._held.find(b"\r\n\r\n")
        if end < 0:
            if len(self._held) > _MAX_HEAD_BYTES:
                raise ValueError("this is no HTTP server")
            return False
        first, *fields = self._held[:end].decode("latin-1").split("\r\n")
        version, _, status = first.partition(" ")
        if not version.startswith("HTTP/1.") or not status[:3].isdigit():
            raise ValueError("this is no HTTP server")
        del self._held[: end + 4]
        pairs = (field.partition(":") for field in fields)
        self._fields = {name.strip().lower(): value.strip() for name, _, value in pairs}
        self._status = int(status[:3])
        return True

    def _has_body(self) -> bool:
        if self._fields.get("transfer-encoding", "").lower() == "chunked":
            return self._take_chunks()
        length = int(self._fields.get("content-length", "0"))
        if len(self._held) < length:
            return False
        self._body += self._held[:length]
        del self._held[:length]
        return True

    def _take_chunks(self) -> bool:
        """Whether the last chunk is there."""
        while (end := self._held.find(b"\r\n")) >= 0:
            size = int(self._held[:end].split(b";")[0], 16)
            if len(self._held) < end + 2 + size + 2:
                return False
            self._body += self._held[end + 2 : end + 2 + size]
            del self._held[: end + 2 + size + 2]
            if size == 0:
                return True
        return False

    def _reply(self, body: bytes) -> bytes | Reply:
        if body.lstrip()[:1] == b"{" and b'"jsonrpc"' in body:
            return body
        code = _CODES_OF_STATUS.get(self._status or 0, -32000)
        text = body[:200].decode(errors="replace").strip()
        data = None
        if wait_s := self._fields.get("retry-after", ""):
            data = {"retry_after_ms": int(wait_s) * 1000} if wait_s.isdigit() else None
        return Reply(error=ErrorObject(code, f"HTTP {self._status}: {text}", data))


_CODES_OF_STATUS: Final = {401: -32010, 403: -32010, 413: -32600, 429: -32011, 503: -32012}


class Conversation:
    """The calls on one connection that wait for their replies."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._ids = itertools.count(1)
        self._waiting: set[int] = set()
        self._order: deque[int] = deque()
        self._has_heard = False
        # Why the server refused the whole connection, if it did.
        self.refusal: RpcError | None = None

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def ask(self, method: str, params: Any) -> tuple[int, bytes]:
        """The id of a call, and the bytes to send."""
        call_id = next(self._ids)
        request: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "id": call_id}
        if params is not None:
            request["params"] = params
        sent = self._codec.encode(msgspec.json.encode(request))
        self._waiting.add(call_id)
        if self._codec.in_order:
            self._order.append(call_id)
        return call_id, sent

    def hear(self, data: bytes) -> list[tuple[int, Reply]]:
        """The replies that received bytes complete, by the ids of their calls.

        Raises `ValueError` for what is no reply.
        """
        self._has_heard = True
        heard: list[tuple[int, Reply]] = []
        for received in self._codec.decode(data):
            reply = _REPLIES.decode(received) if isinstance(received, bytes) else received
            call_id = self._call_of(reply)
            if call_id is not None and call_id in self._waiting:
                self._waiting.discard(call_id)
                heard.append((call_id, reply))
            elif call_id is None and reply.error is not None:
                self.refusal = RpcError(reply.error)
        return heard

    def closed_by_server(self) -> ConnectionLostError:
        """The error of the calls that still wait when the server closes the connection."""
        message = "the server closed the connection"
        if not self._has_heard:
            message += (
                " before it sent anything: it may expect TLS (tls:// or https://), or a "
                "certificate of this client"
            )
        return ConnectionLostError(message)

    def forget(self, call_id: int) -> None:
        """Nobody waits for that call any more; its reply will be passed over."""
        self._waiting.discard(call_id)

    def _call_of(self, reply: Reply) -> int | None:
        if self._order:
            return self._order.popleft()
        return reply.id if isinstance(reply.id, int) else None


def decoded(method: str, reply: Reply, result_type: Any) -> Any:
    """The result of a reply; raises `RpcError` for an error."""
    if reply.error is not None:
        raise RpcError(reply.error)
    try:
        return msgspec.json.decode(reply.result, type=result_type)
    except msgspec.ValidationError as error:
        raise ConfigurationError(
            f"{method}: the result is not what this client expects: {error}; "
            "use the client of the server's version"
        ) from error


def cannot_connect(host: str, port: int, timeout_s: float, error: OSError) -> ConfigurationError:
    """A `ConnectionLostError` if another attempt may help."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return ConfigurationError(
            f"the certificate of {host}:{port} is not trusted: {error.verify_message}; trust the "
            "authority that signed it, or the server's own certificate"
        )
    if isinstance(error, ssl.SSLError):
        return ConfigurationError(
            f"{host}:{port} does not speak TLS as this client does: {error.reason}; check the "
            "port, and whether the server has a certificate (serving.tls_certificate)"
        )
    if isinstance(error, ConnectionRefusedError):
        return ConnectionLostError(
            f"nothing listens on {host}:{port}; "
            f"start it with: rag-rpc-server --host {host} --port {port}"
        )
    if isinstance(error, TimeoutError):
        return ConnectionLostError(f"no answer from {host}:{port} in {timeout_s:g} s")
    return ConnectionLostError(f"cannot connect to {host}:{port}: {error}")
