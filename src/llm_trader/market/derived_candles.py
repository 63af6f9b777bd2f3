"""Builds 3m and 4h candles from the finer ones of imported files, where there are no native ones.

Native candles stay as they are. Where they end, or have holes, built ones go on with them if the
two agree where both are there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np

from llm_trader.arrays import Times
from llm_trader.market.built_candles import RESAMPLED
from llm_trader.market.candles import CandleSeries
from llm_trader.market.resampling import Resampled, resample_with_holes
from llm_trader.market.store import MarketStore
from llm_trader.market.timeframe_agreement import (
    SAME_CANDLES,
    Span,
    compare,
    divides,
    native_part,
    overlap,
    sampled_stretches,
)
from llm_trader.market.value_codecs import WriteReport
from llm_trader.progress import Progress, StepCounter, no_progress
from llm_trader.timeframe import DAY_MS, H4, M1, M3, Millis, Timeframe

# A 4h candle lacks at most 24 minutes of its trades. With half, it would lack an unknown part of
# its range; with all required, one candle in 48 would cost it.
LEAST_SHARE: Final[dict[Timeframe, float]] = {M3: 1.0, H4: 0.9}
# Some 25 MB at once.
_ROWS_PER_READ: Final = 50_000


class DerivedReport(msgspec.Struct, frozen=True):
    """Candles built from those of an imported file; `incomplete` of them from a part of theirs."""

    symbol: str
    timeframe: str
    source: str
    rows: int
    write: WriteReport
    incomplete: int = 0
    warnings: list[str] = []


@dataclass(frozen=True, slots=True)
class ImportedSpan:
    """The span that one imported file has candles of."""

    file: str
    timeframe: Timeframe
    start_ms: Millis
    end_ms: Millis


def derive_candles(
    symbol: str,
    spans: list[ImportedSpan],
    store: MarketStore,
    written_at_ms: Millis,
    progress: Progress = no_progress,
) -> Iterator[DerivedReport]:
    """3m candles from 1m, and 4h from the finest imported, where there are no native ones."""
    minutes = [span for span in spans if span.timeframe == M1]
    finest = min((span.timeframe for span in spans), default=M1)
    fine = [span for span in spans if span.timeframe == finest and divides(finest, H4)]
    for target, sources in ((M3, minutes), (H4, fine)):
        has_native = _has_native(store, symbol, target)
        compared = False
        for span in sources:
            built = _build(symbol, span, target, store, progress)
            if has_native and not built:
                continue  # the exchange's own candles are all there
            source = f"{RESAMPLED} {span.timeframe} of {span.file}"
            if has_native and not compared:
                problem = _why_not_continued(symbol, span.timeframe, target, store)
                if problem is not None:
                    nothing = WriteReport()
                    yield DerivedReport(symbol, str(target), source, 0, nothing, 0, [problem])
                    break
                compared = True
            yield _write(symbol, target, built, source, store, written_at_ms, progress)


def _write(
    symbol: str,
    target: Timeframe,
    built: list[Resampled],
    source: str,
    store: MarketStore,
    written_at_ms: Millis,
    progress: Progress,
) -> DerivedReport:
    rows = sum(len(part.candles) for part in built)
    incomplete_ms = np.concatenate([np.empty(0, np.int64), *(p.incomplete_ms for p in built)])
    if len(incomplete_ms):
        source += f", {len(incomplete_ms)} incomplete"
    write = store.write_parts(
        symbol,
        with_progress((part.candles for part in built), rows, progress),
        source,
        written_at_ms=written_at_ms,
        incomplete_ms=incomplete_ms,
    )
    return DerivedReport(symbol, str(target), source, rows, write, len(incomplete_ms))


def with_progress(
    parts: Iterable[CandleSeries], rows: int, progress: Progress
) -> Iterator[CandleSeries]:
    """Reports the rows of each part as written when the next one is asked for."""
    written = StepCounter(progress, "rows written", rows)
    for part in parts:
        yield part
        written(len(part))


def _has_native(store: MarketStore, symbol: str, timeframe: Timeframe) -> bool:
    sources = store.provenance(symbol, timeframe)
    if not sources:
        return timeframe in store.timeframes(symbol)
    return any(not entry.source.startswith(RESAMPLED) for entry in sources)


def _build(
    symbol: str, span: ImportedSpan, target: Timeframe, store: MarketStore, progress: Progress
) -> list[Resampled]:
    """The candles of a span that are not stored as native ones, in parts of whole days.

    They are read back from the store: a neighbouring file may complete the first and the last.
    """
    start_ms, end_ms = target.floor(span.start_ms), target.floor(span.end_ms - 1) + target.ms
    step_ms = max(1, _ROWS_PER_READ * span.timeframe.ms // DAY_MS) * DAY_MS
    built_before = store.built_candles(symbol, target)
    read = StepCounter(progress, "rows read back", (end_ms - start_ms) // span.timeframe.ms)
    parts: list[Resampled] = []
    first_ms = start_ms
    while first_ms < end_ms:
        until_ms = min(first_ms // DAY_MS * DAY_MS + step_ms, end_ms)
        stored_ms = store.open_times(symbol, target, first_ms, until_ms)
        native_ms = stored_ms[~built_before.contain(stored_ms)]
        wanted_ms = np.setdiff1d(np.arange(first_ms, until_ms, target.ms), native_ms)
        if len(wanted_ms):
            from_ms, to_ms = int(wanted_ms[0]), int(wanted_ms[-1]) + target.ms
            fine = store.candles(symbol, span.timeframe, from_ms, to_ms)
            part = _without(resample_with_holes(fine, target, LEAST_SHARE[target]), native_ms)
            if len(part.candles):
                parts.append(part)
        read((until_ms - first_ms) // span.timeframe.ms)
        store.release_memory()
        first_ms = until_ms
    return parts


def _without(built: Resampled, times: Times) -> Resampled:
    """The built candles that do not open at these times."""
    candles = built.candles
    kept = np.isin(candles.open_time_ms, times, invert=True)
    if kept.all():
        return built
    columns = (values[kept] for _, values in candles.columns())
    return Resampled(
        CandleSeries(candles.timeframe, candles.open_time_ms[kept], *columns),
        np.setdiff1d(built.incomplete_ms, times),
    )


def stored_span(store: MarketStore, symbol: str, timeframe: Timeframe) -> Span | None:
    """From the open of the first stored candle to the close of the last one."""
    ends = store.first_and_last_ms(symbol, timeframe)
    return None if ends is None else (ends[0], ends[1] + timeframe.ms)


def _why_not_continued(
    symbol: str, fine: Timeframe, target: Timeframe, store: MarketStore
) -> str | None:
    """Why built candles must not go on with native ones; None where both agree."""
    built = store.built_candles(symbol, target)
    fine_span, span = (stored_span(store, symbol, timeframe) for timeframe in (fine, target))
    comparison = compare(
        lambda a, b: store.candles(symbol, fine, a, b),
        lambda a, b: native_part(store.candles(symbol, target, a, b), built),
        sampled_stretches(*overlap(fine_span, span, target), target),
        SAME_CANDLES,
    )
    named = f"{symbol} {target} does not go on"
    if not comparison.compared:
        return (
            f"{named}: none of the imported {target} candles has all of its {fine} candles to "
            f"compare with; import later {target} candles, or earlier {fine} candles"
        )
    if comparison.disagrees:
        return (
            f"{named}: {comparison.differing} of {comparison.compared} imported {target} candles "
            f"are not what their {fine} candles make ({comparison.listed(fine, target)}); "
            f"import later {target} candles, or correct the wrong ones"
        )
    return None
