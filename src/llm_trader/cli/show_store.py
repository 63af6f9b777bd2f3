"""What a market store holds, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from llm_trader.cli.output import (
    Description,
    first_lines,
    heading,
    line,
    minute,
    table,
)

if TYPE_CHECKING:
    from llm_trader.market.frozen import FrozenStretch
    from llm_trader.market.missing_rows import Reason
    from llm_trader.market.store_info import StoreInfo


_WHY_MISSING: Final[dict[Reason, str]] = {
    "outage": "of which the exchange has none",
    "rejected": "as those that came were refused",
    "not_fetched": "not fetched",
}


def describe_series(info: StoreInfo) -> Description:
    yield heading(f"{info.path}, exchange {info.exchange or 'unknown'}")
    rows = []
    for series in info.series:
        sources = list(dict.fromkeys(source.source for source in series.provenance))
        rows.append(
            (
                series.symbol,
                f"{series.kind} {series.timeframe or ''}".strip(),
                series.rows,
                minute(series.first),
                minute(series.last),
                series.missing,
                *(() if series.age_seconds is None else (_age(series.age_seconds),)),
                _first_of(sources),
            )
        )
    ages = ("age",) if any(series.age_seconds is not None for series in info.series) else ()
    columns = ("symbol", "series", "rows", "first", "last", "missing", *ages, "from")
    shown = table("", *columns, rows=rows, right_from=2)
    shown.columns[-1].justify = "left"
    yield shown
    for series in info.series:
        name = f"{series.symbol} {series.timeframe or series.kind.replace('_', ' ')}"
        noun = "candles" if series.timeframe else "samples"
        gaps = [
            f"gap in {name}: {gap.missing} {noun} from {gap.start}, {_WHY_MISSING[gap.reason]}"
            for gap in series.gaps
        ]
        yield from first_lines(gaps, "gaps")
        if series.incomplete:
            yield line(
                f"{name}: {len(series.incomplete)} candles are built from a part of their finer "
                f"ones, the first at {series.incomplete[0]}"
            )
        yield from first_lines(frozen_lines(name, series.frozen), "frozen stretches")


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f}{unit}"
    return f"{seconds:.0f}s"


def frozen_lines(name: str, stretches: Sequence[FrozenStretch] | None) -> list[str]:
    return [
        f"frozen in {name}: {stretch.candles} candles repeat the one before, from {stretch.start} "
        f"to {stretch.end}"
        for stretch in stretches or ()
    ]


def _first_of(sources: Sequence[str]) -> str:
    if not sources:
        return "-"
    return sources[0] + (f" and {len(sources) - 1} more" if len(sources) > 1 else "")
