"""How many outcomes fell inside the 80 % band, before and after conformal correction.

The margin of each day is made of the outcomes known by its midnight, as `calibrating` says, of
the symbol's own: what is corrected was never used to make its correction.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from llm_trader.arrays import Floats
from llm_trader.evaluation import significance
from llm_trader.evaluation.conformal.calibration_fit import followed_margins, inside, served_scores
from llm_trader.evaluation.forecast.skills import Walk
from llm_trader.evaluation.results import Band
from llm_trader.snapshot.outcome import HORIZONS
from llm_trader.timeframe import DAY_MS


class Inside(NamedTuple):
    """Of n queries, 1 where what followed was inside the band, 0 where not, (n,); NaN where that
    is not known, or no margin could be made yet.
    """

    before: Floats
    after: Floats


def inside_bands(walk: Walk, horizon: str) -> Inside:
    times = walk.queries.timestamp_ms
    score = served_scores(walk.points, walk.queries, walk.neighbours, horizon)
    days = np.arange(times[0] - times[0] % DAY_MS, times[-1] + 1, DAY_MS)
    margins = followed_margins(times, score, days, HORIZONS[horizon], walk.step_ms)
    margin = margins[(times - days[0]) // DAY_MS]
    after = inside(score, margin)
    return Inside(np.where(np.isfinite(after), inside(score, 0.0), np.nan), after)


def band_of(walk: Walk, horizon: str, inside: Inside, *, reps: int, seed: int) -> Band:
    block = walk.block(horizon)
    before, after = (significance.mean_interval(of, block, reps, seed) for of in inside)
    return Band(
        symbol=walk.points.symbol,
        horizon=horizon,
        before=before,
        after=after,
        queries=int(np.isfinite(inside.after).sum()),
    )
