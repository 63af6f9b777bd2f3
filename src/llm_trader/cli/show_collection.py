"""What a collector prints: a line per boundary and per ingestion, and its numbers at the end."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from llm_trader.app.collection import BoundaryReport, CollectionReport
from llm_trader.cli.output import Description, heading, line, minute, table
from llm_trader.cli.pipeline import in_a_line

if TYPE_CHECKING:
    from llm_trader.app.following import FollowReport


def describe_event(event: BoundaryReport | FollowReport | CollectionReport) -> Description:
    if isinstance(event, BoundaryReport):
        yield line(_boundary(event))
    elif isinstance(event, CollectionReport):
        yield from _summary(event)
    else:
        yield line(in_a_line(event))


def _boundary(event: BoundaryReport) -> str:
    parts = [f"{event.symbols - len(event.late)} of {event.symbols} symbols are there"]
    if event.sent:
        parts.append(f"{event.sent} snapshots sent")
    kinds = Counter(kind for late in event.late.values() for kind in late)
    parts += [f"late: {kind} of {count}" for kind, count in kinds.items()]
    if event.counts.reconnects:
        parts.append(f"{event.counts.reconnects} reconnects")
    return f"{minute(event.boundary)} {'; '.join(parts)}"


def _summary(event: CollectionReport) -> Description:
    yield heading(f"Collected from {event.exchange}")
    counts = event.counts
    yield line(
        f"{counts.streamed} candles from streams, {counts.backfilled} rows fetched, "
        f"{counts.corrected} corrected, {counts.rejected} rejected, {counts.reconnects} reconnects"
    )
    if event.intakes:
        rows = ((name, c.sent, c.late, c.dropped) for name, c in event.intakes.items())
        yield table("", "intake", "sent", "of them late", "dropped", rows=rows)
