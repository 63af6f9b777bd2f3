"""What followed similar states, in a prompt: every figure beside its base rate."""

from __future__ import annotations

from typing import Final

from llm_trader.llm.prompt.market import PriceScale
from llm_trader.llm.prompt.numbers import UNKNOWN, fixed, quoted, signed
from llm_trader.llm.prompt.retrieved import Retrieved
from llm_trader.retrieval.answer import Estimate, Evidence, HorizonEvidence, Match
from llm_trader.snapshot.outcome import BARRIERS
from llm_trader.timeframe import DAY_MS, HORIZONS, Millis

# What a query may ask for at most.
_MOST_MATCHES: Final = 50
_MOST_REASON_CHARACTERS: Final = 300
_VERDICTS: Final = ("informative", "weak", "none")

_HOW_TO_READ: Final = (
    "How to read it: changes are in %; [brackets] hold the base rate, the same figure over all "
    "states of the window, and only a difference from it tells anything.",
    "The fewer effective observations, the less a difference means; the verdict weighs both, and "
    '"none" means that similar states tell nothing beyond the base rate.',
)


def evidence_lines(retrieved: Retrieved, now_ms: Millis, scale: PriceScale) -> list[str]:
    """The lines of the section, with a heading; none where there is no evidence."""
    if retrieved.is_empty:
        return []
    evidence = retrieved.evidence
    verdict = evidence.verdict if evidence.verdict in _VERDICTS else UNKNOWN
    return [
        "EVIDENCE from similar past states of this market",
        *_HOW_TO_READ,
        f"verdict: {verdict}, because {quoted(evidence.reason, _MOST_REASON_CHARACTERS)}",
        _sample(evidence),
        *_horizons(evidence),
        *_barriers(evidence),
        *_matches(retrieved.matches[:_MOST_MATCHES], now_ms, scale),
    ]


def _sample(evidence: Evidence) -> str:
    novelty = None if evidence.novelty is None else evidence.novelty.percentile
    return (
        f"{evidence.episodes} separate episodes among {evidence.base_rate_points} states, mean "
        f"similarity {fixed(evidence.similarity_mean, 2)}; novelty of now {fixed(novelty, 0)} "
        "of 100"
    )


def _horizons(evidence: Evidence) -> list[str]:
    rows = [_horizon(name, evidence) for name in HORIZONS if name in evidence.horizons]
    if not rows:
        return []
    band = "calibrated" if evidence.calibrated else "not calibrated"
    return [
        "horizon: volatility expected now, 80 % band of the forecast "
        f"({band}) | mean, median, % of rises after similar states | size of moves (1 is usual), "
        "effective observations",
        *rows,
    ]


def _horizon(name: str, evidence: Evidence) -> str:
    horizon = evidence.horizons[name]
    low, high = _band(horizon, evidence.calibrated)
    rises = fixed(100 * horizon.p_up.value, 0), fixed(100 * horizon.p_up.base_rate, 0)
    size = None if horizon.scale is None else horizon.scale.value
    return (
        f"{name}: {fixed(horizon.expected_volatility_pct, 2)}, {signed(low, 2)} to "
        f"{signed(high, 2)} | {_beside_base(horizon.mean)}, {_beside_base(horizon.p50)}, "
        f"{rises[0]} [{rises[1]}] | {fixed(size, 2)}, {fixed(horizon.effective_episodes, 0)}"
    )


def _band(horizon: HorizonEvidence, calibrated: bool) -> tuple[float | None, float | None]:
    if calibrated:
        return horizon.band_80 or (None, None)
    forecast = horizon.forecast
    # Quantiles at 1, 2, ... 99 %.
    if forecast is None or len(forecast.quantiles) != 99:
        return None, None
    return forecast.quantiles[9], forecast.quantiles[89]


def _beside_base(estimate: Estimate) -> str:
    return f"{signed(estimate.value, 2)} [{signed(estimate.base_rate, 2)}]"


def _barriers(evidence: Evidence) -> list[str]:
    lines = []
    if evidence.barriers is not None:
        stop, target = evidence.barriers.stop_first, evidence.barriers.target_first
        lines.append(
            f"touched first within 24h: -2 % after {_share(stop.value)} [{_share(stop.base_rate)}] "
            f"%, +3 % after {_share(target.value)} [{_share(target.base_rate)}] % of them"
        )
    for chance in (evidence.barrier_forecasts or [])[:1]:
        lines.append(
            f"chances by the volatility expected now: -2 % first {_share(chance.stop_first)} %, "
            f"+3 % first {_share(chance.target_first)} %, neither {_share(chance.neither)} %"
        )
    return lines


def _share(fraction: float) -> str:
    return fixed(100 * fraction, 0)


def _matches(matches: list[Match], now_ms: Millis, scale: PriceScale) -> list[str]:
    if not matches:
        return []
    return [
        "most similar states, nearest first; days ago, similarity: RSI(7), RSI(14), MACD, 4h "
        "EMA(20)/EMA(50), open interest %, funding % -> change after 15m, 1h, 4h, 24h; best and "
        "worst within 1h; touched first within 24h, stop (-2 %) or target (+3 %)",
        *(_match(match, now_ms, scale) for match in matches),
    ]


def _match(match: Match, now_ms: Millis, scale: PriceScale) -> str:
    state, then = match.market_state, match.outcomes
    funding = None if state.funding_rate is None else 100 * state.funding_rate
    facts = (
        *(fixed(state.rsi_7, 0), fixed(state.rsi_14, 0), scale.difference(state.macd)),
        *(fixed(state.ema_ratio, 3), signed(state.oi_delta_pct, 1), signed(funding, 4)),
    )
    changes = then.outcome_15m, then.outcome_1h, then.outcome_4h, then.outcome_24h
    barrier = then.first_barrier if then.first_barrier in BARRIERS.values() else UNKNOWN
    return (
        f"{fixed((now_ms - match.timestamp) / DAY_MS, 1)}, {fixed(match.similarity, 2)}: "
        f"{', '.join(facts)} -> {', '.join(signed(change, 2) for change in changes)}; "
        f"{signed(then.max_runup_1h, 2)}, {signed(then.max_drawdown_1h, 2)}; {barrier}"
    )
