"""What the store remembers about itself in `meta`: identity, provenance and the gap ledger."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeVar

import msgspec

from llm_trader.arrays import Times
from llm_trader.errors import ConfigurationError, StoreError
from llm_trader.market import keys, record_ranges
from llm_trader.market.candles import Gap, gaps_between
from llm_trader.market.samples import sampling_interval_ms
from llm_trader.market.stored_series import StoredSeries, series_in
from llm_trader.storage.environment import ReadTransaction, WriteTransaction
from llm_trader.timeframe import HOUR_MS, Millis, iso8601

SCHEMA_VERSION: Final = 1
_LAYOUT: Final = "market"

T = TypeVar("T")


class Source(msgspec.Struct, frozen=True):
    """One origin of a series: the span it covered, and the rows it added or replaced."""

    source: str
    first_ms: Millis
    last_ms: Millis
    rows: int
    written_at_ms: Millis


class SeriesRecord(msgspec.Struct, frozen=True):
    """What is remembered of one series: its extent, how it is sampled, and where it is from."""

    rows: int
    first_ms: Millis
    last_ms: Millis
    interval_ms: Millis | None
    sources: tuple[Source, ...]


class GapInfo(msgspec.Struct, frozen=True):
    """Missing candles: the first one's open time, the open time after the last one, how many."""

    start: str
    end: str
    start_ms: Millis
    end_ms: Millis
    missing: int


class SeriesInfo(msgspec.Struct, frozen=True):
    """One stored series; `gaps` is for candles only, `provenance` is empty where none was kept."""

    kind: str
    symbol: str
    timeframe: str | None
    rows: int
    first: str
    last: str
    first_ms: Millis
    last_ms: Millis
    missing: int
    gaps: list[GapInfo]
    provenance: list[Source]


class StoreInfo(msgspec.Struct, frozen=True):
    """A store at a glance. `exchange` and `schema_version` are `None` where never recorded."""

    path: str
    exchange: str | None
    schema_version: int | None
    series: list[SeriesInfo]


def is_market_store(txn: ReadTransaction) -> bool:
    """Ours by its own word, or the original program's by its candles."""
    stored = _remembered(txn, "layout", str)
    candles = (keys.timeframe_of(name) for name in record_ranges.series_databases(txn))
    return stored == _LAYOUT if stored is not None else any(candles)


def check_version(txn: ReadTransaction) -> int | None:
    """The schema version, `None` in the original layout; `StoreError` if it is newer than ours."""
    version = _remembered(txn, "schema_version", int)
    if version is not None and version > SCHEMA_VERSION:
        raise StoreError(
            f"the store has schema version {version}, this program knows up to {SCHEMA_VERSION}; "
            "upgrade llm-trader-rag"
        )
    return version


def check_exchange(txn: ReadTransaction, wanted: str | None) -> str | None:
    """The recorded exchange; `ConfigurationError` if that is another than wanted."""
    stored = _remembered(txn, "exchange", str)
    if wanted and stored and stored != wanted:
        raise ConfigurationError(
            f"the store holds data of {stored}, not of {wanted}; use one folder per exchange"
        )
    return stored


def write_identity(txn: WriteTransaction) -> None:
    """Record the layout and its version, unless they are on record."""
    for key, value in {"layout": _LAYOUT, "schema_version": SCHEMA_VERSION}.items():
        if txn.get(keys.META, key.encode()) is None:
            txn.put(keys.META, key.encode(), msgspec.json.encode(value))


def write_exchange(txn: WriteTransaction, exchange: str | None) -> None:
    """Record whose data it is, unless that is on record."""
    if exchange is not None and txn.get(keys.META, b"exchange") is None:
        txn.put(keys.META, b"exchange", msgspec.json.encode(exchange))


def record_write(
    txn: WriteTransaction, series: StoredSeries[Any], source: Source, interval_ms: Millis | None
) -> None:
    """Bring a series' record and gap ledger up to date after its rows were written."""
    times = record_ranges.times(txn, series)
    before = _record(txn, series)
    record = SeriesRecord(
        len(times),
        int(times[0]),
        int(times[-1]),
        _coarser(interval_ms, before.interval_ms if before else None),
        _with_source(before.sources if before else (), source),
    )
    txn.put(keys.META, f"series:{series}".encode(), msgspec.json.encode(record))
    if series.timeframe is not None:
        gaps = gaps_between(times, series.timeframe)
        txn.put(keys.META, f"gaps:{series}".encode(), msgspec.json.encode(gaps))


def _coarser(a: Millis | None, b: Millis | None) -> Millis | None:
    """Of two distances between samples the longer: the older samples must stay fresh enough."""
    return max(a, b) if a and b else a or b


def ledger(txn: ReadTransaction, series: StoredSeries[Any]) -> list[Gap]:
    """The recorded gaps of a candle series; found from its keys where none are recorded."""
    recorded = _remembered(txn, f"gaps:{series}", list[Gap])
    return _gaps(series, record_ranges.times(txn, series)) if recorded is None else recorded


def provenance(txn: ReadTransaction, series: StoredSeries[Any]) -> list[Source]:
    record = _record(txn, series)
    return list(record.sources) if record else []


def sample_interval_ms(txn: ReadTransaction, series: StoredSeries[Any]) -> Millis:
    """As recorded, else the median distance of the samples, else one hour."""
    record = _record(txn, series)
    if record is not None and record.interval_ms:
        return record.interval_ms
    return sampling_interval_ms(record_ranges.times(txn, series)) or HOUR_MS


def describe(txn: ReadTransaction, path: str) -> StoreInfo:
    databases = record_ranges.series_databases(txn)
    stored = [(d, symbol) for d in databases for symbol in record_ranges.symbols(txn, d)]
    return StoreInfo(
        path,
        check_exchange(txn, None),
        check_version(txn),
        [_series_info(txn, series_in(database, symbol)) for database, symbol in stored],
    )


def _series_info(txn: ReadTransaction, series: StoredSeries[Any]) -> SeriesInfo:
    times = record_ranges.times(txn, series)
    first_ms, last_ms = int(times[0]), int(times[-1])
    gaps = _gaps(series, times)
    return SeriesInfo(
        "candles" if series.timeframe else series.database,
        series.symbol,
        str(series.timeframe) if series.timeframe else None,
        len(times),
        iso8601(first_ms),
        iso8601(last_ms),
        first_ms,
        last_ms,
        sum(gap.missing for gap in gaps),
        [GapInfo(iso8601(g.start_ms), iso8601(g.end_ms), *g) for g in gaps],
        provenance(txn, series),
    )


def _gaps(series: StoredSeries[Any], times: Times) -> list[Gap]:
    return gaps_between(times, series.timeframe) if series.timeframe else []


def _record(txn: ReadTransaction, series: StoredSeries[Any]) -> SeriesRecord | None:
    return _remembered(txn, f"series:{series}", SeriesRecord)


def _with_source(sources: Sequence[Source], new: Source) -> tuple[Source, ...]:
    """One entry per description, in the order of their last write."""
    known = {source.source: source for source in sources}
    earlier = known.pop(new.source, None)
    if earlier is not None:
        new = Source(
            new.source,
            min(earlier.first_ms, new.first_ms),
            max(earlier.last_ms, new.last_ms),
            earlier.rows + new.rows,
            new.written_at_ms,
        )
    return (*known.values(), new)


def _remembered(txn: ReadTransaction, key: str, kind: type[T]) -> T | None:
    stored = txn.get(keys.META, key.encode())
    if stored is None:
        return None
    try:
        return msgspec.json.decode(stored, type=kind)
    except msgspec.MsgspecError as error:
        raise StoreError(f"damaged record {key!r} in {keys.META}: {error}") from error
