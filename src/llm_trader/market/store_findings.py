"""What a check says about each series of a store: what is wrong, and what is only worth knowing.

Wrong is what a person can or must do something about. An outage of the exchange, a feed that stood
still and candles that were built from a part of their finer ones are noted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, Literal

import msgspec
import numpy as np

from llm_trader.arrays import Mask, Times
from llm_trader.errors import StoreError
from llm_trader.market import keys, record_ranges
from llm_trader.market.frozen import FrozenStretch
from llm_trader.market.jumps import Jump, jump_remedy
from llm_trader.market.missing_rows import MissingRows, Reason
from llm_trader.market.samples import OpenInterestSeries
from llm_trader.market.stored_series import StoredSeries
from llm_trader.market.timeframe_check import Contradiction
from llm_trader.storage.environment import ReadTransaction
from llm_trader.timeframe import HOUR_MS, Millis, iso8601

Problem = Literal[
    "record", "damage", "unreadable", "order", "off_grid", "in_future", "rejected", "not_fetched",
    "stopped", "zeros", "jump", "contradiction", "outage", "frozen", "incomplete",
]  # fmt: skip

_WHY: Final[dict[Reason, str]] = {
    "outage": "the exchange has none of them",
    "rejected": "those that came were refused",
    "not_fetched": "not fetched",
}
# Rows are taken by the clock of the exchange.
_CLOCKS_DIFFER_MS: Final = HOUR_MS
_SOURCE_REMEDY: Final = (
    "find which of the two has wrong times or is of another market, and import the right candles "
    "of it"
)


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """`count` rows of a series from `first` to `last`; `wrong` if they need a remedy."""

    symbol: str
    series: str
    problem: Problem
    wrong: bool
    text: str
    count: int
    first: str
    last: str
    first_ms: Millis
    last_ms: Millis
    remedy: str | None = None

    def __str__(self) -> str:
        if self.problem == "jump":
            return self.text
        if self.problem == "frozen":
            name = f"{self.symbol} {self.series.removeprefix('candles ')}"
            return f"frozen in {name}: {self.text}, from {self.first} to {self.last}"
        return f"{self.symbol} {self.series}: {self.text}"


class Remedies:
    """What to do, with the folder of the store in it; `is_fetchable` if its exchange answers."""

    def __init__(self, path: str, *, is_fetchable: bool) -> None:
        self.path, self.is_fetchable = path, is_fetchable
        self.repair = f"llm-trader data check --repair --store {path}"
        self.records = f"correct them with: {self.repair}"
        self.damage = (
            "import the damaged days again, or restore a backup; the file itself is mended by "
            "importing the data into a new store"
        )
        self.rows = (
            f"ask the exchange for them with: {self.repair}"
            if is_fetchable
            else "import them, if your source has them"
        )
        self.times = "import the right rows into a new store; nothing can say what these times are"


def series_name(series: StoredSeries[Any]) -> str:
    return f"candles {series.timeframe}" if series.timeframe else series.database.replace("_", " ")


class SeriesFindings:
    """Makes the findings of one series, whose times are given."""

    def __init__(self, series: StoredSeries[Any], times: Times, remedies: Remedies) -> None:
        self._series, self._times, self._remedies = series, times, remedies

    def of_records(self, problems: Sequence[str], problem: Problem) -> Iterator[Finding]:
        """What differs from the rows concerns the whole series."""
        remedies = self._remedies
        remedy = remedies.damage if problem == "damage" else remedies.records
        for text in problems:
            ends = self._ends()
            yield self._finding(problem, text, len(self._times), *ends, remedy)

    def of_times(self, now_ms: Millis | None) -> Iterator[Finding]:
        """Keys in another order or off the grid, and rows of the future."""
        times, timeframe = self._times, self._series.timeframe
        backwards = np.diff(times, prepend=times[:1] - 1) <= 0
        yield from self._of_mask("order", backwards, "rows are not in the order of time")
        if timeframe is not None:
            off_grid = times % timeframe.ms != 0
            yield from self._of_mask("off_grid", off_grid, f"candles do not open on {timeframe}")
        if now_ms is not None:
            known_ms = times + (timeframe.ms if timeframe else 0)
            is_later = known_ms > now_ms + _CLOCKS_DIFFER_MS
            yield from self._of_mask("in_future", is_later, "rows are of the future")

    def of_missing(self, missing: Sequence[MissingRows]) -> Iterator[Finding]:
        noun = "candles" if self._series.timeframe else "samples"
        for at_end in (False, True):
            for reason, why in _WHY.items():
                parts = [m for m in missing if m.reason == reason and m.at_end == at_end]
                if not parts:
                    continue
                count = sum(part.missing for part in parts)
                text = f"{count} {noun} are missing in {len(parts)} gaps, {why}"
                if at_end:
                    last = iso8601(int(self._times[-1]))
                    text = f"stopped at {last}, {count} {noun} before the newest candle, {why}"
                # What nobody can be asked about may well be an outage.
                wrong = reason != "outage" and (at_end or self._remedies.is_fetchable)
                problem: Problem = "stopped" if at_end and reason != "outage" else reason
                remedy = self._remedies.rows if reason != "outage" else None
                ends = parts[0].start_ms, parts[-1].end_ms - 1
                yield self._finding(problem, text, count, *ends, remedy, wrong=wrong)

    def of_values(self, txn: ReadTransaction) -> Iterator[Finding]:
        """Samples that cannot be read, and open interest of zero between positive values."""
        try:
            samples = self._series.read(record_ranges.items(txn, self._series, None, None))
        except StoreError as error:
            yield from self.of_unreadable(error.message)
            return
        if self._series.database == keys.OPEN_INTEREST:
            text = "values of 0 lie between positive ones, and say that nothing is known"
            yield from self._of_mask("zeros", zeros_between(samples), text, self._remedies.rows)

    def of_unreadable(self, message: str) -> Iterator[Finding]:
        yield self._finding("unreadable", message, 1, *self._ends(), self._remedies.damage)

    def of_contradictions(self, found: Iterable[Contradiction]) -> Iterator[Finding]:
        for one in found:
            compared = one.comparison
            ends = compared.first[0].time_ms, compared.last_ms
            count = compared.differing
            yield self._finding("contradiction", str(one), count, *ends, _SOURCE_REMEDY)

    def of_jumps(self, jumps: Iterable[Jump]) -> Iterator[Finding]:
        unaccepted = [jump for jump in jumps if not jump.accepted]
        for jump in unaccepted:
            remedy = jump_remedy(unaccepted, self._remedies.path)
            yield self._finding("jump", str(jump), 1, jump.time_ms, jump.time_ms, remedy)

    def of_frozen(self, stretches: Iterable[FrozenStretch]) -> Iterator[Finding]:
        for stretch in stretches:
            text = f"{stretch.candles} candles repeat the one before"
            ends = stretch.start_ms, stretch.end_ms
            yield self._finding("frozen", text, stretch.candles, *ends, None, wrong=False)

    def of_incomplete(self, times: Sequence[Millis]) -> Iterator[Finding]:
        if times:
            text = f"{len(times)} built from a part of their finer candles"
            remedy = self._remedies.rows if self._remedies.is_fetchable else None
            ends = times[0], times[-1]
            yield self._finding("incomplete", text, len(times), *ends, remedy, wrong=False)

    def _of_mask(
        self, problem: Problem, mask: Mask, what: str, remedy: str | None = None
    ) -> Iterator[Finding]:
        if mask.any():
            times = self._times[mask]
            ends = int(times[0]), int(times[-1])
            text = f"{len(times)} {what}, the first at {iso8601(ends[0])}"
            yield self._finding(problem, text, len(times), *ends, remedy or self._remedies.times)

    def _ends(self) -> tuple[Millis, Millis]:
        return (int(self._times[0]), int(self._times[-1])) if len(self._times) else (0, 0)

    def _finding(
        self,
        problem: Problem,
        text: str,
        count: int,
        first_ms: Millis,
        last_ms: Millis,
        remedy: str | None,
        *,
        wrong: bool = True,
    ) -> Finding:
        return Finding(
            symbol=self._series.symbol,
            series=series_name(self._series),
            problem=problem,
            wrong=wrong,
            text=text,
            count=count,
            first=iso8601(first_ms),
            last=iso8601(last_ms),
            first_ms=first_ms,
            last_ms=last_ms,
            remedy=remedy,
        )


def zeros_between(samples: OpenInterestSeries) -> Mask:
    """Which samples are 0 while some before and some after are not."""
    values = samples.open_interest
    positive = np.flatnonzero(values > 0)
    rows = np.arange(len(values))
    inside: Mask = np.zeros(len(values), np.bool_)
    if len(positive):
        inside = (values == 0) & (rows > positive[0]) & (rows < positive[-1])
    return inside
