"""Spans of a series that its exchange has answered with nothing: an outage, or before the listing.

    absent:DATABASE:SYMBOL -> [[start_ms, end_ms], ...]

They are why a hole is there, and keep it from being asked for at every run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from llm_trader.arrays import Times
from llm_trader.market import checksums
from llm_trader.market.series_records import read_meta
from llm_trader.market.stored_series import StoredSeries
from llm_trader.storage.environment import ReadTransaction, WriteTransaction
from llm_trader.timeframe import Millis

PREFIX: Final = "absent"


class Span(NamedTuple):
    """`start_ms <= time < end_ms`."""

    start_ms: Millis
    end_ms: Millis


def read_absent(txn: ReadTransaction, series: StoredSeries[Any]) -> list[Span]:
    return read_meta(txn, _key(series), list[Span]) or []


def put_absent(txn: WriteTransaction, series: StoredSeries[Any], spans: Sequence[Span]) -> None:
    if spans:
        checksums.put_meta(txn, _key(series), msgspec.json.encode(spans))
    else:
        checksums.delete_meta(txn, _key(series))


def join_spans(spans: Iterable[Span], max_distance_ms: Millis = 0) -> list[Span]:
    """The spans in order of time; those that overlap, touch or lie that near become one."""
    joined: list[Span] = []
    for span in sorted(spans):
        if joined and span.start_ms - joined[-1].end_ms <= max_distance_ms:
            joined[-1] = Span(joined[-1].start_ms, max(joined[-1].end_ms, span.end_ms))
        else:
            joined.append(span)
    return joined


def without_spans(spans: Iterable[Span], removed: Iterable[Span]) -> list[Span]:
    """What is left of some spans without others, in order of time."""
    rest: list[Span] = []
    gone, passed = join_spans(removed), 0
    for span in join_spans(spans):
        start_ms = span.start_ms
        while passed < len(gone) and gone[passed].end_ms <= start_ms:
            passed += 1
        for position in range(passed, len(gone)):
            hole = gone[position]
            if hole.start_ms >= span.end_ms:
                break
            if start_ms < hole.start_ms:
                rest.append(Span(start_ms, hole.start_ms))
            start_ms = max(start_ms, hole.end_ms)
        if start_ms < span.end_ms:
            rest.append(Span(start_ms, span.end_ms))
    return rest


def spans_without_rows(
    times: Times, speaks_for_ms: Times, step_ms: Millis, asked: Span
) -> list[Span]:
    """The parts of a span that rows in order of time do not account for.

    A row speaks for `speaks_for_ms` (n,) from its time on. Where the next row is later, what lies
    from `step_ms` after the one to the other is missing.
    """
    starts = times + step_ms
    ends = np.append(times[1:], np.int64(asked.end_ms)) if len(times) else times
    holes = ends - times > speaks_for_ms
    spans = [
        Span(max(start_ms, asked.start_ms), min(end_ms, asked.end_ms))
        for start_ms, end_ms in zip(starts[holes].tolist(), ends[holes].tolist(), strict=True)
    ]
    first_ms = int(times[0]) if len(times) else asked.end_ms
    spans.insert(0, Span(asked.start_ms, min(first_ms, asked.end_ms)))
    return [span for span in spans if span.start_ms < span.end_ms]


def _key(series: StoredSeries[Any]) -> str:
    return f"{PREFIX}:{series}"
