"""Intervals, and closed formulas for them and for deviations.

`n` counts effective observations. The formulas take plain numbers: a query needs a dozen of each,
too few for arrays to pay.
"""

from __future__ import annotations

from math import copysign, log1p, nan, sqrt
from typing import Annotated

import msgspec
from msgspec import Meta

from llm_trader.arrays import none_for_nan


class Interval(msgspec.Struct, frozen=True):
    """An estimate and the bounds of its interval; `None` is unknown."""

    value: Annotated[float | None, Meta(description="The statistic itself.")]
    low: Annotated[
        float | None,
        Meta(description="Lower end of its interval; null where there is too little data."),
    ]
    high: Annotated[
        float | None,
        Meta(description="Upper end of its interval; null where there is too little data."),
    ]

    @classmethod
    def of(cls, value: float, low: float = nan, high: float = nan) -> Interval:
        """The interval of computed numbers, in which NaN is unknown."""
        return cls(*map(none_for_nan, (value, low, high)))

    def above(self, threshold: float) -> bool:
        """Whether the whole interval lies above; false where it is unknown."""
        return self.low is not None and self.low > threshold

    def below(self, threshold: float) -> bool:
        return self.high is not None and self.high < threshold


def student_t(z: float, degrees_of_freedom: float) -> float:
    """Student's t quantile for the normal quantile z.

    The Cornish-Fisher expansion, Abramowitz & Stegun 26.7.5: 3 digits from 5 degrees of freedom.
    """
    g1 = (z**3 + z) / 4
    g2 = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    g3 = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + g1 / degrees_of_freedom + g2 / degrees_of_freedom**2 + g3 / degrees_of_freedom**3


def t_as_normal(t: float, degrees_of_freedom: float) -> float:
    """The normal deviate that is as unlikely as a Student's t (Wallace 1959)."""
    df = degrees_of_freedom
    size = sqrt(df * log1p(t * t / df)) * (8 * df + 1) / (8 * df + 3)
    return copysign(size, t)


def wilson(share: float, n: float, z: float) -> tuple[float, float]:
    """Wilson's score interval (1927) of a share of n observations; n need not be whole."""
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(centre - reach, 0.0), min(centre + reach, 1.0)
