"""Describes a server's answer: the verdict, what to expect at each horizon, and the matches.

What only some readers want is in `show_details`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.table import Table
from rich.text import Text

from llm_trader.cli.fan import range_now
from llm_trader.cli.output import Description, minute, number, price_text, table
from llm_trader.cli.terminal_picture import terminal_picture
from llm_trader.timeframe import DAY_MS, HORIZONS, MINUTE_MS, SECOND_MS, Millis, iso8601

if TYPE_CHECKING:
    from llm_trader.app.queries import Reply
    from llm_trader.retrieval.answer import Evidence, HorizonEvidence, Match

_QUOTES: Final = ("USDT", "USDC", "FDUSD", "BUSD", "USD", "EUR", "BTC", "ETH")


def describe_reply(reply: Reply, *, verbose: bool = False) -> Description:
    """The answer from its verdict to its matches; `verbose` adds all else that it holds."""
    metadata, evidence = reply.answer.metadata, reply.answer.evidence
    yield Text(verdict_sentence(reply), "bold")
    for warning in metadata.warnings:
        yield Text(f"Warning: {warning}", "yellow")
    yield ""
    if evidence.horizons:
        yield _outlook(evidence)
        yield ""
    if reply.series is not None and (picture := terminal_picture(reply)) is not None:
        yield picture
        yield ""
    yield matches_table(reply.answer.matches)
    yield ""
    yield Text(_data(reply))
    if verbose:
        from llm_trader.cli.show_details import describe_details

        yield from describe_details(reply)
    else:
        yield Text("The state, the evidence and the search: --verbose")


def verdict_sentence(reply: Reply) -> str:
    """The answer in one sentence: the word, the price, the range to expect, and the finding."""
    evidence, price = reply.answer.evidence, reply.state.get("price")
    finding = evidence.reason.partition(";")[0]
    expected = ""
    if evidence.horizons and price is not None:
        name, horizon = _horizon_of_verdict(evidence)
        if (ends := range_now(horizon)) and horizon.expected_volatility_pct is not None:
            low, high = (price_text(price * (1 + end / 100)) for end in ends)
            unit = quote_of(reply.symbol)
            expected = (
                f"{reply.symbol} at {price_text(price)}{unit} should move "
                f"±{horizon.expected_volatility_pct:.2f} % in {name}, 8 times in 10 to between "
                f"{low} and {high}{unit}; "
            )
    return f"Verdict: {evidence.verdict}; {expected}{finding}."


def _horizon_of_verdict(evidence: Evidence) -> tuple[str, HorizonEvidence]:
    """The horizon at which similar states differ most; where they show nothing, the longest."""
    horizons = list(evidence.horizons.items())
    if evidence.verdict == "none":
        return horizons[-1]
    return max(horizons, key=lambda named: _largest_deviation(named[1]))


def _largest_deviation(horizon: HorizonEvidence) -> float:
    return max(abs(d.deviation) if d else 0.0 for d in (horizon.scale, horizon.direction))


def _outlook(evidence: Evidence) -> Table:
    rows = table(
        "What to expect, beside what is usual",
        *("next", "expected move", "range now", "usual range", "P(up)", "base"),
    )
    for name, horizon in evidence.horizons.items():
        p_up = horizon.forecast.p_up if horizon.forecast else None
        rows.add_row(
            name,
            "-" if (move := horizon.expected_volatility_pct) is None else f"±{move:.2f} %",
            _range(range_now(horizon)),
            _range((horizon.p10.base_rate, horizon.p90.base_rate)),
            "-" if p_up is None else f"{100 * p_up:.0f} %",
            f"{100 * horizon.p_up.base_rate:.0f} %",
        )
    calibrated = ", calibrated" if evidence.calibrated else ""
    rows.caption = (
        f"Ranges hold 8 of 10 outcomes: now by the forecast{calibrated}, usually by all "
        f"{evidence.base_rate_points:,} states of the window, as does the base of P(up), the "
        "chance of a rise."
    )
    return rows


def _range(ends: tuple[float, float] | None) -> str:
    return "-" if ends is None else f"{ends[0]:+.2f} to {ends[1]:+.2f} %"


def matches_table(matches: list[Match]) -> Table:
    rows = (
        (
            minute(match.date),
            f"{match.similarity:.3f}",
            *(number(getattr(match.outcomes, f"outcome_{name}"), "+.2f") for name in HORIZONS),
            match.outcomes.first_barrier or "-",
        )
        for match in matches
    )
    return table(
        "Similar past states, nearest first, and the price change after them in %",
        *("date (UTC)", "similarity", *HORIZONS, "first in 24h"),
        rows=rows,
    )


def _data(reply: Reply) -> str:
    """The times of the query, the state, the store and the index, and how old they are."""
    metadata = reply.answer.metadata
    age_minutes = metadata.state_age_seconds * SECOND_MS / MINUTE_MS
    age = f" ({age_minutes:.0f} min old)" if age_minutes else ""
    ends = (("Store", metadata.store_end), ("Index", metadata.index_end))
    known = [f"{name} ends {_minute(end)}." for name, end in ends if end is not None]
    state = f"state of {_minute(metadata.state_as_of)}{age}."
    as_of = iso8601(metadata.as_of)
    if reply.age_ms is not None:
        days, minutes = reply.age_ms / DAY_MS, reply.age_ms / MINUTE_MS
        ago = f"{days:,.0f} days ago" if days >= 2 else f"{minutes:.0f} min ago"
        as_of += f", the newest data, {ago}"
    return " ".join([f"{reply.symbol} at {as_of}: {state}", *known])


def _minute(time_ms: Millis) -> str:
    return minute(iso8601(time_ms // SECOND_MS * SECOND_MS))


def quote_of(symbol: str) -> str:
    """The unit of a symbol's prices with a space before it; empty where its name does not say."""
    return next((f" {quote}" for quote in _QUOTES if symbol.endswith(quote)), "")
