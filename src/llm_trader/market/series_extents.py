"""How complete each series is, by one look at its records, for whoever asks often."""

from __future__ import annotations

from typing import NamedTuple

from llm_trader.market import record_ranges
from llm_trader.market.refused_rows import read_refused
from llm_trader.market.series_records import read_record
from llm_trader.storage.environment import ReadTransaction


class SeriesExtent(NamedTuple):
    """`gaps` and the candles `missing` in them are None of samples and where no record was kept.

    `refused` counts the stretches of rows that the exchange sent and that were refused.
    """

    symbol: str
    series: str
    gaps: int | None
    missing: int | None
    refused: int


def series_extents(txn: ReadTransaction) -> list[SeriesExtent]:
    extents = []
    for series in record_ranges.all_series(txn):
        record, timeframe = read_record(txn, series), series.timeframe
        gaps = missing = None
        if record is not None and record.gaps is not None and timeframe is not None:
            places = (record.last_ms - record.first_ms) // timeframe.ms + 1
            gaps, missing = record.gaps, places - record.rows
        refused = len(read_refused(txn, series))
        extents.append(SeriesExtent(series.symbol, series.database, gaps, missing, refused))
    return extents
