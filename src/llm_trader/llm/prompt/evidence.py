"""What followed similar states, in a prompt: every figure beside its base rate."""

from __future__ import annotations

from typing import Final

from llm_trader.llm.prompt.market import RelativeTo
from llm_trader.llm.prompt.numbers import UNKNOWN, fixed, percent, quoted, signed
from llm_trader.llm.prompt.retrieved import Retrieved
from llm_trader.retrieval.answer import Evidence, HorizonEvidence, Match
from llm_trader.snapshot.outcome import BARRIERS
from llm_trader.timeframe import DAY_MS, HORIZONS, Millis

# What a query may ask for at most.
_MOST_MATCHES: Final = 50
_MOST_REASON_CHARACTERS: Final = 300
_VERDICTS: Final = ("informative", "weak", "none")

_HOW_TO_READ: Final = (
    "How to read it: changes are in %; [brackets] hold the base rate, the same figure over all "
    "states of the window, and only a difference from it tells anything.",
    "The fewer effective observations, the less it tells. The verdict weighs both; none means "
    "nothing beyond the base rates.",
)


def evidence_lines(retrieved: Retrieved, now_ms: Millis, price: float | None) -> list[str]:
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
        *_matches(retrieved.matches[:_MOST_MATCHES], now_ms, RelativeTo(price)),
    ]


def _sample(evidence: Evidence) -> str:
    novelty = None if evidence.novelty is None else evidence.novelty.percentile
    nearer = fixed(novelty, 0)
    return (
        f"{evidence.episodes} separate episodes among {evidence.base_rate_points} states, "
        f"similarity {fixed(evidence.similarity_mean, 2)}; {percent(nearer)} of past states had a "
        "nearer neighbour"
    )


def _horizons(evidence: Evidence) -> list[str]:
    rows = [_horizon(name, evidence) for name in HORIZONS if name in evidence.horizons]
    if not rows:
        return []
    band = "calibrated" if evidence.calibrated else "not calibrated"
    return [
        f"horizon: volatility expected now, 80% band ({band}) | after similar states mean, % of "
        "rises | size of moves (usual is 1), effective observations",
        *rows,
    ]


def _horizon(name: str, evidence: Evidence) -> str:
    horizon = evidence.horizons[name]
    low, high = _band(horizon, evidence.calibrated)
    base_mean, base_rises = signed(horizon.mean.base_rate, 2), _share(horizon.p_up.base_rate)
    size = None if horizon.scale is None else horizon.scale.value
    return (
        f"{name}: {fixed(horizon.expected_volatility_pct, 2)}, {signed(low, 2)} to "
        f"{signed(high, 2)} | {signed(horizon.mean.value, 2)} [{base_mean}] "
        f"{_share(horizon.p_up.value)} [{base_rises}] | {fixed(size, 2)} "
        f"{fixed(horizon.effective_episodes, 0)}"
    )


def _band(horizon: HorizonEvidence, calibrated: bool) -> tuple[float | None, float | None]:
    if calibrated:
        return horizon.band_80 or (None, None)
    forecast = horizon.forecast
    # Quantiles at 1, 2, ... 99 %.
    if forecast is None or len(forecast.quantiles) != 99:
        return None, None
    return forecast.quantiles[9], forecast.quantiles[89]


def _barriers(evidence: Evidence) -> list[str]:
    lines = []
    if evidence.barriers is not None:
        stop, target = evidence.barriers.stop_first, evidence.barriers.target_first
        lines.append(
            f"first within 24h, % of similar states: stop (-2%) {_share(stop.value)} "
            f"[{_share(stop.base_rate)}], target (+3%) {_share(target.value)} "
            f"[{_share(target.base_rate)}]"
        )
    for chance in (evidence.barrier_forecasts or [])[:1]:
        lines.append(
            f"by the volatility expected now, %: stop {_share(chance.stop_first)}, target "
            f"{_share(chance.target_first)}, neither {_share(chance.neither)}"
        )
    return lines


def _share(fraction: float) -> str:
    return fixed(100 * fraction, 0)


def _matches(matches: list[Match], now_ms: Millis, now: RelativeTo) -> list[str]:
    if not matches:
        return []
    return [
        "nearest states: days ago, similarity: RSI(7), RSI(14), MACD, 4h EMA(20)/EMA(50), open "
        "interest %, funding % -> change after 15m, 1h, 4h, 24h; highest, lowest within 1h; stop "
        "(-2%) or target (+3%) first within 24h",
        *(_match(match, now_ms, now) for match in matches),
    ]


def _match(match: Match, now_ms: Millis, now: RelativeTo) -> str:
    state, then = match.market_state, match.outcomes
    funding = None if state.funding_rate is None else 100 * state.funding_rate
    facts = (
        *(fixed(state.rsi_7, 0), fixed(state.rsi_14, 0), now.difference(state.macd)),
        *(fixed(state.ema_ratio, 3), signed(state.oi_delta_pct, 1), signed(funding, 3)),
    )
    changes = then.outcome_15m, then.outcome_1h, then.outcome_4h, then.outcome_24h
    barrier = then.first_barrier if then.first_barrier in BARRIERS.values() else UNKNOWN
    return (
        f"{fixed((now_ms - match.timestamp) / DAY_MS, 1)} {fixed(match.similarity, 2)}: "
        f"{' '.join(facts)} -> {' '.join(signed(change, 2) for change in changes)}; "
        f"{signed(then.max_runup_1h, 2)} {signed(then.max_drawdown_1h, 2)}; {barrier}"
    )
