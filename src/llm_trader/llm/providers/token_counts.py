"""Counts of tokens as replies have them."""

from __future__ import annotations

from typing import Any


def token_count(value: Any) -> int:
    """Raises `ValueError` for anything but a number of tokens."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is not a number of tokens")
    return value


def optional_token_count(details: Any, name: str) -> int | None:
    """`None` where a provider leaves it out."""
    value = getattr(details, name, None)
    return None if value is None else token_count(value)
