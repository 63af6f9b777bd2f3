"""Reads the replies of exchanges; what has not the promised form raises `MalformedReplyError`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from llm_trader.arrays import Floats, Times
from llm_trader.timeframe import Millis


class MalformedReplyError(Exception):
    """A reply that is not what the exchange documents; asking again may bring a whole one."""


class Page(NamedTuple):
    """Rows in the order of their arrival; the exchange has answered for all up to `end_ms`."""

    times: Times
    columns: dict[str, Floats]
    end_ms: Millis


def a_list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise MalformedReplyError(f"{name} is not a list but {type(value).__name__}")
    return value


def a_dict(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MalformedReplyError(f"{name} is not an object but {type(value).__name__}")
    return value


def a_time(value: Any, name: str) -> Millis:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise MalformedReplyError(f"{name} is no time: {value!r}") from None


def read_page(
    rows: Sequence[Any], time_key: Any, value_keys: Mapping[str, Any], end_ms: Millis
) -> Page:
    """A page of rows that are lists or objects; keys are positions or names in a row."""
    try:
        times = np.array([int(row[time_key]) for row in rows], dtype=np.int64)
        columns = {
            name: np.array([_number(row[key]) for row in rows], dtype=np.float64)
            for name, key in value_keys.items()
        }
    except (LookupError, TypeError, ValueError, OverflowError) as error:
        reason = f"{type(error).__name__} {error}"
        raise MalformedReplyError(f"a row has not the expected fields: {reason}") from None
    return Page(times, columns, end_ms)


def joined(pages: Sequence[Page], end_ms: Millis) -> Page:
    """The rows of some pages as one page; there is at least one."""
    names = pages[0].columns
    return Page(
        np.concatenate([page.times for page in pages]),
        {name: np.concatenate([page.columns[name] for page in pages]) for name in names},
        end_ms,
    )


def _number(value: Any) -> float:
    """Exchanges leave a value out, or send an empty text, where they have none."""
    return float("nan") if value is None or value == "" else float(value)
