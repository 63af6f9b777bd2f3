"""Puts the rows of a file in the form of a series.

Rows that say nothing are left out and counted, and an order that is safe to put right is; all else
is refused with its place in the file.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from llm_trader.errors import InvalidDataError
from llm_trader.market.file_columns import Kind
from llm_trader.market.file_rows import FileRows, time_text
from llm_trader.timeframe import Millis, Timeframe, iso8601

# Some 3 MB of four prices.
_ROWS_AT_ONCE: Final = 100_000
_PRICES: Final = ("open", "high", "low", "close")


def refuse_future(rows: FileRows, now_ms: Millis) -> None:
    rows.refuse(
        {f"time later than now, {iso8601(now_ms)}": rows.times > now_ms},
        "which column is the time (--map timestamp_ms=COLUMN), and is the clock of this machine "
        "right?",
    )


def leave_out_unclosed(rows: FileRows, timeframe: Timeframe, now_ms: Millis) -> None:
    """A candle in progress still changes, so it must not become final."""
    if rows.confirmed is not None:
        rows.leave_out(~rows.confirmed, "candle not confirmed, so still in progress")
    rows.leave_out(rows.times + timeframe.ms > now_ms, "candle that had not closed yet")


def leave_out_unknown(rows: FileRows, kind: Kind, *, zeros_say_nothing: bool = False) -> None:
    """Rows that have a time and say nothing; a candle must lack all its prices.

    Open interest of 0 beside positive values says nothing; with `zeros_say_nothing` any 0 does.
    """
    if kind == "candles":
        unknown = np.zeros(len(rows.times), np.bool_)
        for first in range(0, len(unknown), _ROWS_AT_ONCE):
            part = slice(first, first + _ROWS_AT_ONCE)
            missing = [np.isnan(rows.values(name, part)) for name in _PRICES]
            unknown[part] = np.logical_and.reduce(missing)
        rows.leave_out(unknown, "candle without prices")
        return
    value = rows.columns["rate" if kind == "funding" else "open_interest"]
    rows.leave_out(np.isnan(value), "value missing")
    if kind == "open_interest":
        _leave_out_zeros(rows, zeros_say_nothing=zeros_say_nothing)


def _leave_out_zeros(rows: FileRows, *, zeros_say_nothing: bool) -> None:
    # Exchanges publish 0 where they have no value. Files end at any time, also in the midst of an
    # outage, so a first and a last 0 mean the same.
    interest = rows.columns["open_interest"]
    if (interest > 0).any():
        rows.leave_out(interest == 0, "open interest of 0 beside positive values, so unknown")
    elif zeros_say_nothing:
        rows.leave_out(interest == 0, "open interest of 0, so unknown")
    value = rows.columns.get("open_interest_value")
    if value is not None:
        value[(value == 0) & (rows.columns["open_interest"] > 0)] = np.nan


def sort_rows(rows: FileRows) -> None:
    """Drops identical rows and turns newest-first files round; refuses any other disorder."""
    if (np.diff(rows.times) > 0).all():
        return
    _drop_duplicates(rows)
    step = np.diff(rows.times, prepend=rows.times[:1] - 1)
    if len(step) > 1 and (step[1:] < 0).all():
        rows.notes.append("rows were newest first, and were put in the order of time")
        rows.take(np.arange(len(rows.times))[::-1])
        return
    falls = step < 0
    if falls.sum() > len(step) // 2:  # newest first but for some
        falls = np.append(False, step[1:] > 0)
    rows.refuse({"not in time order": falls}, "sort the file by time and import again")


def _drop_duplicates(rows: FileRows) -> None:
    """Of rows of one time the first stays; raises `InvalidDataError` where they differ."""
    order = np.argsort(rows.times, kind="stable")
    later = order[1:][np.diff(rows.times[order]) == 0]
    if not len(later):
        return
    earlier = order[:-1][np.diff(rows.times[order]) == 0]
    differ = np.zeros(len(later), np.bool_)
    for name in rows.names:
        former, latter = rows.values(name, earlier), rows.values(name, later)
        differ |= ~((former == latter) | (np.isnan(former) & np.isnan(latter)))
    if differ.any():
        first = int(differ.argmax())
        a, b = int(earlier[first]), int(later[first])
        pairs = {name: rows.values(name, np.array([a, b])).tolist() for name in rows.names}
        values_differ = ", ".join(
            f"{name} {one:.15g} and {other:.15g}"
            for name, (one, other) in pairs.items()
            if one != other
        )
        place = (
            f"{rows.table.place(int(rows.row[a]))} and {rows.table.place(int(rows.row[b]))}, "
            f"{time_text(rows.times[a])}: {values_differ}"
        )
        reason = "duplicate time with other values"
        raise InvalidDataError(
            rows.name,
            {reason: int(differ.sum())},
            places={reason: place},
            remedy="remove the wrong one and import again",
        )
    repeated = np.zeros(len(rows.times), np.bool_)
    repeated[later] = True
    rows.leave_out(repeated, "duplicate row")
