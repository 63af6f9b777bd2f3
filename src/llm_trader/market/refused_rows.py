"""Rows that an exchange sent and that were refused: the third reason why something is missing.

    refused:DATABASE:SYMBOL -> [[start_ms, end_ms, reason], ...]

An answer that brings a right row, or none, takes the place of what was refused before.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import msgspec

from llm_trader.market import checksums
from llm_trader.market.absent_spans import Span, without_spans
from llm_trader.market.series_records import read_meta
from llm_trader.market.stored_series import StoredSeries
from llm_trader.storage.environment import ReadTransaction, WriteTransaction
from llm_trader.timeframe import Millis

PREFIX: Final = "refused"
# Some 60 KB. An exchange that sends more bad rows than that needs no longer list.
SPANS_KEPT: Final = 1000


class RefusedSpan(NamedTuple):
    """`start_ms <= time < end_ms`; `reason` as at import, such as `high below low`."""

    start_ms: Millis
    end_ms: Millis
    reason: str


def read_refused(txn: ReadTransaction, series: StoredSeries[Any]) -> list[RefusedSpan]:
    return read_meta(txn, _key(series), list[RefusedSpan]) or []


def put_refused(
    txn: WriteTransaction, series: StoredSeries[Any], refused: Iterable[RefusedSpan]
) -> None:
    if kept := list(refused):
        checksums.put_meta(txn, _key(series), msgspec.json.encode(kept))
    else:
        checksums.delete_meta(txn, _key(series))


def after_answer(
    former: Iterable[RefusedSpan], answered: Span, refused: Iterable[RefusedSpan]
) -> list[RefusedSpan]:
    """The ledger after an answer for a span, in which these rows were refused."""
    kept = [
        RefusedSpan(*part, span.reason)
        for span in former
        for part in without_spans([Span(span.start_ms, span.end_ms)], [answered])
    ]
    joined: list[RefusedSpan] = []
    for span in sorted([*kept, *refused]):
        if joined and joined[-1].end_ms == span.start_ms and joined[-1].reason == span.reason:
            joined[-1] = RefusedSpan(joined[-1].start_ms, span.end_ms, span.reason)
        else:
            joined.append(span)
    return joined[-SPANS_KEPT:]


def _key(series: StoredSeries[Any]) -> str:
    return f"{PREFIX}:{series}"
