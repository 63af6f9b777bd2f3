"""The market store: candles, funding and open interest of one exchange in one LMDB environment.

One process writes, any number read. Every read is one LMDB transaction: it sees one state of the
store, and the next read sees what a writer has committed since. LMDB allows one open environment
per path and process, and it must be opened after any fork.

Stores of the original `llm-trader-data` have the same keys and values but no `meta` database;
they read like any other, with unknown exchange and provenance.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import lmdb

from llm_trader.arrays import Floats, Times
from llm_trader.errors import StoreError
from llm_trader.market import catalog, keys
from llm_trader.market.candles import CandleSeries, Gap
from llm_trader.market.catalog import Source, StoreInfo
from llm_trader.market.history import MarketHistory
from llm_trader.market.reading import Snapshot
from llm_trader.market.records import WriteReport
from llm_trader.market.samples import FundingSeries, OpenInterestSeries
from llm_trader.market.stored_series import (
    SeriesT,
    StoredSeries,
    candles_of,
    funding_of,
    open_interest_of,
)
from llm_trader.market.writer_lock import WriterLock
from llm_trader.timeframe import H4, Millis, Timeframe

MAP_SIZE_BYTES: Final = 16 * 2**30  # sparse: only what is written takes space
_MAX_DATABASES: Final = 128
_MAX_READERS: Final = 1024

# What to do about LMDB's errors; the others carry a message that says enough.
REMEDIES: Final[Mapping[type[lmdb.Error], str]] = {
    lmdb.MapFullError: f"the store has reached {MAP_SIZE_BYTES >> 30} GiB; split its symbols",
    lmdb.MapResizedError: "another program enlarged the store; open it again",
    lmdb.ReadersFullError: f"{_MAX_READERS} readers are at work already; stop some",
    lmdb.InvalidError: "it is no LMDB store; import the data into a new folder",
    lmdb.CorruptedError: "it is damaged; import the data into a new folder",
    lmdb.PageNotFoundError: "it is damaged; import the data into a new folder",
    lmdb.VersionMismatchError: "another version of LMDB wrote it; import the data anew",
}


class MarketStore(AbstractContextManager["MarketStore"]):
    """One exchange's series. Open with `MarketStore.open`; a context manager.

    Symbols are 2 to 20 capital letters and digits (`InvalidInputError` otherwise). Ranges are
    half-open in the candle's open time or the sample's time, `None` leaving a side open; a
    series that is not there reads as empty. Reads check every value and raise `StoreError`
    naming the database and the key of the first damaged one.
    """

    def __init__(
        self, path: Path, environment: Any, lock: WriterLock | None, claimed: str | None
    ) -> None:
        self.path = path
        self._environment = environment
        self._lock = lock
        self._claimed = claimed if lock is not None else None
        self._databases: dict[str, Any] = {}
        # The databases that the transaction of this id can see: listing them anew costs more
        # than a read.
        self._visible: tuple[int, Mapping[str, Any]] = (-1, {})
        self._opening = threading.Lock()

    @classmethod
    def open(cls, path: Path, *, write: bool = False, exchange: str | None = None) -> MarketStore:
        """Open the folder `path`; for writing it is created where missing.

        Raises `StoreError` where there is no store to read, the store is of a newer version, or
        this process has it open already; `StoreLockedError` with the writer's process id when
        another process writes; `ConfigurationError` when the store is another exchange's.
        """
        if exchange is not None:
            keys.checked_exchange(exchange)
        with ExitStack() as undo:
            lock = WriterLock(path) if write else None
            if lock is not None:
                undo.callback(lock.release)
            environment = _open_environment(path, write)
            undo.callback(environment.close)
            store = cls(path, environment, lock, exchange)
            store._identify(exchange)
            undo.pop_all()
        return store

    def close(self) -> None:
        """Let go of the folder. Closing twice does nothing."""
        self._environment.close()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __exit__(self, *raised: object) -> None:
        self.close()

    @property
    def exchange(self) -> str | None:
        """As recorded, else as said when opening for writing; `None` where neither was."""
        with self._reading() as snapshot:
            return catalog.check_exchange(snapshot, None) or self._claimed

    @property
    def version(self) -> int:
        """Grows with every commit of any process: equal versions mean equal content."""
        with _lmdb_errors(self.path):
            return int(self._environment.info()["last_txnid"])

    def symbols(self) -> list[str]:
        with self._reading() as snapshot:
            return sorted({s for name in snapshot.databases() for s in snapshot.symbols(name)})

    def timeframes(self, symbol: str) -> list[Timeframe]:
        """The candles stored for a symbol, finest first."""
        keys.checked_symbol(symbol)
        with self._reading() as snapshot:
            stored = [name for name in snapshot.databases() if snapshot.has(name, symbol)]
        return sorted(t for name in stored if (t := keys.timeframe_of(name)))

    def first_and_last_ms(self, symbol: str, timeframe: Timeframe) -> tuple[Millis, Millis] | None:
        """The open times of the oldest and the newest candle, by a few seeks."""
        series = candles_of(symbol, timeframe)
        with self._reading() as snapshot:
            first = snapshot.first_key(series.database, symbol)
            last = snapshot.last_key(series.database, symbol)
        if first is None or last is None:
            return None
        first_ms, last_ms = series.times([first, last]).tolist()
        return first_ms, last_ms

    def newest_close_ms(self, symbol: str, timeframe: Timeframe, as_of_ms: Millis) -> Millis | None:
        """When the last candle closed that was known at a time, by one seek."""
        series = candles_of(symbol, timeframe)
        with self._reading() as snapshot:
            key = snapshot.last_key(series.database, symbol, as_of_ms - timeframe.ms + 1)
        return None if key is None else int(series.times([key])[0]) + timeframe.ms

    def gaps(self, symbol: str, timeframe: Timeframe) -> list[Gap]:
        """The gap ledger of a candle series; found from its keys where none was kept."""
        with self._reading() as snapshot:
            return catalog.ledger(snapshot, candles_of(symbol, timeframe))

    def provenance(self, symbol: str, timeframe: Timeframe) -> list[Source]:
        """Where a candle series is from; empty where nothing was recorded."""
        with self._reading() as snapshot:
            return catalog.provenance(snapshot, candles_of(symbol, timeframe))

    def describe(self) -> StoreInfo:
        """Every series with extent, gaps and provenance; scans the keys, not the values."""
        with self._reading() as snapshot:
            return catalog.describe(snapshot, str(self.path))

    def copy_to(self, folder: Path) -> None:
        """Write a compacted copy of one moment into an empty folder, whoever writes meanwhile."""
        with _lmdb_errors(self.path):
            self._environment.copy(str(folder), compact=True)

    def candles(
        self,
        symbol: str,
        timeframe: Timeframe,
        start_ms: Millis | None = None,
        end_ms: Millis | None = None,
    ) -> CandleSeries:
        return self._read(candles_of(symbol, timeframe), start_ms, end_ms)

    def funding(
        self, symbol: str, start_ms: Millis | None = None, end_ms: Millis | None = None
    ) -> FundingSeries:
        return self._read(funding_of(symbol), start_ms, end_ms)

    def open_interest(
        self, symbol: str, start_ms: Millis | None = None, end_ms: Millis | None = None
    ) -> OpenInterestSeries:
        return self._read(open_interest_of(symbol), start_ms, end_ms)

    def open_interest_interval_ms(self, symbol: str) -> Millis:
        """How far apart samples are: as recorded, else the median distance, else one hour."""
        with self._reading() as snapshot:
            return catalog.sample_interval_ms(snapshot, open_interest_of(symbol))

    def history(
        self,
        symbol: str,
        intraday: Timeframe,
        start_ms: Millis | None = None,
        end_ms: Millis | None = None,
        *,
        four_hour_start_ms: Millis | None = None,
    ) -> MarketHistory:
        """All four series of a symbol, from one state of the store.

        4h candles may start earlier than the rest: indicators on them need a longer past.
        """
        fine, coarse = candles_of(symbol, intraday), candles_of(symbol, H4)
        funding, interest = funding_of(symbol), open_interest_of(symbol)
        with self._reading() as snapshot:
            early = start_ms if four_hour_start_ms is None else four_hour_start_ms
            found = [
                snapshot.items(series, early if series is coarse else start_ms, end_ms)
                for series in (fine, coarse, funding, interest)
            ]
            interval_ms = catalog.sample_interval_ms(snapshot, interest)
        return MarketHistory(
            symbol,
            fine.read(found[0]),
            coarse.read(found[1]),
            funding.read(found[2]),
            interest.read(found[3]),
            interval_ms,
        )

    def write_candles(
        self, symbol: str, series: CandleSeries, source: str, *, written_at_ms: Millis
    ) -> WriteReport:
        """Add candles, replacing those of the same open time, in one transaction.

        `source` says for the provenance where they are from. Raises `InvalidDataError` when any
        candle is refused; then nothing is written. Writing the same again changes nothing.
        """
        place = candles_of(symbol, series.timeframe)
        columns = dict(series.columns())
        return self._write(place, series.open_time_ms, columns, source, written_at_ms)

    def write_funding(
        self, symbol: str, series: FundingSeries, source: str, *, written_at_ms: Millis
    ) -> WriteReport:
        """Like `write_candles`."""
        columns = {"rate": series.rate, "interval_hours": series.interval_hours}
        return self._write(funding_of(symbol), series.time_ms, columns, source, written_at_ms)

    def write_open_interest(
        self,
        symbol: str,
        series: OpenInterestSeries,
        source: str,
        *,
        written_at_ms: Millis,
        interval_ms: Millis | None = None,
    ) -> WriteReport:
        """Like `write_candles`; `interval_ms` records how far apart samples are, where known."""
        columns = {
            "open_interest": series.open_interest,
            "open_interest_value": series.open_interest_value,
        }
        place = open_interest_of(symbol)
        return self._write(place, series.time_ms, columns, source, written_at_ms, interval_ms)

    def _read(
        self, series: StoredSeries[SeriesT], start_ms: Millis | None, end_ms: Millis | None
    ) -> SeriesT:
        with self._reading() as snapshot:
            items = snapshot.items(series, start_ms, end_ms)
        return series.read(items)

    def _write(
        self,
        series: StoredSeries[Any],
        times: Times,
        columns: Mapping[str, Floats],
        source: str,
        written_at_ms: Millis,
        interval_ms: Millis | None = None,
    ) -> WriteReport:
        series.build(times, columns)
        if not len(times):
            return WriteReport()
        new = series.encode(times, columns)
        first_ms, last_ms = int(times[0]), int(times[-1])
        with self._writing(series.database) as snapshot:
            stored = snapshot.items(series, first_ms, last_ms + 1)
            changes, report = series.changes(stored, new)
            if changes:
                # With the first series: a mistaken import must not claim the folder.
                catalog.write_exchange(snapshot, self._claimed)
                snapshot.put(series.database, changes)
                origin = Source(source, first_ms, last_ms, len(changes), written_at_ms)
                catalog.record_write(snapshot, series, origin, interval_ms)
        return report

    def _identify(self, exchange: str | None) -> None:
        """Refuse what is not a store of ours; when writing, record what it is."""
        with self._reading() as snapshot:
            blank = self._lock is not None and snapshot.is_blank()
            if not blank and not catalog.is_market_store(snapshot):
                raise _no_store(self.path)
            catalog.check_version(snapshot)
            catalog.check_exchange(snapshot, exchange)
        if self._lock is not None:
            with self._writing(keys.META) as snapshot:
                catalog.write_identity(snapshot)

    @contextmanager
    def _reading(self) -> Iterator[Snapshot]:
        """A read transaction for which every database it can see is open.

        LMDB lets a transaction use only databases opened before it began. Where a writer has
        added one meanwhile, it is opened, and the transaction begun again.
        """
        with _lmdb_errors(self.path):
            while True:
                with self._environment.begin() as txn:
                    if txn.id() == self._visible[0]:
                        yield Snapshot(txn, self._visible[1])
                        return
                    names = _series_databases(txn)
                    if names <= self._databases.keys():
                        databases = {name: self._databases[name] for name in names}
                        self._visible = (txn.id(), databases)
                        yield Snapshot(txn, databases)
                        return
                self._open_databases(names, create=False)

    @contextmanager
    def _writing(self, database: str) -> Iterator[Snapshot]:
        """A write transaction, committed unless the block raises; creates `database`."""
        if self._lock is None:
            raise StoreError(f"{self.path} was opened for reading; open it with write=True")
        with _lmdb_errors(self.path):
            self._open_databases({keys.META, database}, create=True)
            with self._environment.begin(write=True) as txn:
                yield Snapshot(txn, self._databases)

    def _open_databases(self, names: set[str], *, create: bool) -> None:
        with self._opening:
            for name in names - self._databases.keys():
                self._databases[name] = self._environment.open_db(name.encode(), create=create)


@contextmanager
def _lmdb_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except lmdb.Error as error:
        remedy = REMEDIES.get(type(error))
        told = str(error) if str(path) in str(error) else f"{path}: {error}"
        raise StoreError(f"{told}; {remedy}" if remedy else told) from error


def _open_environment(path: Path, write: bool) -> Any:
    if not write and not (path / "data.mdb").is_file():
        raise _no_store(path)
    with _lmdb_errors(path):
        environment = lmdb.open(
            str(path),
            map_size=MAP_SIZE_BYTES,
            max_dbs=_MAX_DATABASES,
            max_readers=_MAX_READERS,
            readonly=not write,
            create=write,
        )
        if write:
            environment.reader_check()  # frees the slots of readers that were killed
        return environment


def _series_databases(txn: Any) -> set[str]:
    names = (key.decode("utf-8", "replace") for key in txn.cursor().iternext(values=False))
    return {name for name in names if name == keys.META or keys.holds_series(name)}


def _no_store(path: Path) -> StoreError:
    return StoreError(
        f"no market store at {path}; create one with: llm-trader data import <folder>"
        f" --store {path}",
        path=str(path),
    )
