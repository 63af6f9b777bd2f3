"""Describes studies of deciders: what they will cost, and whether evidence is read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from llm_trader.cli.output import Description, heading, minute, table
from llm_trader.evaluation.report import formats
from llm_trader.evaluation.report.formats import has_bounds
from llm_trader.evaluation.report.reads_wording import ALTERATIONS, reads_headline
from llm_trader.evaluation.report.wording import DISTRUST
from llm_trader.retrieval.intervals import Interval

if TYPE_CHECKING:
    from llm_trader.app.decider_studies import Estimate
    from llm_trader.evaluation.decisions.results import Reading, ReadsMetrics

_ALARM: Final = "bold white on red"
_LONG_MINUTES: Final = 90


def price_in_words(estimate: Estimate) -> str:
    """What a study will cost before it begins."""
    counts = formats.count(estimate.decisions, "decision")
    if estimate.missing:
        return (
            f"{counts}, {estimate.missing:,} of which the record has no reply to: they will be "
            "HOLDs by error"
        )
    calls = estimate.decisions - estimate.recorded
    if not calls:
        return f"{counts}, all on record: nothing to pay"
    minutes = estimate.minutes
    hours = f"{minutes / 60:.1f} hours" if minutes > _LONG_MINUTES else f"{minutes:.0f} minutes"
    recorded = f", {estimate.recorded:,} of them on record" if estimate.recorded else ""
    return (
        f"{counts}{recorded}; {formats.count(calls, 'call')} cost about "
        f"{formats.usd(float(estimate.expected_usd))}, at most "
        f"{formats.usd(float(estimate.at_most_usd))} unless calls are repeated, and take {hours} "
        "or more at llm.requests_per_minute"
    )


def describe_reads(metrics: ReadsMetrics, out: Path) -> Description:
    """The verdict with its price, then the numbers, and the location of the files."""
    origin = metrics.origin
    span = f"{minute(origin.start)} to {minute(origin.end)}"
    yield heading(f"{', '.join(origin.symbols)}, {span}, {formats.count(metrics.states, 'state')}")
    if metrics.trusted:
        yield from _paragraphs([f"{reads_headline(metrics)}."], "bold", indent=0)
    else:
        yield Text(f" ✗ {DISTRUST.upper()} ", _ALARM)
    yield from _paragraphs(metrics.readings)
    yield ""
    yield _effects(metrics.subject)
    yield ""
    yield from _paragraphs(_control(control) for control in metrics.controls)
    yield heading(f"Report: {out / 'report.html'}")
    yield f"  {metrics.seconds:.0f} s; reads.json beside it"


def _effects(reading: Reading) -> Table:
    rows = table(
        "Changed decisions in %, and how far they moved to the side of the evidence, of 100; 95 % "
        "intervals",
        *("evidence", "states", "failed", "changed", "beyond noise", "moved"),
        *("with it", "against"),
    )
    for effect in reading.effects:
        is_noise = effect.alteration == "repeat"
        rows.add_row(
            ALTERATIONS[effect.alteration],
            f"{effect.states:,}",
            f"{effect.errors:,}",
            _interval(effect.changed),
            formats.DASH if is_noise else _interval(effect.beyond_noise),
            _interval(effect.movement),
            f"{effect.right:,}",
            f"{effect.wrong:,}",
        )
    return rows


def _interval(interval: Interval) -> str:
    numbers = (interval.value, interval.low, interval.high)
    value, low, high = (formats.number(n, 1, factor=100) for n in numbers)
    return f"{value} [{low}, {high}]" if has_bounds(interval) else value


def _control(control: Reading) -> str:
    mark = "✓" if control.verdict == control.expected else "✗"
    if control.verdict == "cannot tell":
        mark = "–"
    return f"{mark} control: {control.decider} {control.verdict}, expected: {control.expected}"


def _paragraphs(texts: Iterable[str], style: str = "", indent: int = 2) -> Description:
    for text in texts:
        yield Padding(Text(text, style), (0, 0, 0, indent), expand=False)
