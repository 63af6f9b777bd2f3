"""HTTP requests that are almost right: heads, lengths, chunks, and smuggling attempts."""

from __future__ import annotations

import random
from collections.abc import Callable

Lines = list[bytes]

_PATHS = [
    *(b"/rpc", b"/rpc/", b"//rpc", b"/RPC", b"/rpc?x=1#y", b"/%72pc", b"/rpc%00", b"/..%2f/rpc"),
    *(b"*", b"", b"rpc", b"http://localhost/rpc", b"http://[::1/rpc", b"http://", b"/\xff\xfe"),
    *(b"/livez", b"/readyz", b"/openrpc.json", b"/ws", b"/" + b"x" * 9000, b"/%", b"/%ff%zz"),
    *(b"localhost:1", b"/ rpc", b"/rpc\t", b"/\x00", "/é".encode(), b"/openrpc.json/../rpc"),
]
_METHODS = [
    *(b"GET", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"CONNECT", b"PATCH", b"post", b"PO ST"),
    *(b"PRI", b"M-SEARCH", b"", b"\xff", b"X" * 300, b"LOCK", b"SOURCE"),
]
_VERSIONS = [
    *(b"HTTP/0.9", b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/9.9", b"HTTP/1.1 ", b"http/1.1"),
    *(b"HTTP/1", b"", b"HTTP/1.1\x00", b"HTTP/11", b"HTP/1.1"),
]
_HEADERS: list[bytes] = [
    b"Host: evil.example",
    b"Host: localhost:99999",
    b"Host: [::1",
    b"Host:",
    b"Host: localhost",
    b"Host: a@localhost",
    b"Host: \xff",
    b"Origin: http://evil.example",
    b"Origin: null",
    b"Origin: http://[",
    b"Origin: \xff\xfe",
    b"Authorization: Bearer \xff\xfe",
    b"Authorization: Bearer",
    b"Authorization: Basic eA==",
    b"Content-Type: text/plain",
    b"Content-Type: application/json; charset=utf-7",
    b"Content-Type: \xff",
    b"Content-Encoding: gzip",
    b"Expect: 100-continue",
    b"Expect: 200-ok",
    b"Connection: keep-alive, Upgrade",
    b"Connection: \x00",
    b"Upgrade: h2c",
    b"Upgrade: websocket\r\nConnection: Upgrade",
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13",
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: x",
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 99\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Extensions: \xff",
    b"X" * 5000 + b": y",
    b"X: " + b"y" * 40_000,
    b"X : spaced",
    b" folded",
    b"\tfolded: x",
    b"No colon",
    b": no name",
    b"X\x00Y: z",
    b"X: a\x00b",
    b"X: a\rb",
    b"X: a\nY: b",
    b"X: \xf0\x9f\x92\xa3",
    b"Cookie: " + b"a=b; " * 500,
    b"\r\n".join(b"X-%d: y" % n for n in range(300)),
    b"Forwarded: for=evil",
    b"X-Forwarded-For: \r",
    b"Range: bytes=0-" + b"9" * 300,
    b"Accept-Encoding: identity;q=\xff",
]


def request(rng: random.Random, document: bytes) -> bytes:
    """One request around a document, wrong in one to three places; sometimes in none."""
    method, path, version = b"POST", b"/rpc", b"HTTP/1.1"
    kind = rng.randrange(12)
    if kind == 0:
        method = rng.choice(_METHODS)
    elif kind == 1:
        path = rng.choice(_PATHS)
        method = rng.choice((b"GET", b"POST", b"OPTIONS", b"CONNECT"))
    elif kind == 2:
        version = rng.choice(_VERSIONS)
    lines: Lines = [b"Host: localhost", b"Content-Type: application/json"]
    for _ in range(rng.choice((0, 1, 1, 2)) if kind in (3, 4, 5, 6) else 0):
        lines.insert(rng.randrange(len(lines) + 1), rng.choice(_HEADERS))
    framing, body = (rng.choice(_FRAMINGS) if kind >= 6 else _with_length)(rng, document)
    lines += framing
    if rng.random() < 0.05:
        lines.pop(rng.randrange(len(lines)))
    end = rng.choice((b"\n", b"\r")) if rng.random() < 0.03 else b"\r\n"
    data = method + b" " + path + b" " + version + end
    data += b"".join(line + end for line in lines) + end + body
    if kind == 11 and rng.random() < 0.3:
        place = rng.randrange(len(data))
        data = data[:place] + rng.randbytes(rng.randrange(1, 4)) + data[place + 1 :]
    return data


Framing = Callable[[random.Random, bytes], tuple[Lines, bytes]]


def _with_length(rng: random.Random, body: bytes) -> tuple[Lines, bytes]:
    return [b"Content-Length: %d" % len(body)], body


def _wrong_length(rng: random.Random, body: bytes) -> tuple[Lines, bytes]:
    size = len(body)
    wrong = [
        *(b"%d" % (size - 1), b"%d" % (size // 2), b"0", b"-1", b"+%d" % size, b"%x" % size),
        *(b"%d, %d" % (size, size), b"%d " % size, b"0%d" % size, b"1e3", b"", b"9" * 30),
        *(b"%d" % (1 << 20), b"%d" % ((1 << 20) + 1), b"%d" % (1 << 64), b"%d\x00" % size),
    ]
    return [b"Content-Length: " + rng.choice(wrong)], body


def _two_lengths(rng: random.Random, body: bytes) -> tuple[Lines, bytes]:
    other = rng.choice((len(body), len(body) - 1, 0))
    lines = [b"Content-Length: %d" % len(body), b"Content-Length: %d" % other]
    rng.shuffle(lines)
    return lines, body


def _chunks(rng: random.Random, body: bytes) -> bytes:
    data = b""
    while body:
        size = rng.choice((1, 7, 100, 5000))
        part, body = body[:size], body[size:]
        data += (
            b"%x%b\r\n" % (len(part), rng.choice((b"", b"", b";a=b", b';q="x"'))) + part + b"\r\n"
        )
    return data + b"0\r\n" + rng.choice((b"", b"", b"X-Trailer: y\r\n")) + b"\r\n"


def _chunked(rng: random.Random, body: bytes) -> tuple[Lines, bytes]:
    return [b"Transfer-Encoding: chunked"], _chunks(rng, body)


def _bad_chunks(rng: random.Random, body: bytes) -> tuple[Lines, bytes]:
    sizes = [b"g", b"-1", b"f" * 17, b"0x5", b"", b" 5", b"5 ;", b"5;" + b"x" * 20_000, b"\xff"]
    data = rng.choice(sizes) + rng.choice((b"\r\n", b"\n")) + body + b"\r\n0\r\n\r\n"
    return [b"Transfer-Encoding: chunked"], data


def _smuggled(rng: random.Random, body: bytes) -> tuple[Lines, bytes]:
    """Two ways of telling the length, which two parsers could take differently."""
    encodings = [
        *(b"Transfer-Encoding: chunked", b"Transfer-Encoding : chunked", b"Transfer-Encoding: x"),
        *(b"Transfer-Encoding:\tchunked", b"Transfer-Encoding: chunked, identity", b"TE: chunked"),
        *(b"Transfer-Encoding: xchunked", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x"),
        *(b"X: y\nTransfer-Encoding: chunked", b"Transfer-Encoding: identity, chunked"),
    ]
    hidden = b"POST /rpc HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\n{}\n"
    data = rng.choice((_chunks(rng, body), b"0\r\n\r\n" + hidden, body + hidden))
    lines = [rng.choice(encodings), b"Content-Length: %d" % rng.choice((len(data), 4, len(body)))]
    rng.shuffle(lines)
    return lines, data


_FRAMINGS: list[Framing] = [
    _with_length,
    _wrong_length,
    _two_lengths,
    _chunked,
    _bad_chunks,
    _smuggled,
]
