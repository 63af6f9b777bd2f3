"""Answers, reports and stores as readable tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from llm_trader.timeframe import iso8601

if TYPE_CHECKING:
    from llm_trader.checks.leak_check import LeakReport
    from llm_trader.index.ingestion import IngestReport
    from llm_trader.market.file_import import ImportReport
    from llm_trader.market.store_check import StoreCheck
    from llm_trader.market.store_info import StoreInfo

_STATE_SHOWN = (
    *("price", "rsi_7", "rsi_14", "macd", "price_change_1h", "price_change_4h"),
    *("price_change_24h", "realized_volatility_24h", "ema_ratio", "oi_delta_pct", "funding_rate"),
)
_HORIZONS = ("15m", "1h", "4h", "24h")
_QUANTILES = ("p10", "p25", "p50", "p75", "p90")


def table(title: str, *columns: str, right_from: int = 1) -> Table:
    made = Table(
        title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0)
    )
    for position, column in enumerate(columns):
        justify: Literal["left", "right"] = "right" if position >= right_from else "left"
        made.add_column(column, justify=justify, no_wrap=True)
    return made


def answer(console: Console, symbol: str, state: dict[str, Any], result: dict[str, Any]) -> None:
    """What was asked about, the matches, the evidence beside the base rates, the verdict."""
    metadata = result["metadata"]
    console.print()
    console.print(f"[bold]{symbol}[/] at {iso8601(metadata['as_of'])}")
    told = [f"{name} {state[name]:.6g}" for name in _STATE_SHOWN if state.get(name) is not None]
    for part in (told[:6], told[6:]):
        if part:
            console.print("  " + ", ".join(part), highlight=False)
    for warning in metadata["warnings"]:
        console.print(f"  warning: {warning}", highlight=False)
    console.print()
    console.print(_matches(result["matches"]))
    console.print()
    evidence = result["evidence"]
    if evidence["horizons"]:
        console.print(_evidence(evidence))
        console.print()
    _verdict(console, evidence, metadata)


def _matches(matches: list[dict[str, Any]]) -> Table:
    shown = table(
        "Similar past states, and what followed (% change)",
        *("date", "similarity", "pairs below", "rsi 14", "funding"),
        *_HORIZONS,
        *("high 1h", "low 1h", "first"),
    )
    for match in matches:
        state, outcomes = match["market_state"], match["outcomes"]
        shown.add_row(
            minute(match["date"]),
            f"{match['similarity']:.3f}",
            _number(match["similarity_percentile"], ".2f") + " %",
            f"{state['rsi_14']:.1f}",
            f"{state['funding_rate'] * 100:.4f} %",
            *(_number(outcomes[f"outcome_{h}"], "+.2f") for h in _HORIZONS),
            _number(outcomes["max_runup_1h"], "+.2f"),
            _number(outcomes["max_drawdown_1h"], "+.2f"),
            outcomes["first_barrier"],
        )
    return shown


def _evidence(evidence: dict[str, Any]) -> Table:
    shown = table(
        f"The {evidence['episodes']} nearest episodes beside all states of the window (% change)",
        *("over", "states", "mean", "P(up)", *_QUANTILES),
        right_from=2,
    )
    for name, horizon in evidence["horizons"].items():
        parts = ("mean", "p_up", *_QUANTILES)
        near = [_estimate(horizon["mean"], "+.2f"), _estimate(horizon["p_up"], ".2f")]
        near += [_number(horizon[q]["value"], "+.2f") for q in _QUANTILES]
        usual = [_number(horizon[part]["base_rate"], "+.2f") for part in parts]
        usual[1] = _number(horizon["p_up"]["base_rate"], ".2f")
        shown.add_row(name, f"nearest, {horizon['effective_episodes']:.0f} effective", *near)
        if rescaled := horizon["rescaled"]:
            scaled = [_number(rescaled[part], "+.2f") for part in ("mean", *_QUANTILES)]
            shown.add_row("", "  at today's volatility", scaled[0], "", *scaled[1:])
        if band := horizon.get("band_80"):
            low, high = (_number(edge, "+.2f") for edge in band)
            shown.add_row("", "  calibrated band of 80 %", "", "", low, "", "", "", high)
        shown.add_row("", f"all {evidence['base_rate_points']}", *usual, style="dim")
    shares = [
        f"{told} first {_estimate(evidence['barriers'][key], '.2f')}, "
        f"of all {evidence['barriers'][key]['base_rate']:.2f}"
        for key, told in (("stop_first", "-2 %"), ("target_first", "+3 %"))
    ]
    shown.caption = f"within 24h: {'; '.join(shares)}. Intervals: {evidence['interval_level']:.0%}"
    shown.caption_justify = "left"
    return shown


def _verdict(console: Console, evidence: dict[str, Any], metadata: dict[str, Any]) -> None:
    console.print(
        f"[bold]Verdict: {evidence['verdict']}[/]. {evidence['reason']}.", highlight=False
    )
    novelty = evidence["novelty"]
    if novelty:
        console.print(
            f"  novelty: {novelty['percentile']:.0f} % of past states had a nearer neighbour "
            f"than this one's {novelty['nearest_similarity']:.2f}",
            highlight=False,
        )
    missing = len(metadata["features_missing"])
    console.print(
        f"  compared by {metadata['vector']}; filters: {', '.join(metadata['filters_applied'])}; "
        "state from "
        f"{metadata['state_source']}"
        + (f", {missing} features missing" if missing else "")
        + f"; {metadata['query_duration_us'] / 1000:.1f} ms; {metadata['feature_version']}",
        highlight=False,
    )


def store_info(console: Console, info: StoreInfo) -> None:
    heading(console, f"{info.path}, exchange {info.exchange or 'unknown'}")
    shown = table("", "symbol", "series", "rows", "first", "last", "missing", "from", right_from=2)
    for series in info.series:
        sources = list(dict.fromkeys(source.source for source in series.provenance))
        shown.add_row(
            series.symbol,
            f"{series.kind} {series.timeframe or ''}".strip(),
            str(series.rows),
            minute(series.first),
            minute(series.last),
            str(series.missing) if series.kind == "candles" else "-",
            _shortened(sources),
        )
    shown.columns[-1].justify = "left"
    shown.columns[-1].ratio = 1  # gives way first
    shown.expand = True
    console.print(shown)
    for series in info.series:
        for gap in series.gaps[:5]:
            console.print(
                f"  gap in {series.symbol} {series.timeframe}: "
                f"{gap.missing} candles from {gap.start}"
            )
        if len(series.gaps) > 5:
            console.print(f"  and {len(series.gaps) - 5} more gaps; all are in --json")


def store_check(console: Console, check: StoreCheck) -> None:
    heading(console, f"{check.path}, counted")
    shown = table("", "symbol", "series", "rows", "problems", right_from=2)
    for series in check.series:
        name = f"{series.kind} {series.timeframe or ''}".strip()
        shown.add_row(series.symbol, name, str(series.rows), str(len(series.problems)))
    console.print(shown)
    for series in check.series:
        for problem in series.problems:
            name = f"{series.symbol} {series.kind} {series.timeframe or ''}".strip()
            console.print(f"  {name}: {problem}", highlight=False, markup=False)
    if check.remedy is not None:
        console.print(f"  {check.remedy}", highlight=False, markup=False, soft_wrap=True)


def import_report(console: Console, report: ImportReport, store: Path) -> None:
    heading(console, f"Imported into {store}")
    shown = table("", "file", "rows", "added", "replaced", "unchanged")
    rows = [(f.file, f) for f in report.files]
    rows += [(f"{d.symbol} {d.timeframe}, {d.source}", d) for d in report.derived]  # type: ignore[misc]
    for name, done in rows:
        write = done.write
        shown.add_row(
            name, str(done.rows), str(write.added), str(write.replaced), str(write.unchanged)
        )
    console.print(shown)
    for skipped in report.skipped:
        console.print(f"  skipped {skipped.file}: {skipped.reason}", highlight=False, markup=False)


def ingest_reports(console: Console, reports: list[IngestReport], index: str) -> None:
    heading(console, f"States in {index}")
    shown = table("", "symbol", "asked for", "outside the data", "there already", "added")
    for report in reports:
        shown.add_row(
            report.symbol,
            str(report.requested),
            str(report.outside_stored_data),
            str(report.already_there),
            str(report.added),
        )
    console.print(shown)
    for report in reports:
        for reason, count in report.refused.items():
            console.print(f"  {report.symbol}: {count} refused, {reason}", highlight=False)
    if reports and all(r.requested == r.outside_stored_data for r in reports):
        console.print("  the store holds nothing of that time; see: llm-trader data info")


def leak_report(console: Console, report: LeakReport) -> None:
    console.print(
        f"{report.queries} queries, {report.matches_checked} matches and "
        f"{report.states_rebuilt} states checked: "
        + (f"[bold]{len(report.leaks)} LEAKS[/]" if report.leaks else "no leak"),
        highlight=False,
    )
    for leak in report.leaks[:20]:
        match = f", match of {leak.match_at}" if leak.match_at else ""
        console.print(f"  {leak.symbol} at {leak.query_at}{match}: {leak.problem}", highlight=False)
    if len(report.leaks) > 20:
        console.print(f"  and {len(report.leaks) - 20} more; all are in --json")


def heading(console: Console, text: str) -> None:
    """In bold and never broken, so that a path in it can be copied."""
    console.print(Text(text, style="bold"), soft_wrap=True)


def _shortened(sources: list[str]) -> str:
    return (
        sources[0] + (f" and {len(sources) - 1} more" if len(sources) > 1 else "")
        if sources
        else "-"
    )


def minute(iso8601: str) -> str:
    return iso8601.replace("T", " ").removesuffix(":00Z")


def _number(value: float | None, spec: str) -> str:
    return "-" if value is None else format(value, spec)


def _estimate(estimate: dict[str, Any], spec: str) -> str:
    low, high = _number(estimate["low"], spec), _number(estimate["high"], spec)
    return f"{_number(estimate['value'], spec)} [{low}, {high}]"
