"""WebSocket frames, right and wrong, as RFC 6455 has them."""

from __future__ import annotations

import random
from collections.abc import Callable

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def frame(
    rng: random.Random,
    payload: bytes,
    opcode: int = TEXT,
    *,
    fin: bool = True,
    reserved: int = 0,
    masked: bool = True,
    length: int | None = None,
) -> bytes:
    """`length` is what the frame says; by default the truth."""
    size = len(payload) if length is None else length
    mark = 0x80 if masked else 0
    head = bytes([fin << 7 | reserved << 4 | opcode])
    if size < 126:
        head += bytes([mark | size])
    elif size < 1 << 16:
        head += bytes([mark | 126]) + size.to_bytes(2, "big")
    else:
        head += bytes([mark | 127]) + size.to_bytes(8, "big")
    if not masked:
        return head + payload
    mask = rng.randbytes(4)
    wide = int.from_bytes((mask * (len(payload) // 4 + 1))[: len(payload)], "big")
    return head + mask + (int.from_bytes(payload, "big") ^ wide).to_bytes(len(payload), "big")


def in_parts(rng: random.Random, document: bytes) -> bytes:
    """One message in several frames, with pings in between."""
    cuts = sorted(rng.randrange(len(document) + 1) for _ in range(rng.choice((1, 2, 20))))
    parts = [document[a:b] for a, b in zip([0, *cuts], [*cuts, len(document)], strict=True)]
    data = b""
    for number, part in enumerate(parts):
        data += frame(rng, part, 0 if number else TEXT, fin=number == len(parts) - 1)
        if rng.random() < 0.3 and number < len(parts) - 1:
            data += frame(rng, rng.randbytes(rng.randrange(126)), rng.choice((PING, PONG)))
    return data


def valid(rng: random.Random, document: bytes) -> bytes:
    """Frames that the protocol allows, whatever stands in the document."""
    kind = rng.random()
    if kind < 0.7:
        return frame(rng, document)
    if kind < 0.9:
        return in_parts(rng, document)
    return frame(rng, rng.randbytes(rng.randrange(126)), rng.choice((PING, PONG)))


_WRONG: list[Callable[[random.Random, bytes], bytes]] = [
    lambda rng, d: frame(rng, d, rng.choice((3, 4, 5, 6, 7, 11, 12, 13, 14, 15))),
    lambda rng, d: frame(rng, d, masked=False),
    lambda rng, d: frame(rng, d, reserved=rng.randrange(1, 8)),
    lambda rng, d: frame(rng, b"x" * 126, rng.choice((PING, PONG, CLOSE))),
    lambda rng, d: frame(rng, b"x" * 70_000, PING),
    lambda rng, d: frame(rng, b"x", rng.choice((PING, CLOSE)), fin=False),
    lambda rng, d: frame(rng, d, 0),
    lambda rng, d: frame(rng, d, fin=False) + frame(rng, d),
    lambda rng, d: frame(rng, d, length=1 << 62),
    lambda rng, d: frame(rng, d, length=(1 << 64) - 1),
    lambda rng, d: frame(rng, d, length=(1 << 20) + 1),
    lambda rng, d: b"\x81\xfe\x00\x05" + rng.randbytes(9),  # a length that is longer than needed
    lambda rng, d: frame(rng, b"\xff" + d),
    lambda rng, d: frame(rng, d, BINARY),
    lambda rng, d: frame(rng, b"", CLOSE),
    lambda rng, d: frame(rng, b"\x03", CLOSE),
    lambda rng, d: frame(rng, rng.randrange(1 << 16).to_bytes(2, "big") + b"\xff\xfe", CLOSE),
    lambda rng, d: frame(rng, (1000).to_bytes(2, "big"), CLOSE) + frame(rng, d),
    lambda rng, d: frame(rng, b"", fin=False) + frame(rng, b"", 0, fin=False) * 500,
    lambda rng, d: rng.randbytes(rng.randrange(2, 200)),
    lambda rng, d: frame(rng, d)[: rng.randrange(1, 8)],
]


def wrong(rng: random.Random, document: bytes) -> bytes:
    """Frames after which the server may close the connection."""
    return rng.choice(_WRONG)(rng, document)
