"""The jumps of a symbol's stored candles, and in `meta` those that the user has accepted.

accepted_jumps:SYMBOL  -> the spans of their candles, in order of time
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from llm_trader.errors import InvalidInputError
from llm_trader.market import checksums, record_ranges
from llm_trader.market.candles import CandleSeries
from llm_trader.market.jumps import CandleSpan, Jump, find_jumps, jumps_of_parts
from llm_trader.market.series_changes import record_spans
from llm_trader.market.series_records import read_meta
from llm_trader.market.stored_series import candles_of
from llm_trader.market.symbol_versions import stamp_symbol
from llm_trader.storage.environment import ReadTransaction, WriteTransaction
from llm_trader.timeframe import Millis, Timeframe, iso8601

_LISTED_IN_A_REFUSAL: Final = 5


def accepted_jumps(txn: ReadTransaction, symbol: str) -> tuple[CandleSpan, ...]:
    return tuple(read_meta(txn, _key(symbol), list[CandleSpan]) or ())


def stored_jumps(txn: ReadTransaction, symbol: str) -> list[Jump]:
    """The jumps of all candles of a symbol, in order of time, finest candles first."""
    accepted = accepted_jumps(txn, symbol)
    jumps: list[Jump] = []
    for series in record_ranges.all_series(txn):
        if series.symbol == symbol and series.timeframe is not None:
            jumps += jumps_of_parts(symbol, record_ranges.parts(txn, series), accepted)
    return sorted(jumps, key=lambda jump: (jump.time_ms, jump.span))


def jumps_of_part(txn: ReadTransaction, symbol: str, part: CandleSeries) -> list[Jump]:
    """The unaccepted jumps of some stored candles, and of those beside them."""
    series, accepted = candles_of(symbol, part.timeframe), accepted_jumps(txn, symbol)
    first_ms, last_ms = part.open_time_ms[[0, -1]].tolist()
    previous = record_ranges.last_key(txn, series, first_ms)
    following = record_ranges.first_key(txn, series, last_ms + 1)
    start_ms = first_ms if previous is None else series.time(previous)
    end_ms = last_ms if following is None else series.time(following)
    left, right = (
        series.read(record_ranges.items(txn, series, *span_ms))
        for span_ms in ((start_ms, first_ms + 1), (last_ms, end_ms + 1))
    )
    # What is found of a candle together with the one before it stands.
    found = {
        jump.time_ms: jump
        for candles in (right, part, left)
        for jump in find_jumps(symbol, candles, accepted)
    }
    return [found[t] for t in sorted(found) if t >= first_ms and not found[t].accepted]


def accept_jump(txn: WriteTransaction, symbol: str, time_ms: Millis) -> list[Jump]:
    """Accept the jump whose candle holds a time; all that are accepted with it.

    Of candles of several timeframes it is that of the finest. Raises `InvalidInputError`, which
    lists the jumps there are, where there is none.
    """
    jumps = stored_jumps(txn, symbol)
    spans = [jump.span for jump in jumps]
    holding = [span for span in spans if span.start_ms <= time_ms < span.end_ms]
    if not holding:
        raise InvalidInputError(_no_jump(symbol, time_ms, jumps))
    accepted = min(holding, key=lambda span: span.length_ms)
    former = accepted_jumps(txn, symbol)
    if accepted not in former:
        _put(txn, symbol, {*former, accepted}, [accepted])
    return _jumps_in(txn, symbol, [accepted])


def accept_spans(txn: WriteTransaction, symbol: str, spans: Sequence[CandleSpan]) -> None:
    """Accept the jumps of these candles, which need not be there yet."""
    former = accepted_jumps(txn, symbol)
    if further := [span for span in spans if span not in former]:
        _put(txn, symbol, {*former, *further}, further)


def withdraw_jump(txn: WriteTransaction, symbol: str, time_ms: Millis) -> list[Jump]:
    """Take an acceptance back; all jumps that were accepted with it.

    Raises `InvalidInputError` where nothing is accepted at that time.
    """
    former = accepted_jumps(txn, symbol)
    withdrawn = [span for span in former if span.start_ms <= time_ms < span.end_ms]
    if not withdrawn:
        listed = ", ".join(iso8601(span.start_ms) for span in former) or "nothing"
        raise InvalidInputError(
            f"no jump of {symbol} is accepted at {iso8601(time_ms)}; accepted is {listed}"
        )
    _put(txn, symbol, set(former).difference(withdrawn), withdrawn)
    return _jumps_in(txn, symbol, withdrawn)


def forget_before(txn: WriteTransaction, symbol: str, cut_ms: Millis) -> None:
    """Drop the acceptance of jumps whose candles are removed."""
    former = accepted_jumps(txn, symbol)
    kept = [span for span in former if span.end_ms > cut_ms]
    if len(kept) < len(former):
        checksums.put_meta(txn, _key(symbol), msgspec.json.encode(kept))


def _put(
    txn: WriteTransaction, symbol: str, accepted: set[CandleSpan], changed: list[CandleSpan]
) -> None:
    checksums.put_meta(txn, _key(symbol), msgspec.json.encode(sorted(accepted)))
    stamp_symbol(txn, symbol)
    # States that read across it can be made now, or no longer, or become others.
    for jump in _jumps_in(txn, symbol, changed):
        series = candles_of(symbol, Timeframe.parse(jump.timeframe))
        record_spans(txn, series, [(jump.time_ms, jump.time_ms)])


def _jumps_in(txn: ReadTransaction, symbol: str, spans: list[CandleSpan]) -> list[Jump]:
    jumps = stored_jumps(txn, symbol)
    return [jump for jump in jumps if any(jump.span.overlaps(span) for span in spans)]


def _no_jump(symbol: str, time_ms: Millis, jumps: list[Jump]) -> str:
    if not jumps:
        return f"the candles of {symbol} have no jump, neither at {iso8601(time_ms)} nor elsewhere"
    times = list(dict.fromkeys(jump.time for jump in jumps))
    listed = ", ".join(times[:_LISTED_IN_A_REFUSAL])
    more = len(times) - _LISTED_IN_A_REFUSAL
    ending = f" and {more} more; see them all with --list" if more > 0 else ""
    return f"{symbol} has no jump at {iso8601(time_ms)}; it has jumps at {listed}{ending}"


def _key(symbol: str) -> str:
    return f"accepted_jumps:{symbol}"
