"""How a simulation did, and how much of that selection and luck explain; `None` is undefined."""

from __future__ import annotations

from math import e, sqrt
from statistics import NormalDist
from typing import Final

import numpy as np

from llm_trader.arrays import Floats
from llm_trader.errors import InvalidInputError
from llm_trader.evaluation.backtest.simulator import Simulation
from llm_trader.evaluation.results import Performance
from llm_trader.timeframe import DAY_MS

DAYS_PER_YEAR: Final = 365  # this market never closes

_EULER_MASCHERONI: Final = 0.5772156649015329
_NORMAL: Final = NormalDist()
# Returns that differ by rounding alone have no deviation to divide by.
_DEVIATION_FLOOR: Final = 1e-12


def measure(simulation: Simulation, *, trials: int) -> Performance:
    """Measure one simulation, from its first decision time to its end.

    `trials` counts everything that was tried before this one was chosen, itself included: every
    decider, setting and symbol. The variance of their daily Sharpe ratios is taken as
    1 / (daily returns - 1), what chance alone gives to trials without skill. Raises
    `InvalidInputError` for fewer than 1 trial.
    """
    daily = daily_returns(simulation)
    # Without a trade only bills make returns differ.
    sharpe = sharpe_ratio(daily) if simulation.trades else None
    best_by_luck = expected_best_sharpe(trials, 1 / max(1, len(daily) - 1))
    trades = simulation.trades
    net = np.array([trade.net_pct for trade in trades])
    decided = len(simulation.time_ms)
    days = (simulation.end_ms - int(simulation.time_ms[0])) / DAY_MS if decided else 0.0
    days_in_position = sum(trade.exit_ms - trade.entry_ms for trade in trades) / DAY_MS
    turnover = sum(1 + trade.exit_price / trade.entry_price for trade in trades)
    return Performance(
        total_return_pct=(simulation.final_equity - 1) * 100 if days else None,
        daily_returns=len(daily),
        sharpe=None if sharpe is None else sharpe * sqrt(DAYS_PER_YEAR),
        probabilistic_sharpe=_confidence(daily, sharpe, 0.0),
        deflated_sharpe=_confidence(daily, sharpe, best_by_luck),
        trials=trials,
        max_drawdown_pct=max_drawdown_pct(simulation) if days else None,
        trades=len(trades),
        win_rate=float((net > 0).mean()) if trades else None,
        mean_net_pct=float(net.mean()) if trades else None,
        exposure=days_in_position / days if days else None,
        turnover_per_day=turnover / days if days else None,
    )


def daily_returns(simulation: Simulation) -> Floats:
    """Known returns of whole UTC days as fractions, shape (days,).

    Equity at a midnight is the last one sampled up to then. After a total loss there is no return.
    """
    if not len(simulation.time_ms):
        return np.empty(0)
    times = np.append(simulation.time_ms, simulation.end_ms)
    equity = np.append(simulation.equity, simulation.final_equity)
    first_day = -(-times[0] // DAY_MS)
    midnights = np.arange(first_day, simulation.end_ms // DAY_MS + 1) * DAY_MS
    daily_equity = equity[np.searchsorted(times, midnights, side="right") - 1]
    with np.errstate(all="ignore"):
        returns: Floats = daily_equity[1:] / daily_equity[:-1] - 1
    return returns[np.isfinite(returns)]


def sharpe_ratio(returns: Floats) -> float | None:
    """Mean over standard deviation, per return and not annualised; NaN are left out.

    `None` for fewer than two returns, and where they do not vary.
    """
    finite_returns = returns[np.isfinite(returns)]
    if len(finite_returns) < 2:
        return None
    deviation = float(finite_returns.std(ddof=1))
    return float(finite_returns.mean()) / deviation if deviation > _DEVIATION_FLOOR else None


def probabilistic_sharpe_ratio(
    sharpe: float, benchmark: float, observations: int, skewness: float, kurtosis: float
) -> float | None:
    """The probability that the true Sharpe ratio is above `benchmark`, from an observed one.

    Both per observation, not annualised; `kurtosis` is 3 for a normal distribution. From Bailey and
    López de Prado, "The Sharpe Ratio Efficient Frontier" (2012):

        Φ((SR - SR*) √(T - 1) / √(1 - γ₃ SR + (γ₄ - 1)/4 SR²))

    `None` for fewer than two observations, and where the root is not of a positive number.
    """
    spread = 1 - skewness * sharpe + (kurtosis - 1) / 4 * sharpe**2
    if observations < 2 or not spread > 0:
        return None
    return _NORMAL.cdf((sharpe - benchmark) * sqrt((observations - 1) / spread))


def expected_best_sharpe(trials: int, sharpe_variance: float) -> float:
    """The Sharpe ratio to expect of the best of N independent trials without skill.

    `sharpe_variance` is that of the trials' ratios, in their unit. From Bailey and López de Prado,
    "The Deflated Sharpe Ratio" (2014), γ being the Euler-Mascheroni constant:

        √V ((1 - γ) Φ⁻¹(1 - 1/N) + γ Φ⁻¹(1 - 1/(N e)))

    One trial is no selection: 0. Raises `InvalidInputError` for fewer, and for a variance below 0.
    """
    if trials < 1 or not sharpe_variance >= 0:
        raise InvalidInputError(
            f"{trials} trials with a variance of {sharpe_variance}: both must be positive"
        )
    if trials == 1:
        return 0.0
    first, second = (_NORMAL.inv_cdf(1 - 1 / n) for n in (trials, trials * e))
    return sqrt(sharpe_variance) * ((1 - _EULER_MASCHERONI) * first + _EULER_MASCHERONI * second)


def max_drawdown_pct(simulation: Simulation) -> float:
    """The deepest fall of equity below its highest before, at most 0, among the samples."""
    equity = np.concatenate(([1.0], simulation.equity, [simulation.final_equity]))
    return float((equity / np.maximum.accumulate(equity) - 1).min() * 100)


def _confidence(returns: Floats, sharpe: float | None, benchmark: float) -> float | None:
    if sharpe is None:
        return None
    z = (returns - returns.mean()) / returns.std()
    skewness, kurtosis = float((z**3).mean()), float((z**4).mean())
    return probabilistic_sharpe_ratio(sharpe, benchmark, len(returns), skewness, kurtosis)
