"""The default index: durable in LMDB, searched exactly on arrays in memory.

Points of a symbol lie in memory in the order of time, so that a query's window is a slice and a
search is one matrix-vector product. A change log in the store tells readers in other processes
which points are new; they take them over before their next answer, without a restart. A folder
that was replaced, by a rebuild or a restore, is loaded anew within a second.

    points  SYMBOL:timestamp_ms -> record: columns as float64, vectors as float32, run as uint32
    log     sequence number     -> SYMBOL:timestamps of the points written by one transaction, or
                                   -SYMBOL:timestamps of those that it removed
    runs    run number          -> IngestionRun as JSON
    meta    collection, columns -> JSON; checksum -> the CRC-32 of both
            data_mark:SYMBOL    -> DataMark as JSON

All records but the collection's end with the CRC-32 of their key and content. All that is loaded
is compared with it: an index that was damaged on disk is refused, never answered from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Final
from zlib import crc32

import msgspec
import numpy as np

from llm_trader.arrays import Times
from llm_trader.errors import (
    ConfigurationError,
    DamagedIndexError,
    LlmTraderError,
    OutdatedIndexError,
    SymbolNotFoundError,
    VectorIndexError,
)
from llm_trader.index.asof import Window
from llm_trader.index.memory import SymbolArrays
from llm_trader.index.point_times import PointTimes
from llm_trader.index.points import COLUMNS, STATE, TEXT, PointTable
from llm_trader.index.protocol import (
    REBUILD,
    Collection,
    Hits,
    IndexInfo,
    IngestionRun,
    SearchQuery,
    SymbolPoints,
)
from llm_trader.market.series_changes import DataMark
from llm_trader.snapshot.model import OPTIONAL
from llm_trader.storage.environment import (
    DATA_FILE,
    LOCK_FILE,
    Environment,
    ReadTransaction,
    StoreFormat,
    Version,
    WriteTransaction,
)
from llm_trader.storage.writer_lock import WriterLock

SCHEMA_VERSION: Final = 3

_POINTS, _LOG, _RUNS, _META = "points", "log", "runs", "meta"
_DATABASES: Final = frozenset((_POINTS, _LOG, _RUNS, _META))
_COLLECTION_KEY: Final = b"collection"
_COLUMNS_KEY: Final = b"columns"
_CHECKSUM_KEY: Final = b"checksum"
_CHECKSUM_BYTES: Final = 4
_REMOVED: Final = "-"  # begins no symbol
# The CRC-32 of anything that is followed by its own CRC-32.
_RESIDUE: Final = crc32(crc32(b"").to_bytes(_CHECKSUM_BYTES, "little"))

_VECTOR_FIELDS: Final = {STATE: "vector", TEXT: "text_vector"}

_ANOTHER_FOLDER: Final = "ingest into a new folder with: rag-ingest --index NEW_FOLDER"
FORMAT: Final = StoreFormat(
    name="index",
    error=VectorIndexError,
    damaged_error=DamagedIndexError,
    create="make one with: rag-ingest --index {path}",
    rebuild=f"build it again with: {REBUILD}, restore a backup, or {_ANOTHER_FOLDER}",
    is_database=lambda name: name in _DATABASES,
    max_databases=len(_DATABASES),
    map_size_setting="index.map_size_mib",
)


class EmbeddedIndex(AbstractContextManager["EmbeddedIndex"]):
    """One index folder, opened once per process. One process writes, any number read."""

    def __init__(self, environment: Environment, lock: WriterLock | None) -> None:
        self._environment = environment
        self._path = environment.folder
        self.location = str(environment.folder)
        self._lock = lock
        with environment.read() as txn:
            self.collection = _stored_collection(txn, self._path)
        self._record = _record_type(self.collection)
        # A writer reads points into memory only when it is asked for them; 100 symbols of 90 days
        # would be 700 MB.
        self._has_points = lock is None
        self._symbols: dict[str, SymbolArrays] = {}
        self._times = PointTimes()
        self._loaded: Version = (-1, -1)
        self._next_log = 0
        self._take_over_changes()

    @classmethod
    def open(cls, path: Path, *, immutable: bool = False) -> EmbeddedIndex:
        """Open for reading. Raises `VectorIndexError` where there is no readable index."""
        environment = Environment(path, FORMAT, immutable=immutable)
        try:
            return cls(environment, None)
        except BaseException:
            environment.close()
            raise

    @classmethod
    def create_or_open(
        cls, path: Path, collection: Collection, *, map_size_bytes: int | None = None
    ) -> EmbeddedIndex:
        """Open for writing, creating the index where there is none or it holds nothing.

        Raises `StoreLockedError` while another process writes, and `ConfigurationError` when
        the index holds points of another collection.
        """
        with ExitStack() as undo:
            lock = WriterLock(path)
            undo.callback(lock.release)
            index = cls._open_locked(path, collection, lock, map_size_bytes)
            if index.collection.differences(collection) and not index._times.symbols:
                # An ingestion that added nothing, from the store of another exchange, say.
                index._environment.close()
                for name in (DATA_FILE, LOCK_FILE):
                    (path / name).unlink(missing_ok=True)
                index = cls._open_locked(path, collection, lock, map_size_bytes)
            undo.callback(index._environment.close)
            if differences := index.collection.differences(collection):
                raise ConfigurationError(
                    f"the index at {path} holds other points: {'; '.join(differences)}; use "
                    "the settings it was made with (--text if it has text vectors), or "
                    f"{_ANOTHER_FOLDER}"
                )
            undo.pop_all()
        return index

    @classmethod
    def _open_locked(
        cls, path: Path, collection: Collection, lock: WriterLock, map_size_bytes: int | None
    ) -> EmbeddedIndex:
        environment = Environment(path, FORMAT, write=True, map_size_bytes=map_size_bytes)
        try:
            _write_collection(environment, collection)
            return cls(environment, lock)
        except BaseException:
            environment.close()
            raise

    def close(self) -> None:
        """Release the folder. Closing twice does nothing."""
        self._environment.close()
        if self._lock:
            self._lock.release()
            self._lock = None

    def __exit__(self, *raised: object) -> None:
        self.close()

    async def search(self, query: SearchQuery) -> Hits:
        self.collection.check_searchable(query.name)
        return self._arrays(query.symbol).search(query)

    async def search_many(self, queries: Sequence[SearchQuery]) -> list[Hits]:
        self.collection.check_searchable(queries[0].name)
        return self._arrays(queries[0].symbol).search_many(queries)

    async def scan(self, symbol: str, window: Window, vectors: Iterable[str] = ()) -> PointTable:
        return self._arrays(symbol).scan(window)

    async def fetch(
        self, symbol: str, timestamp_ms: Times, vectors: Iterable[str] = ()
    ) -> PointTable:
        return self._arrays(symbol).fetch(timestamp_ms)

    async def timestamps(self, symbol: str) -> Times:
        self._take_over_changes()
        if not self._has_points:
            return self._times.of(symbol)
        arrays = self._symbols.get(symbol)
        return arrays.table.timestamp_ms if arrays else np.empty(0, np.int64)

    async def begin_run(self, build_id: str, exchange: str | None, started_at: str) -> int:
        with self._write(_RUNS) as txn:
            number = txn.count(_RUNS) + 1
            run = IngestionRun(number, build_id, exchange, started_at)
            key = number.to_bytes(8)
            txn.put(_RUNS, key, _sealed(key, msgspec.json.encode(run)))
        return number

    async def upsert(self, points: PointTable) -> int:
        self.collection.check_vectors(points.vectors)
        if not len(points):
            return 0
        records = np.zeros(len(points), self._record)
        records["values"], records["run"] = points.values.T, points.run
        for name, vectors in points.vectors.items():
            records[_VECTOR_FIELDS[name]] = vectors
        keys = [_point_key(points.symbol, t) for t in points.timestamp_ms.tolist()]
        contents = (record.tobytes()[:-_CHECKSUM_BYTES] for record in records)
        sealed = [(key, _sealed(key, content)) for key, content in zip(keys, contents, strict=True)]
        with self._write(_POINTS, _LOG) as txn:
            count_before = txn.count(_POINTS)
            txn.put_many(_POINTS, sealed)
            self._log(txn, points.symbol, points.timestamp_ms)
            return txn.count(_POINTS) - count_before

    async def remove(self, symbol: str, timestamp_ms: Times) -> int:
        with self._write(_POINTS, _LOG) as txn:
            stored = [
                stamp
                for stamp in timestamp_ms.tolist()
                if txn.get(_POINTS, _point_key(symbol, stamp)) is not None
            ]
            if not stored:
                return 0
            for stamp in stored:
                txn.delete(_POINTS, _point_key(symbol, stamp))
            self._log(txn, _REMOVED + symbol, np.array(stored))
        return len(stored)

    async def data_mark(self, symbol: str) -> DataMark | None:
        key = _mark_key(symbol)
        with self._environment.read() as txn:
            record = txn.get(_META, key)
        if record is None:
            return None
        return msgspec.json.decode(self._content(_META, key, record), type=DataMark)

    async def set_data_mark(self, symbol: str, mark: DataMark) -> None:
        key = _mark_key(symbol)
        with self._write() as txn:
            txn.put(_META, key, _sealed(key, msgspec.json.encode(mark)))

    async def info(self) -> IndexInfo:
        self._take_over_points()
        symbols = [
            _extent(arrays.table)
            for _, arrays in sorted(self._symbols.items())
            if len(arrays.table)
        ]
        with self._environment.read() as txn:
            runs = [
                msgspec.json.decode(self._content(_RUNS, key, record), type=IngestionRun)
                for key, record in txn.cursor(_RUNS) or ()
            ]
        return IndexInfo(
            backend="embedded",
            location=self.location,
            collection=self.collection,
            symbols=symbols,
            runs=runs,
            size_bytes=self._file_bytes(),
        )

    def _file_bytes(self) -> int | None:
        """The size of the file; None while a rebuild swaps it."""
        try:
            return (self._path / DATA_FILE).stat().st_size
        except OSError:
            return None

    def follow(self) -> None:
        """Take over what was written since, or another file in the place of this one.

        Every answer does so first. Raises `VectorIndexError` where there is none to answer from.
        """
        self._take_over_changes()

    def page_problems(self) -> list[str]:
        """What a walk through all pages of the file finds wrong; opening has compared the rest."""
        return self._environment.page_problems()

    def copy_to(self, folder: Path) -> None:
        """Write a compacted copy of one moment into an empty folder, whoever writes meanwhile."""
        self._environment.copy_to(folder)

    def _arrays(self, symbol: str) -> SymbolArrays:
        self._take_over_points()
        try:
            return self._symbols[symbol]
        except KeyError:
            raise SymbolNotFoundError(symbol, sorted(self._symbols)) from None

    @contextmanager
    def _write(self, *databases: str) -> Iterator[WriteTransaction]:
        if not self._environment.writable:
            raise ConfigurationError(
                f"the index at {self._path} was opened for reading only; open it for writing"
            )
        # A write transaction sees only the databases that it names; the check reads `meta`.
        with self._environment.write(_META, *databases) as txn:
            self._check_generation(txn)
            yield txn

    def _table_of(self, symbol: str, keys: list[bytes], records: list[bytes]) -> PointTable:
        for key, record in zip(keys, records, strict=True):
            if crc32(record, crc32(key)) != _RESIDUE:
                raise self._damaged(_POINTS, key)
        content = b"".join(records)
        start = len(symbol) + 1
        timestamps = np.array([int(key[start:]) for key in keys], np.int64)
        if len(content) != len(timestamps) * self._record.itemsize:
            raise self._damaged(_POINTS, keys[0])
        rows = np.frombuffer(content, self._record)
        values = np.ascontiguousarray(rows["values"].T)
        vectors = {name: rows[_VECTOR_FIELDS[name]].copy() for name in self.collection.dimensions}
        return PointTable(symbol, timestamps, values, vectors, rows["run"].copy())

    def _take_over_points(self) -> None:
        if not self._has_points:
            self._has_points, self._times, self._loaded = True, PointTimes(), (-1, -1)
        self._take_over_changes()

    def _take_over_changes(self) -> None:
        """Bring the arrays up to the newest transaction; cheap when nothing was written."""
        if self._environment.version == self._loaded:
            return
        with self._environment.read() as txn:
            if not self._check_generation(txn):
                self._load_all(txn) if self._has_points else self._load_times(txn)
            elif self._has_points:
                self._load_logged(txn)
            else:
                self._load_logged_times(txn)
            self._loaded, self._next_log = txn.version, txn.count(_LOG)

    def _check_generation(self, txn: ReadTransaction) -> bool:
        """Whether the transaction is of the file that was loaded.

        Raises `VectorIndexError` where another file has taken its place and holds other points.
        """
        if txn.version[0] == self._loaded[0]:
            return True
        differences = _stored_collection(txn, self._path).differences(self.collection)
        if differences:
            raise VectorIndexError(
                f"the index at {self._path} was rebuilt with other features "
                f"({'; '.join(differences)}); restart the server"
            )
        return False

    def _load_times(self, txn: ReadTransaction) -> None:
        times: dict[bytes, list[int]] = {}
        for key, record in txn.cursor(_POINTS) or ():
            if crc32(record, crc32(key)) != _RESIDUE:
                raise self._damaged(_POINTS, key)
            name, _, stamp = key.partition(b":")
            times.setdefault(name, []).append(int(stamp))
        self._times = PointTimes(
            {name.decode("ascii", "replace"): np.array(own) for name, own in times.items()}
        )
        self._environment.release_pages()

    def _load_logged_times(self, txn: ReadTransaction) -> None:
        for number in range(self._next_log, txn.count(_LOG)):
            name, times = self._log_entry(txn, number)
            if name.startswith(_REMOVED):
                self._times.remove(name.removeprefix(_REMOVED), times)
            else:
                self._times.add(name, times)

    def _load_all(self, txn: ReadTransaction) -> None:
        self._symbols = {}  # first, or the memory would have to hold the index twice
        keys: dict[bytes, list[bytes]] = {}
        records: dict[bytes, list[bytes]] = {}
        for key, record in txn.cursor(_POINTS) or ():
            name = key.partition(b":")[0]
            keys.setdefault(name, []).append(key)
            records.setdefault(name, []).append(record)
        for name, own_keys in keys.items():
            symbol = name.decode("ascii", "replace")
            table = self._table_of(symbol, own_keys, records.pop(name))
            if (np.diff(table.timestamp_ms) <= 0).any():
                raise self._damaged(_POINTS, own_keys[0])
            self._symbols[symbol] = SymbolArrays(table)

    def _log(self, txn: WriteTransaction, name: str, timestamp_ms: Times) -> None:
        """Readers follow the log; looking for new keys would mean scanning all points."""
        number = txn.count(_LOG).to_bytes(8)
        entry = name.encode() + b":" + timestamp_ms.astype("<i8").tobytes()
        txn.put(_LOG, number, _sealed(number, entry))

    def _load_logged(self, txn: ReadTransaction) -> None:
        numbers = range(self._next_log, txn.count(_LOG))
        entries = [self._log_entry(txn, number) for number in numbers]
        for number, (name, times) in enumerate(entries):
            symbol = name.removeprefix(_REMOVED)
            if name.startswith(_REMOVED):
                self._drop(symbol, times)
                continue
            later = entries[number + 1 :]
            removed = [stamps for other, stamps in later if other == _REMOVED + symbol]
            if removed:  # what is stored now, a later entry has written
                times = times[~np.isin(times, np.concatenate(removed))]
            if not len(times):
                continue
            keys = [_point_key(symbol, t) for t in times.tolist()]
            table = self._table_of(symbol, keys, [self._stored(txn, _POINTS, key) for key in keys])
            if symbol in self._symbols:
                self._symbols[symbol].merge(table)
            else:
                self._symbols[symbol] = SymbolArrays(table)

    def _log_entry(self, txn: ReadTransaction, number: int) -> tuple[str, Times]:
        """The name of the symbol, after `_REMOVED` if points were removed, and their times."""
        key = number.to_bytes(8)
        entry = self._content(_LOG, key, self._stored(txn, _LOG, key))
        name, _, packed = entry.partition(b":")
        return name.decode(), np.frombuffer(packed, "<i8")

    def _drop(self, symbol: str, timestamp_ms: Times) -> None:
        arrays = self._symbols.get(symbol)
        if arrays is not None:
            arrays.remove(timestamp_ms)
            if not len(arrays.table):
                del self._symbols[symbol]

    def _stored(self, txn: ReadTransaction, database: str, key: bytes) -> bytes:
        record = txn.get(database, key)
        if record is None:
            raise self._damaged(database, key)
        return record

    def _content(self, database: str, key: bytes, record: bytes) -> bytes:
        if crc32(record, crc32(key)) != _RESIDUE:
            raise self._damaged(database, key)
        return record[:-_CHECKSUM_BYTES]

    def _damaged(self, database: str, key: bytes) -> LlmTraderError:
        name = key.decode() if database == _POINTS and key.isascii() else key.hex()
        return FORMAT.damaged(self._path, f"record {name!r} of {database} is not as it was written")


def _extent(points: PointTable) -> SymbolPoints:
    kinds, times = points.lacking(), points.timestamp_ms
    without = (int(np.count_nonzero(kinds >> bit & 1)) for bit in range(len(OPTIONAL)))
    return SymbolPoints(points.symbol, len(points), int(times[0]), int(times[-1]), *without)


def _stored_collection(txn: ReadTransaction, path: Path) -> Collection:
    stored, columns = txn.get(_META, _COLLECTION_KEY), txn.get(_META, _COLUMNS_KEY)
    if stored is None or columns is None:
        raise _no_index(path)
    try:
        collection = msgspec.json.decode(stored, type=Collection)
        same_columns = tuple(msgspec.json.decode(columns, type=list[str])) == COLUMNS
    except msgspec.MsgspecError as error:
        raise FORMAT.damaged(path, f"its description cannot be read: {error}") from error
    if collection.schema_version != SCHEMA_VERSION or not same_columns:
        raise OutdatedIndexError(
            f"the index at {path} was written by another version (schema "
            f"{collection.schema_version}, this one knows {SCHEMA_VERSION}); build it again with: "
            f"{REBUILD}"
        )
    if (checksum := txn.get(_META, _CHECKSUM_KEY)) is None:
        raise OutdatedIndexError(
            f"the index at {path} was written by another version, which kept no checksums; build "
            f"it again with: {REBUILD}"
        )
    if checksum != _meta_checksum(stored, columns):
        raise FORMAT.damaged(path, "its description is not as it was written")
    return collection


def _meta_checksum(collection: bytes, columns: bytes) -> bytes:
    return crc32(columns, crc32(collection)).to_bytes(_CHECKSUM_BYTES, "little")


def _sealed(key: bytes, content: bytes) -> bytes:
    """The content followed by the checksum of key and content."""
    return content + crc32(content, crc32(key)).to_bytes(_CHECKSUM_BYTES, "little")


def _no_index(path: Path) -> VectorIndexError:
    return VectorIndexError(f"{path} holds no index; {_ANOTHER_FOLDER}")


def _write_collection(environment: Environment, collection: Collection) -> None:
    """Describes a new index; refuses a folder that something else was written to."""
    with environment.read() as txn:
        if txn.get(_META, _COLLECTION_KEY) is not None:
            return
        if txn.root_keys() - {_META} or txn.count(_META):
            raise _no_index(environment.folder)
    with environment.write(_META) as write_txn:
        stored, columns = msgspec.json.encode(collection), msgspec.json.encode(COLUMNS)
        write_txn.put(_META, _COLLECTION_KEY, stored)
        write_txn.put(_META, _COLUMNS_KEY, columns)
        write_txn.put(_META, _CHECKSUM_KEY, _meta_checksum(stored, columns))


def _record_type(collection: Collection) -> np.dtype[np.void]:
    vectors = [
        (_VECTOR_FIELDS[name], "<f4", (size,)) for name, size in collection.dimensions.items()
    ]
    # The order of stored indexes: the run follows the state vector.
    columns = ("values", "<f8", (len(COLUMNS),))
    checksum = ("checksum", "<u4")
    return np.dtype([columns, vectors[0], ("run", "<u4"), *vectors[1:], checksum])


def _mark_key(symbol: str) -> bytes:
    return b"data_mark:" + symbol.encode()


def _point_key(symbol: str, timestamp_ms: int) -> bytes:
    return f"{symbol}:{timestamp_ms}".encode()
