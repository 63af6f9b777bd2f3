"""Closed formulas for intervals and deviations, of as many observations as effective ones.

On plain numbers: there are a dozen of each per query, too few for arrays to pay.
"""

from __future__ import annotations

from math import copysign, isnan, log1p, nan, sqrt

import msgspec


class Interval(msgspec.Struct, frozen=True):
    """An estimate and the bounds of its interval; `None` is unknown."""

    value: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, value: float, low: float = nan, high: float = nan) -> Interval:
        """The interval of computed numbers, in which NaN is unknown."""
        return cls(*(None if isnan(number) else number for number in (value, low, high)))

    def above(self, threshold: float) -> bool:
        """Whether the whole interval lies above; false where it is unknown."""
        return self.low is not None and self.low > threshold

    def below(self, threshold: float) -> bool:
        return self.high is not None and self.high < threshold


def student_t(z: float, freedom: float) -> float:
    """Student's t quantile for the normal quantile z.

    The Cornish-Fisher expansion, Abramowitz & Stegun 26.7.5: 3 digits from 5 degrees of freedom.
    """
    g1 = (z**3 + z) / 4
    g2 = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    g3 = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + g1 / freedom + g2 / freedom**2 + g3 / freedom**3


def t_as_normal(t: float, freedom: float) -> float:
    """The normal deviate that is as unlikely as a Student's t (Wallace 1959)."""
    size = sqrt(freedom * log1p(t * t / freedom)) * (8 * freedom + 1) / (8 * freedom + 3)
    return copysign(size, t)


def wilson(share: float, n: float, z: float) -> tuple[float, float]:
    """Wilson's score interval (1927) of a share of n observations, n not necessarily whole."""
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(centre - reach, 0.0), min(centre + reach, 1.0)


def share_deviation(share: float, base_rate: float, n: float) -> float:
    """How many standard errors a share lies from its base rate; 0 where the base knows no other.

    A window that never (or always) saw something has nothing to measure against.
    """
    error = sqrt(base_rate * (1 - base_rate) / n)
    return (share - base_rate) / error if error > 0 else 0.0
