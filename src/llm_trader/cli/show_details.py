"""Describes what `query --verbose` adds to an answer: the state, the evidence, and the search."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.table import Table

from llm_trader.cli.fan import range_now
from llm_trader.cli.output import Description, line, minute, number, price_text, table
from llm_trader.cli.show_answer import quote_of

if TYPE_CHECKING:
    from llm_trader.app.queries import Reply
    from llm_trader.retrieval.answer import Estimate, Evidence, HorizonEvidence, Match
    from llm_trader.serving.wire import Metadata

# The fields of the state that people know, by their names here, with unit and format.
_PRICE: Final = "price"
_STATE: Final = (
    ("price", "Price", "", _PRICE),
    ("price_change_1h", "Change of the last hour", " %", "+.2f"),
    ("price_change_4h", "Change of the last 4h", " %", "+.2f"),
    ("price_change_24h", "Change of the last 24h", " %", "+.2f"),
    ("realized_volatility_24h", "Realised volatility of 24h", " %", ".2f"),
    ("rsi_7", "RSI(7), 0 to 100", "", ".1f"),
    ("rsi_14", "RSI(14), 0 to 100", "", ".1f"),
    ("rsi_14_4h", "RSI(14) of 4h candles, 0 to 100", "", ".1f"),
    ("macd", "MACD line, EMA12 - EMA26", "", _PRICE),
    ("ema_20_4h", "EMA20 of 4h candles", "", _PRICE),
    ("ema_50_4h", "EMA50 of 4h candles", "", _PRICE),
    ("volume_ratio", "Volume of the last hour over the mean", "", ".2f"),
    ("oi_delta_pct", "Open interest over its 24h mean", " %", "+.2f"),
)
_QUANTILES: Final = ("p10", "p25", "p50", "p75", "p90")


def describe_details(reply: Reply) -> Description:
    evidence, metadata = reply.answer.evidence, reply.answer.metadata
    yield ""
    yield _state(reply)
    yield ""
    yield _match_details(reply.answer.matches)
    for name, horizon in evidence.horizons.items():
        yield ""
        yield _horizon(name, horizon, evidence)
    if evidence.barriers is not None:
        yield ""
        yield _barriers(evidence)
    yield ""
    yield line(f"Reason of the verdict: {evidence.reason}.")
    yield from (line(told.summary) for told in evidence.horizons.values() if told.summary)
    yield from map(line, _search(evidence, metadata))


def _state(reply: Reply) -> Table:
    rows = [(name, _field(reply, field, unit, spec)) for field, name, unit, spec in _STATE]
    funding = reply.state.get("funding_rate")
    rows.append(("Funding rate per settlement", number(funding, ".4%").replace("%", " %")))
    return table("The state", "field", "value", rows=rows)


def _field(reply: Reply, field: str, unit: str, spec: str) -> str:
    value = reply.state.get(field)
    if value is None:
        return "-"
    if spec == _PRICE:
        return price_text(value) + quote_of(reply.symbol)
    return f"{value:{spec}}{unit}"


def _match_details(matches: list[Match]) -> Table:
    rows = (
        (
            minute(match.date),
            f"{match.market_state.rsi_14:.1f}",
            number(match.market_state.funding_rate, ".4%").replace("%", " %"),
            number(match.outcomes.max_runup_1h, "+.2f"),
            number(match.outcomes.max_drawdown_1h, "+.2f"),
        )
        for match in matches
    )
    return table(
        "The same past states, and the extremes of the hour after them in %",
        *("date (UTC)", "RSI(14)", "funding", "highest in 1h", "lowest in 1h"),
        rows=rows,
    )


def _horizon(name: str, horizon: HorizonEvidence, evidence: Evidence) -> Table:
    """A block per horizon: a row for each statistic of the price change."""
    rows = table(
        f"Next {name}, change in %",
        *("", "similar states", f"{evidence.interval_level:.0%} interval", "forecast", "all"),
    )
    forecast = horizon.forecast
    means = forecast.mean if forecast else None
    rows.add_row("mean", *_cells(horizon.mean, means, "+.2f"))
    rows.add_row("P(up)", *_cells(horizon.p_up, forecast.p_up if forecast else None, ".0%"))
    for quantile in _QUANTILES:
        estimate: Estimate = getattr(horizon, quantile)
        level = int(quantile[1:])
        expected = forecast.quantiles[level - 1] if forecast else None
        rows.add_row(f"{level} % are below", *_cells(estimate, expected, "+.2f"))
    rows.caption = (
        f"{horizon.effective_episodes:.0f} of {evidence.episodes} similar states count as "
        f"independent; all: {evidence.base_rate_points:,}"
    )
    if horizon.band_80 is not None and (band := range_now(horizon)):
        rows.caption += f"; calibrated range of 8 in 10: {band[0]:+.2f} to {band[1]:+.2f}"
    return rows


def _cells(estimate: Estimate, forecast: float | None, spec: str) -> tuple[str, ...]:
    return (
        number(estimate.value, spec),
        _interval(estimate, spec),
        number(forecast, spec),
        number(estimate.base_rate, spec),
    )


def _interval(estimate: Estimate, spec: str) -> str:
    if estimate.low is None or estimate.high is None:
        return "-"
    return f"{estimate.low:{spec}} to {estimate.high:{spec}}"


def _barriers(evidence: Evidence) -> Table:
    rows = table(
        "Touched first within 24h",
        *("", "similar states", f"{evidence.interval_level:.0%} interval", "forecast", "all"),
    )
    chances = evidence.barrier_forecasts or []
    usual = chances[0] if chances else None
    if (shares := evidence.barriers) is not None:
        stop, target = (usual.stop_first, usual.target_first) if usual else (None, None)
        rows.add_row("stop at -2 %", *_cells(shares.stop_first, stop, ".0%"))
        rows.add_row("target at +3 %", *_cells(shares.target_first, target, ".0%"))
    if usual:
        rows.add_row("neither", "", "", f"{usual.neither:.0%}", "")
    for chance in chances[1:]:
        rows.add_row(f"stop at -{chance.stop_pct:.3g} %", "", "", f"{chance.stop_first:.0%}", "")
        target_first = f"{chance.target_first:.0%}"
        rows.add_row(f"target at +{chance.target_pct:.3g} %", "", "", target_first, "")
        rows.add_row("neither of these", "", "", f"{chance.neither:.0%}", "")
    return rows


def _search(evidence: Evidence, metadata: Metadata) -> list[str]:
    lines = []
    if novelty := evidence.novelty:
        lines.append(
            f"Novelty: {novelty.percentile:.0f} % of past states had a nearer neighbour than "
            f"this one's, of similarity {novelty.nearest_similarity:.3f}."
        )
    lines.append(
        f"Compared by {metadata.vector} ({metadata.feature_version}) with "
        f"{metadata.points_eligible:,} states; filters: {', '.join(metadata.filters_applied)}."
    )
    if in_part := evidence.episodes_compared_in_part:
        lines.append(
            f"{in_part} of {evidence.episodes} similar states were compared over a part of the "
            "features, as they or this one lack some."
        )
    source = f"State from {metadata.state_source}"
    if missing := metadata.features_missing:
        source += f", {len(missing)} features missing: {', '.join(missing)}"
    lines.append(f"{source}.")
    duration_ms = metadata.query_duration_us / 1000
    lines.append(f"Answered in {duration_ms:.1f} ms; request {metadata.request_id}.")
    return lines
