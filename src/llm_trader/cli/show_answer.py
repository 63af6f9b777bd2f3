"""Describes a server's answer: the state, the matches, the evidence and the verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from llm_trader.cli.output import Description, minute, number, table
from llm_trader.timeframe import iso8601

if TYPE_CHECKING:
    from llm_trader.app.queries import Reply
    from llm_trader.retrieval.answer import Estimate, Evidence, HorizonEvidence, Match
    from llm_trader.serving.wire import Metadata

_STATE_LINES = (
    ("price", "rsi_7", "rsi_14", "macd", "price_change_1h", "price_change_4h"),
    ("price_change_24h", "realized_volatility_24h", "ema_ratio", "oi_delta_pct", "funding_rate"),
)
_HORIZONS = ("15m", "1h", "4h", "24h")
_QUANTILES = ("p10", "p25", "p50", "p75", "p90")


def describe_reply(reply: Reply) -> Description:
    metadata, evidence = reply.answer.metadata, reply.answer.evidence
    yield f"\n[bold]{reply.symbol}[/] at {iso8601(metadata.as_of)}"
    for names in _STATE_LINES:
        values = {name: reply.state.get(name) for name in names}
        if numbers := [
            f"{name} {value:.6g}" for name, value in values.items() if value is not None
        ]:
            yield "  " + ", ".join(numbers)
    for warning in metadata.warnings:
        yield f"  warning: {warning}"
    yield ""
    yield _matches(reply.answer.matches)
    yield ""
    if evidence.horizons:
        yield _evidence(evidence)
        yield ""
    yield from _verdict(evidence, metadata)


def _matches(matches: list[Match]) -> Table:
    rows = (
        (
            minute(match.date),
            f"{match.similarity:.3f}",
            number(match.similarity_percentile, ".2f") + " %",
            f"{match.market_state.rsi_14:.1f}",
            f"{match.market_state.funding_rate * 100:.4f} %",
            *(number(getattr(match.outcomes, f"outcome_{name}"), "+.2f") for name in _HORIZONS),
            number(match.outcomes.max_runup_1h, "+.2f"),
            number(match.outcomes.max_drawdown_1h, "+.2f"),
            match.outcomes.first_barrier,
        )
        for match in matches
    )
    return table(
        "Similar past states, and what followed (% change)",
        *("date", "similarity", "pairs below", "rsi 14", "funding"),
        *_HORIZONS,
        *("high 1h", "low 1h", "first"),
        rows=rows,
    )


def _evidence(evidence: Evidence) -> Table:
    rows = table(
        f"The {evidence.episodes} nearest episodes beside all states of the window (% change)",
        *("over", "states", "mean", "P(up)", *_QUANTILES),
        right_from=2,
    )
    for name, horizon in evidence.horizons.items():
        _add_horizon(rows, name, horizon, evidence.base_rate_points)
    if (barriers := evidence.barriers) is not None:
        first = "; ".join(
            f"{change} first {_estimate(estimate, '.2f')}, of all {estimate.base_rate:.2f}"
            for change, estimate in (("-2 %", barriers.stop_first), ("+3 %", barriers.target_first))
        )
        rows.caption = f"within 24h: {first}. Intervals: {evidence.interval_level:.0%}"
        for chance in evidence.barrier_forecasts or []:
            rows.caption += (
                f"\nforecast within 24h: -{chance.stop_pct:.2g} % first {chance.stop_first:.2f}, "
                f"+{chance.target_pct:.2g} % first {chance.target_first:.2f}, neither "
                f"{chance.neither:.2f}"
            )
        rows.caption_justify = "left"
    return rows


def _add_horizon(rows: Table, name: str, horizon: HorizonEvidence, base_rate_points: int) -> None:
    quantiles: list[Estimate] = [getattr(horizon, quantile) for quantile in _QUANTILES]
    rows.add_row(
        name,
        f"nearest, {horizon.effective_episodes:.0f} effective",
        _estimate(horizon.mean, "+.2f"),
        _estimate(horizon.p_up, ".2f"),
        *(number(quantile.value, "+.2f") for quantile in quantiles),
    )
    if forecast := horizon.forecast:
        quantiles_of_forecast = (forecast.quantiles[int(name[1:]) - 1] for name in _QUANTILES)
        cells = (number(value, "+.2f") for value in quantiles_of_forecast)
        mean, p_up = number(forecast.mean, "+.2f"), number(forecast.p_up, ".2f")
        rows.add_row("", "  forecast", mean, p_up, *cells)
    if horizon.band_80 is not None:
        low, high = (number(edge, "+.2f") for edge in horizon.band_80)
        rows.add_row("", "  calibrated 80 % band", "", "", low, "", "", "", high)
    rows.add_row(
        "",
        f"all {base_rate_points}",
        number(horizon.mean.base_rate, "+.2f"),
        number(horizon.p_up.base_rate, ".2f"),
        *(number(quantile.base_rate, "+.2f") for quantile in quantiles),
        style="dim",
    )


def _verdict(evidence: Evidence, metadata: Metadata) -> Description:
    yield f"[bold]Verdict: {evidence.verdict}[/]. {evidence.reason}."
    yield from (f"  {told.summary}" for told in evidence.horizons.values() if told.summary)
    if novelty := evidence.novelty:
        yield (
            f"  novelty: {novelty.percentile:.0f} % of past states had a nearer neighbour "
            f"than this one's {novelty.nearest_similarity:.2f}"
        )
    missing = len(metadata.features_missing)
    yield (
        f"  compared by {metadata.vector}; filters: {', '.join(metadata.filters_applied)}; "
        f"state from {metadata.state_source}"
        + (f", {missing} features missing" if missing else "")
        + f"; {metadata.query_duration_us / 1000:.1f} ms; {metadata.feature_version}"
    )


def _estimate(estimate: Estimate, spec: str) -> str:
    low, high = number(estimate.low, spec), number(estimate.high, spec)
    return f"{number(estimate.value, spec)} [{low}, {high}]"
