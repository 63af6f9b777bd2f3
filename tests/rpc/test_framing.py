from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.rpc.framing import Frame, FrameSplitter, Oversize

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='a"\\{}[]\n\té', max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(alphabet='k"\\{[]}', max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)
STRUCTURED = st.lists(JSON, max_size=4) | st.dictionaries(st.text(max_size=4), JSON, max_size=4)
PIECES = [b"{", b"}", b"[", b"]", b'"', b"\\", b"\n", b"\r\n", b" ", b"a", b'"x":', b"\xff"]


def split(*chunks: bytes, max_bytes: int = 1 << 20) -> list[Frame]:
    splitter = FrameSplitter(max_bytes)
    frames = [frame for chunk in chunks for frame in splitter.feed(chunk)]
    return frames + splitter.finish()


def cut(data: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(bounds)]


@given(st.lists(st.sampled_from(PIECES), max_size=60), st.lists(st.integers(0, 999), max_size=8))
def test_frames_do_not_depend_on_how_any_stream_is_cut(
    pieces: list[bytes], places: list[int]
) -> None:
    data = b"".join(pieces)
    whole = split(data, max_bytes=40)
    assert split(*cut(data, places), max_bytes=40) == whole
    assert split(*(data[i : i + 1] for i in range(len(data))), max_bytes=40) == whole


@given(st.lists(st.tuples(STRUCTURED, st.sampled_from([None, 1, 4])), max_size=5))
def test_documents_come_out_whole_whether_on_one_line_or_pretty_printed(
    documents: list[tuple[Any, int | None]],
) -> None:
    data = b"".join(json.dumps(d, indent=n).encode() + b"\n" for d, n in documents)
    frames = [frame for frame in split(data) if isinstance(frame, bytes)]
    assert [json.loads(frame) for frame in frames] == [d for d, _ in documents]


@given(st.lists(st.sampled_from(PIECES), max_size=60))
def test_nothing_but_blanks_between_documents_is_lost(pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    frames = [frame for frame in split(data) if isinstance(frame, bytes)]
    assert b"".join(b"".join(frames).split()) == b"".join(data.split())


@pytest.mark.parametrize(
    "document",
    [
        b'{"a": "}"}',
        b'{"a": "\\"}{[["}',
        b'{"a": "\\\\"}',
        b'["[", "{\\\\\\"["]',
        b'{\n  "a": "[{",\n  "b": [\n    1\n  ]\n}',
        b'{"a":\r\n[1,\r\n2]}',
        b"17",
    ],
)
def test_brackets_in_strings_do_not_count(document: bytes) -> None:
    splitter = FrameSplitter()
    assert splitter.feed(document + b"\n") == [document]
    assert not splitter.in_frame


@pytest.mark.parametrize(
    "garbage",
    [
        b"{invalid json}",
        b"hello",
        b"}",
        b"]]]",
        b'{"a": "no end}',
        b'[{"a": 1}, {"b"]',
        b"\xff\xfe",
        b'{"a": "ends in \\',
    ],
)
def test_a_garbage_line_is_one_frame_at_once_and_the_next_line_is_read(garbage: bytes) -> None:
    splitter = FrameSplitter()
    assert splitter.feed(garbage + b"\n") == [garbage]
    assert splitter.feed(b'{"a":1}\n') == [b'{"a":1}']


def test_a_damaged_pretty_printed_document_is_one_frame() -> None:
    damaged = b'{\n  "a": "no end,\n  "b": 2\n}'
    assert FrameSplitter().feed(damaged + b'\n{"a":1}\n') == [damaged, b'{"a":1}']


def test_blank_lines_are_ignored_also_with_carriage_returns() -> None:
    assert FrameSplitter().feed(b'\n\r\n  \n{"a":1}\r\n\r\n') == [b'{"a":1}\r']


def test_several_documents_may_come_in_one_packet() -> None:
    assert FrameSplitter().feed(b"[1]\n[2]\n[3") == [b"[1]", b"[2]"]


def test_the_last_document_needs_no_line_end() -> None:
    assert split(b'[1]\n{"a":\n2}') == [b"[1]", b'{"a":\n2}']


def test_an_unfinished_document_is_handed_on_at_the_end_of_input() -> None:
    splitter = FrameSplitter()
    assert splitter.feed(b'{"a": [\n') == []
    assert splitter.in_frame
    assert splitter.finish() == [b'{"a": [\n']


def test_a_document_of_the_limit_passes_and_one_byte_more_does_not() -> None:
    assert split(b"1" * 10 + b"\n", max_bytes=10) == [b"1" * 10]
    assert split(b"1" * 11 + b"\n", max_bytes=10) == [Oversize(10)]
    assert split(b"[\n1,\n2,\n3\n]\n", max_bytes=10) == [Oversize(10)]


def test_oversize_is_told_before_the_line_ends_and_nothing_is_read_after_it() -> None:
    splitter = FrameSplitter(10)
    assert splitter.feed(b"[1]\n" + b"1" * 11) == [b"[1]", Oversize(10)]
    assert splitter.feed(b"\n[2]\n") == []
    assert splitter.finish() == []


@pytest.mark.parametrize("document", [b'{"a": 1}', b"[1, 2]", b"nonsense", b'{"a": "}"} '])
def test_a_document_that_lacks_only_its_line_end_can_be_taken(document: bytes) -> None:
    splitter = FrameSplitter()
    assert splitter.feed(b"[1]\n" + document) == [b"[1]"]
    assert splitter.take_unended() == [document]
    assert not splitter.in_frame
    assert splitter.take_unended() == []


@pytest.mark.parametrize("begun", [b'{"a": ', b'{"a": "}', b"[\n1", b'"open', b"", b"{\n"])
def test_a_document_that_goes_on_is_not_taken(begun: bytes) -> None:
    splitter = FrameSplitter()
    assert splitter.feed(begun) == []
    assert splitter.take_unended() == []
    assert splitter.in_frame == bool(begun)


def test_a_last_line_without_end_completes_a_document_of_many_lines() -> None:
    splitter = FrameSplitter()
    assert splitter.feed(b'{\n"a": 1\n}') == []
    assert splitter.take_unended() == [b'{\n"a": 1\n}']
