"""How long to wait before a failed request is sent again. Nothing here waits or reads a clock."""

from __future__ import annotations

from random import Random
from typing import Final

_FIRST_WAIT_S: Final = 1.0
_LONGEST_WAIT_S: Final = 60.0
# Beyond it the wait is the longest one; a power of an attempt of days is no number any more.
_LAST_DOUBLING: Final = 10
# Exchanges count requests per second; one sent at the very end of a wait may still be too early.
_BEYOND_ASKED_S: Final = 0.5


def wait_s(attempt: int, asked_s: float | None, rng: Random) -> float:
    """Seconds to wait after the failed attempt of that number, from 0.

    The wait doubles, and its second half is random, so that clients that failed together do not
    come back together. It is never shorter than what the exchange asked for.
    """
    longest = min(_FIRST_WAIT_S * 2.0 ** min(attempt, _LAST_DOUBLING), _LONGEST_WAIT_S)
    own_s = longest * (0.5 + 0.5 * rng.random())
    return own_s if asked_s is None else max(own_s, asked_s + _BEYOND_ASKED_S)
