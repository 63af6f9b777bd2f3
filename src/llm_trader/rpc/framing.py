"""Finds documents in a byte stream, without I/O: one JSON document per line, or over many lines.

1. Bytes are cut into lines; every byte is searched for a line end once.
2. The brackets of a line outside strings change the depth; a document ends with the line that
   brings the depth back to zero or below. Nothing is decoded here.
3. JSON strings cannot contain a line end. A document whose first line leaves a string open, or
   crosses brackets, is garbage and passed on at once. On later lines the line end closes a string,
   so that a damaged pretty-printed document gives one error instead of one per line.

A document with an unclosed bracket is never complete; the server's frame timeout ends it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import numpy as np

_ESCAPE: Final = re.compile(rb"\\.?", re.DOTALL)
_NEITHER_BRACKET_NOR_QUOTE: Final = bytes(b for b in range(256) if b not in b'{}[]"')

# 1 for a bracket that opens, -1 for one that closes.
_STEPS: Final = bytes.maketrans(b"{[}]", b"\x01\x01\xff\xff")


@dataclass(frozen=True, slots=True)
class Oversize:
    """A document exceeded the limit. The splitter stops, as it cannot find the next document."""

    limit_bytes: int


Frame = bytes | Oversize


class FrameSplitter:
    """Splits a stream into documents, which do not depend on how the stream was cut."""

    def __init__(self, max_bytes: int = 1 << 20) -> None:
        self._max_bytes = max_bytes
        self._tail = bytearray()
        self._lines: list[bytes] = []
        self._size = 0
        self._depth = 0
        self._done = False

    @property
    def in_frame(self) -> bool:
        """Whether a document has begun and not ended."""
        return bool(self._lines or self._tail)

    @property
    def held_bytes(self) -> int:
        """The size of the document that has begun."""
        return self._size + len(self._tail)

    def feed(self, data: bytes) -> list[Frame]:
        """The documents that `data` completes, in order."""
        if self._done:
            return []
        *lines, tail = data.split(b"\n")
        frames: list[Frame] = []
        if lines and self._tail:
            lines[0] = bytes(self._tail + lines[0])
            self._tail.clear()
        for line in lines:
            frame = self._take(line)
            if frame is not None:
                frames.append(frame)
            if self._done:
                return frames
        if tail:
            self._tail += tail
            if self._size + len(self._tail) > self._max_bytes:
                frames.append(self._overflow())
        return frames

    def finish(self) -> list[Frame]:
        """The last document at the end of the input, complete or not; at most one."""
        if self._done:
            return []
        frame = self._take(bytes(self._tail))
        self._tail.clear()
        if frame is None and self._lines:
            frame = self._complete()
        return [] if frame is None else [frame]

    def take_unended(self) -> list[Frame]:
        """The document at the end of the input so far, if only its line end is missing."""
        brackets, open_string = _brackets(bytes(self._tail))
        opened = sum(map(brackets.count, (b"{", b"[")))
        closed = sum(map(brackets.count, (b"}", b"]")))
        if not self._tail or open_string or self._depth + opened > closed:
            return []
        return self.finish()

    def _take(self, line: bytes) -> Frame | None:
        if not self._lines and (not line or line.isspace()):
            return None if len(line) <= self._max_bytes else self._overflow()
        if self._size + len(line) > self._max_bytes:
            return self._overflow()
        brackets, open_string = _brackets(line)
        opened = brackets.count(b"{") + brackets.count(b"[")
        self._depth += opened - brackets.count(b"}") - brackets.count(b"]")
        self._size += len(line) + 1
        first = not self._lines
        self._lines.append(line)
        if self._depth <= 0 or (first and (open_string or _crossed(brackets))):
            return self._complete()
        return None

    def _complete(self) -> bytes:
        document = b"\n".join(self._lines)
        self._lines.clear()
        self._size = self._depth = 0
        return document

    def _overflow(self) -> Oversize:
        self._done = True
        self._tail.clear()
        self._lines.clear()
        return Oversize(self._max_bytes)


def _brackets(line: bytes) -> tuple[bytes, bool]:
    """The brackets outside strings, in order, and whether the line ends inside a string."""
    if b"\\" in line:
        line = _ESCAPE.sub(b"", line)
    marks = line.translate(None, _NEITHER_BRACKET_NOR_QUOTE).replace(b'""', b"")
    if b'"' not in marks:
        return marks, False
    parts = marks.split(b'"')
    return b"".join(parts[::2]), len(parts) % 2 == 0


def _crossed(brackets: bytes) -> bool:
    """Whether one kind of bracket is closed by the other, or nothing is there to close."""
    still_open = bytearray()
    for bracket in brackets:
        if bracket in b"{[":
            still_open.append(bracket)
        elif not still_open or still_open.pop() != bracket - 2:
            return True
    return False


def nested_deeper(document: bytes, most: int) -> bool:
    """Whether a document has more than so many brackets within each other, without decoding it."""
    brackets, _ = _brackets(document)
    if len(brackets) <= 2 * most:  # too few for that, in whatever order
        return False
    steps = np.frombuffer(brackets.translate(_STEPS), np.int8)
    return int(np.cumsum(steps, dtype=np.int32).max()) > most
