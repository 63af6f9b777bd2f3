"""The default index: durable in LMDB, searched exactly on arrays in memory.

Points of a symbol lie in memory in the order of time, so that a query's window is a slice and a
search is one matrix-vector product. A change log in the store tells readers in other processes
which points are new; they take them over before their next answer, without a restart.

    points  SYMBOL:timestamp_ms -> record: columns as float64, vectors as float32, run as uint32
    log     sequence number     -> SYMBOL:timestamps of the points written by one transaction
    runs    run number          -> IngestionRun as JSON
    meta    collection, columns -> JSON
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import lmdb
import msgspec
import numpy as np

from llm_trader.arrays import Times
from llm_trader.errors import ConfigurationError, SymbolNotFoundError, VectorIndexError
from llm_trader.index.asof import Window
from llm_trader.index.memory import SymbolArrays
from llm_trader.index.points import COLUMNS, STATE, TEXT, PointTable
from llm_trader.index.protocol import (
    Collection,
    Hits,
    IndexInfo,
    IngestionRun,
    SearchQuery,
    SymbolPoints,
)
from llm_trader.storage.writer_lock import WriterLock

SCHEMA_VERSION: Final = 1

_MAP_SIZE: Final = 16 << 30  # sparse: what is not used takes no room
_MAX_READERS: Final = 1024
_DATABASES: Final = ("points", "log", "runs", "meta")

_VECTOR_FIELDS: Final = {STATE: "vector", TEXT: "text_vector"}

_ANOTHER_FOLDER: Final = "ingest into a new folder with: rag-ingest --index NEW_FOLDER"
_REMEDIES: Final[Mapping[type[lmdb.Error], str]] = {
    lmdb.MapFullError: f"the index has reached {_MAP_SIZE >> 30} GiB; split its symbols",
    lmdb.ReadersFullError: f"{_MAX_READERS} readers are at work already; stop some",
    lmdb.InvalidError: _ANOTHER_FOLDER,
    lmdb.CorruptedError: _ANOTHER_FOLDER,
    lmdb.PageNotFoundError: _ANOTHER_FOLDER,
    lmdb.VersionMismatchError: _ANOTHER_FOLDER,
}


class EmbeddedIndex(AbstractContextManager["EmbeddedIndex"]):
    """One index folder, opened once per process. One process writes, any number read."""

    def __init__(self, path: Path, env: Any, lock: WriterLock | None) -> None:
        self._path = path
        self.location = str(path)
        self._env = env
        self._lock = lock
        self._db = {
            name: env.open_db(name.encode(), create=lock is not None) for name in _DATABASES
        }
        self._symbols: dict[str, SymbolArrays] = {}
        self._seen_txn = -1
        self._next_log = 0
        self.collection = self._read_collection()
        self._record = _record_type(self.collection)
        self._take_over_changes()

    @classmethod
    def open(cls, path: Path) -> EmbeddedIndex:
        """Open for reading. Raises `VectorIndexError` where there is no readable index."""
        if not (path / "data.mdb").exists():
            raise VectorIndexError(
                f"there is no index at {path}; make one with: rag-ingest --index {path}"
            )
        env = _open_environment(path, readonly=True)
        try:
            return cls(path, env, None)
        except lmdb.NotFoundError as error:
            env.close()
            raise _no_index(path) from error
        except BaseException:
            env.close()
            raise

    @classmethod
    def create_or_open(cls, path: Path, collection: Collection) -> EmbeddedIndex:
        """Open for writing, creating the index where there is none.

        Raises `StoreLockedError` while another process writes, and `ConfigurationError` when
        the index holds points of another collection.
        """
        with ExitStack() as undo:
            lock = WriterLock(path)
            undo.callback(lock.release)
            env = _open_environment(path, readonly=False)
            undo.callback(env.close)
            with _lmdb_errors(path):
                _write_collection(path, env, collection)
                index = cls(path, env, lock)
            _refuse_other(path, index.collection, collection)
            undo.pop_all()
        return index

    def close(self) -> None:
        """Let go of the folder. Closing twice does nothing."""
        self._env.close()
        if self._lock:
            self._lock.release()
            self._lock = None

    def __exit__(self, *raised: object) -> None:
        self.close()

    async def search(self, query: SearchQuery) -> Hits:
        self.collection.check_searchable(query.name)
        return self._arrays(query.symbol).search(query)

    async def scan(self, symbol: str, window: Window, vectors: Iterable[str] = ()) -> PointTable:
        return self._arrays(symbol).scan(window)

    async def fetch(
        self, symbol: str, timestamp_ms: Times, vectors: Iterable[str] = ()
    ) -> PointTable:
        return self._arrays(symbol).fetch(timestamp_ms)

    async def timestamps(self, symbol: str) -> Times:
        self._take_over_changes()
        arrays = self._symbols.get(symbol)
        return arrays.table().timestamp_ms if arrays else np.empty(0, np.int64)

    async def begin_run(self, build_id: str, exchange: str | None, started_at: str) -> int:
        with self._write() as txn:
            number = int(txn.stat(self._db["runs"])["entries"]) + 1
            run = IngestionRun(
                run=number, build_id=build_id, exchange=exchange, started_at=started_at
            )
            txn.put(_number_key(number), msgspec.json.encode(run), db=self._db["runs"])
        return number

    async def upsert(self, points: PointTable) -> int:
        self.collection.check_vectors(points.vectors)
        if not len(points):
            return 0
        records = self._record_of(points)
        keys = [_point_key(points.symbol, t) for t in points.timestamp_ms.tolist()]
        with self._write() as txn:
            cursor = txn.cursor(self._db["points"])
            before = txn.stat(self._db["points"])["entries"]
            cursor.putmulti(zip(keys, records, strict=True))
            added = txn.stat(self._db["points"])["entries"] - before
            log = self._db["log"]
            entry = points.symbol.encode() + b":" + points.timestamp_ms.astype("<i8").tobytes()
            txn.put(_number_key(int(txn.stat(log)["entries"])), entry, db=log)
        return int(added)

    async def info(self) -> IndexInfo:
        self._take_over_changes()
        tables = [arrays.table() for _, arrays in sorted(self._symbols.items())]
        with _lmdb_errors(self._path), self._env.begin(db=self._db["runs"]) as txn:
            runs = [msgspec.json.decode(value, type=IngestionRun) for _, value in txn.cursor()]
        return IndexInfo(
            backend="embedded",
            location=self.location,
            collection=self.collection,
            symbols=[
                SymbolPoints(
                    symbol=table.symbol,
                    points=len(table),
                    first_timestamp_ms=int(table.timestamp_ms[0]),
                    last_timestamp_ms=int(table.timestamp_ms[-1]),
                )
                for table in tables
            ],
            runs=runs,
        )

    def copy_to(self, folder: Path) -> None:
        """Write a compacted copy of one moment into an empty folder, whoever writes meanwhile."""
        with _lmdb_errors(self._path):
            self._env.copy(str(folder), compact=True)

    def _arrays(self, symbol: str) -> SymbolArrays:
        self._take_over_changes()
        try:
            return self._symbols[symbol]
        except KeyError:
            raise SymbolNotFoundError(symbol, sorted(self._symbols)) from None

    @contextmanager
    def _write(self) -> Iterator[Any]:
        if self._lock is None:
            raise ConfigurationError(f"the index at {self._path} was opened for reading only")
        with _lmdb_errors(self._path), self._env.begin(write=True) as txn:
            yield txn

    def _read_collection(self) -> Collection:
        with self._env.begin(db=self._db["meta"]) as txn:
            collection, columns = txn.get(b"collection"), txn.get(b"columns")
        if collection is None or columns is None:
            raise _no_index(self._path)
        found = msgspec.json.decode(collection, type=Collection)
        known = tuple(msgspec.json.decode(columns, type=list[str])) == COLUMNS
        if found.schema_version != SCHEMA_VERSION or not known:
            raise VectorIndexError(
                f"the index at {self._path} was written by another version "
                f"(schema {found.schema_version}, this one knows {SCHEMA_VERSION}); "
                f"{_ANOTHER_FOLDER}"
            )
        return found

    def _record_of(self, points: PointTable) -> list[bytes]:
        records = np.empty(len(points), self._record)
        records["values"] = points.values.T
        for name, vectors in points.vectors.items():
            records[_VECTOR_FIELDS[name]] = vectors
        records["run"] = points.run
        size, raw = self._record.itemsize, records.tobytes()
        return [raw[i : i + size] for i in range(0, len(raw), size)]

    def _table_of(self, symbol: str, timestamps: Times, records: list[bytes]) -> PointTable:
        try:
            rows = np.frombuffer(b"".join(records), self._record)
        except ValueError:
            raise VectorIndexError(f"the index at {self._path} is damaged: {symbol}") from None
        values = np.ascontiguousarray(rows["values"].T)
        vectors = {name: rows[_VECTOR_FIELDS[name]].copy() for name in self.collection.dimensions}
        return PointTable(symbol, timestamps, values, vectors, rows["run"].copy())

    def _take_over_changes(self) -> None:
        """Bring the arrays up to the newest transaction; cheap when nothing was written."""
        with _lmdb_errors(self._path):
            newest = self._env.info()["last_txnid"]
        if newest == self._seen_txn:
            return
        with _lmdb_errors(self._path), self._env.begin() as txn:
            written = int(txn.stat(self._db["log"])["entries"])
            if self._seen_txn < 0:
                self._load_all(txn)
            else:
                self._load_logged(txn, written)
            self._seen_txn, self._next_log = txn.id(), written

    def _load_all(self, txn: Any) -> None:
        stamps: dict[str, list[int]] = {}
        records: dict[str, list[bytes]] = {}
        for key, record in txn.cursor(self._db["points"]):
            symbol, _, stamp = key.decode().partition(":")
            stamps.setdefault(symbol, []).append(int(stamp))
            records.setdefault(symbol, []).append(record)
        for symbol in list(stamps):
            times = np.array(stamps[symbol], dtype=np.int64)
            table = self._table_of(symbol, times, records.pop(symbol))
            self._symbols[symbol] = SymbolArrays(table)

    def _load_logged(self, txn: Any, written: int) -> None:
        points = self._db["points"]
        for number in range(self._next_log, written):
            entry = txn.get(_number_key(number), db=self._db["log"])
            name, _, packed = entry.partition(b":")
            symbol, times = name.decode(), np.frombuffer(packed, "<i8").astype(np.int64)
            keys = [_point_key(symbol, stamp) for stamp in times.tolist()]
            table = self._table_of(symbol, times, [txn.get(key, db=points) for key in keys])
            if symbol in self._symbols:
                self._symbols[symbol].merge(table)
            else:
                self._symbols[symbol] = SymbolArrays(table)


def _open_environment(path: Path, *, readonly: bool) -> Any:
    with _lmdb_errors(path):
        env = lmdb.open(
            str(path),
            map_size=_MAP_SIZE,
            max_dbs=len(_DATABASES),
            max_readers=_MAX_READERS,
            readonly=readonly,
            create=not readonly,
        )
        if not readonly:
            env.reader_check()  # frees the slots of readers that were killed
        return env


@contextmanager
def _lmdb_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except lmdb.Error as error:
        remedy = _REMEDIES.get(type(error))
        told = f"the index at {path} fails: {error}"
        raise VectorIndexError(f"{told}; {remedy}" if remedy else told) from error


def _no_index(path: Path) -> VectorIndexError:
    return VectorIndexError(f"{path} holds no index; {_ANOTHER_FOLDER}")


def _write_collection(path: Path, env: Any, collection: Collection) -> None:
    with env.begin() as txn:
        names = set(txn.cursor().iternext(values=False))
    if names - {name.encode() for name in _DATABASES}:
        raise _no_index(path)
    meta = env.open_db(b"meta")
    with env.begin(write=True, db=meta) as txn:
        if txn.get(b"collection") is None and (names - {b"meta"} or txn.stat(meta)["entries"]):
            raise _no_index(path)
        if txn.get(b"collection") is None:
            txn.put(b"collection", msgspec.json.encode(collection))
            txn.put(b"columns", msgspec.json.encode(COLUMNS))


def _refuse_other(path: Path, found: Collection, wanted: Collection) -> None:
    if differences := found.differences(wanted):
        raise ConfigurationError(
            f"the index at {path} holds other points: {'; '.join(differences)}; use the settings "
            f"it was made with (--text if it has text vectors), or {_ANOTHER_FOLDER}"
        )


def _record_type(collection: Collection) -> np.dtype[np.void]:
    fields: list[Any] = [
        ("values", "<f8", (len(COLUMNS),)),
        (_VECTOR_FIELDS[STATE], "<f4", (collection.dimension,)),
        ("run", "<u4"),
    ]
    if collection.text_dimension is not None:
        fields.append((_VECTOR_FIELDS[TEXT], "<f4", (collection.text_dimension,)))
    return np.dtype(fields)


def _point_key(symbol: str, timestamp_ms: int) -> bytes:
    return f"{symbol}:{timestamp_ms}".encode()


def _number_key(number: int) -> bytes:
    return number.to_bytes(8, "big")
