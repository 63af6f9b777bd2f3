"""Whether one forecast is better than another, or chance would do as well.

Losses are lower where better, and in the order of time. Outcomes of neighbouring rows overlap, so
the rows are not independent: every function here takes the length of that dependence, as `block`
or `lags` in rows. Both cut long-range dependence off linearly. For outcomes over h rows a length
of b misses h / (3 b) of the variance, so take several horizons; one is too short.

Rows with a NaN are left out, of all losses at once; the rows around such a gap then count
as adjacent. A level of 0.95 belongs to an interval; one of 0.05 to a test.
"""

from __future__ import annotations

from math import nan, sqrt
from statistics import NormalDist
from typing import Final, Literal

import msgspec
import numpy as np

from llm_trader.arrays import Floats
from llm_trader.errors import InvalidInputError
from llm_trader.retrieval.intervals import Interval, student_t, t_as_normal

Verdict = Literal["better", "worse", "no evidence"]

# With fewer blocks, their differences say too little about how far the mean may be off.
MIN_BLOCKS: Final = 10

# The usual 1 in 20, of a whole family of comparisons: corrected for their number everywhere.
SIGNIFICANCE_LEVEL: Final = 0.05

_NORMAL: Final = NormalDist()


class DieboldMariano(msgspec.Struct, frozen=True):
    """`statistic` is above 0 where the loss is below the reference's; `p_value` is two-sided."""

    statistic: float
    p_value: float


def mean_interval(
    d: Floats, block: int, reps: int = 1000, seed: int = 0, level: float = 0.95
) -> Interval:
    """The mean of d (n,) with a percentile interval.

    The circular block bootstrap (Politis and Romano 1992): blocks of adjacent rows that start at
    any row, the last row followed by the first, until n rows are drawn. Intervals are widened as
    those of n / block observations are, by Student's t; with fewer than `MIN_BLOCKS` there are
    none.
    """
    rows = _without_nan(d)
    if too_few_rows(len(rows), block):
        return Interval.of(float(rows.mean()) if len(rows) else nan)
    means = bootstrap_means(rows[:, None], block, reps, seed)[:, 0]
    return _percentiles(float(rows.mean()), means, len(rows) / block, level)


def skill_interval(
    loss: Floats,
    reference_loss: Floats,
    block: int,
    reps: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Skill 1 − mean(loss) / mean(reference_loss), both (n,), as of `mean_interval`.

    The two are resampled together, so what moves both alike cancels. 1 is a loss of nothing, 0
    no better than the reference. The mean loss of the reference should be well above 0.
    """
    rows = _without_nan(_side_by_side(loss, reference_loss))
    if not len(rows):
        return Interval.of(nan)
    mean = rows.mean(axis=0)
    skill = _skill(mean[None])[0]
    if too_few_rows(len(rows), block):
        return Interval.of(float(skill))
    resampled = _skill(bootstrap_means(rows, block, reps, seed))
    return _percentiles(float(skill), resampled, len(rows) / block, level)


def bootstrap_means(rows: Floats, block: int, reps: int, seed: int) -> Floats:
    """Means of the columns of `reps` circular block resamples of rows (n, m), shape (reps, m)."""
    if reps < 1:
        raise InvalidInputError(f"{reps} resamples: take 1 or more")
    n = len(rows)
    starts = np.random.default_rng(seed).integers(0, n, (reps, -(-n // block)))
    last = n - (starts.shape[1] - 1) * block  # the last block is cut, so that n rows are drawn
    mean = rows.mean(axis=0)
    means = np.empty((reps, rows.shape[1]))
    for column, centred in enumerate((rows - mean).T):
        summed = np.concatenate([[0.0], np.cumsum(np.concatenate([centred, centred[:block]]))])
        whole_blocks, cut_block = starts[:, :-1], starts[:, -1]
        total = (summed[whole_blocks + block] - summed[whole_blocks]).sum(axis=1)
        total += summed[cut_block + last] - summed[cut_block]
        means[:, column] = mean[column] + total / n
    return means


def diebold_mariano(loss: Floats, reference_loss: Floats, lags: int) -> DieboldMariano:
    """Whether two losses (n,) have the same mean (Diebold and Mariano 1995).

    The variance is `long_run_variance`; the statistic is scaled for a horizon of lags + 1 rows
    and compared with Student's t (Harvey, Leybourne and Newbold 1997), of n / lags − 1 degrees of
    freedom: with n − 1, a few stretches of dependent rows seem too sure. NaN where the differences
    do not vary.
    """
    pairs = _without_nan(_side_by_side(loss, reference_loss))
    n = len(pairs)
    d = pairs[:, 1] - pairs[:, 0]
    variance = long_run_variance(d, lags)
    if not variance > 0:
        return DieboldMariano(nan, nan)
    horizon = lags + 1
    small_sample = sqrt((n + 1 - 2 * horizon + horizon * (horizon - 1) / n) / n)
    statistic = small_sample * float(d.mean()) / sqrt(variance / n)
    beyond = _NORMAL.cdf(-t_as_normal(abs(statistic), max(1.0, n / max(lags, 1) - 1)))
    return DieboldMariano(statistic, 2 * beyond)


def long_run_variance(d: Floats, lags: int) -> float:
    """n times the variance of the mean of d (n,), whose rows depend on the `lags` before them.

    γ₀ + 2 Σ (1 − k / (lags + 1)) γₖ over k = 1..lags, with autocovariances over n (Newey and West
    1987). NaN where there are not more than `lags` rows.
    """
    if lags < 0:
        raise InvalidInputError(f"{lags} lags: take 0 or more")
    n = len(d)
    if n <= max(lags, 1):
        return nan
    if np.ptp(d) == 0:  # its mean need not be the same number to the last digit
        return 0.0
    c = d - d.mean()
    weighted = ((1 - k / (lags + 1)) * float(np.dot(c[k:], c[:-k])) for k in range(1, lags + 1))
    return (float(np.dot(c, c)) + 2 * sum(weighted)) / n


def minimum_detectable_effect(
    d: Floats, block: int, power: float = 0.8, level: float = 0.05
) -> float:
    """The mean of d (n,) that a two-sided test at `level` finds with probability `power`.

    (z of 1 − level/2 + z of power) standard errors of the mean. That error is the one of the
    circular block bootstrap, in closed form: blocks drawn with replacement from all n.
    """
    if not (0 < power < 1 and 0 < level < 1):
        raise InvalidInputError("power and level lie between 0 and 1")
    rows = _without_nan(d)
    n = len(rows)
    if too_few_rows(n, block):
        return nan
    c = rows - rows.mean()
    summed = np.concatenate([[0.0], np.cumsum(np.concatenate([c, c[: block - 1]]))])
    blocks = (summed[block:] - summed[:-block]) / block
    error = sqrt(float(blocks.var()) * block / n)
    return (_NORMAL.inv_cdf(1 - level / 2) + _NORMAL.inv_cdf(power)) * error


def too_few_rows(n: int, block: int) -> bool:
    """Whether n rows hold too few blocks for an interval."""
    if block < 1:
        raise InvalidInputError(f"blocks of {block} rows: take 1 or more")
    return n < MIN_BLOCKS * block


def verdict(interval: Interval) -> Verdict:
    """The verdict on a skill, or on a difference that is above 0 where better."""
    if interval.above(0):
        return "better"
    return "worse" if interval.below(0) else "no evidence"


def _side_by_side(loss: Floats, reference_loss: Floats) -> Floats:
    if loss.shape != reference_loss.shape or loss.ndim != 1:
        raise InvalidInputError(
            f"two losses are compared row by row: shapes {loss.shape} and {reference_loss.shape}"
        )
    return np.column_stack([loss, reference_loss])


def _without_nan(rows: Floats) -> Floats:
    missing = np.isnan(rows)
    return rows[~(missing.any(axis=1) if rows.ndim == 2 else missing)]


def _percentiles(value: float, resampled: Floats, blocks: float, level: float) -> Interval:
    if not 0 < level < 1:
        raise InvalidInputError(f"the level of an interval lies between 0 and 1, not at {level}")
    z = _NORMAL.inv_cdf((1 + level) / 2)
    widening = student_t(z, blocks - 1) / z * sqrt(blocks / (blocks - 1))
    bounds = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return Interval.of(value, *(value + widening * float(bound - value) for bound in bounds))


def _skill(means: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(1 - means[:, 0] / means[:, 1])
