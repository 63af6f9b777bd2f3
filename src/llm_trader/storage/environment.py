"""One LMDB environment: a folder of named databases that processes share.

Any number of processes read and write at once. A read transaction sees one state; LMDB admits one
write transaction at a time, over all processes. A process may open a folder once, and must open
it after any fork.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import lmdb
import structlog

from llm_trader.errors import LlmTraderError
from llm_trader.storage import pages
from llm_trader.storage.files import write_errors
from llm_trader.storage.mapped_pages import release_mapped_pages
from llm_trader.storage.surroundings import explain

# Generation and transaction number: equal versions of an environment mean equal content.
Version: TypeAlias = tuple[int, int]
_Handles: TypeAlias = tuple[Any, Mapping[str, Any]]

DATA_FILE: Final = "data.mdb"
LOCK_FILE: Final = "lock.mdb"
# The file is sparse: only what is written takes space, so a large map costs nothing.
MAP_SIZE_BYTES: Final = 16 * 2**30
# Readers need no room to write, and a limit of the address space may be close.
_SMALLEST_READ_MAP_BYTES: Final = 2**28
# The last tenth of the map, 1.6 GiB at first, is kept for the largest single write.
_GROW_FROM_USED_SHARE: Final = 0.9
# LMDB's default of 126 is less than a machine with many worker processes can need.
_MAX_READERS: Final = 1024
# A stat takes 3 µs, longer than a short read, and a second is soon enough after a restore.
_CHECK_FILE_EVERY_SECONDS: Final = 1.0
# Swapping two folders renames twice; in between there is no file, for far less than this.
_SWAP_SECONDS: Final = 0.05
# A writer that commits while pages are verified may make a sound file look damaged.
_VERIFY_TRIES: Final = 5
# Transactions take milliseconds; only a copy of the whole store or a stuck thread takes longer.
_WAIT_FOR_IDLE_SECONDS: Final = 10.0

# What to do about LMDB's errors that do not come from a mistake of this program. `{rebuild}`
# stands for what the format says.
REMEDIES: Final[Mapping[type[lmdb.Error], str]] = {
    lmdb.MapFullError: "the write is larger than the room left in its map; split its symbols",
    lmdb.TxnFullError: "the write is too large for one transaction; write it in parts",
    lmdb.ReadersFullError: f"{_MAX_READERS} readers are active already; stop some",
    lmdb.DiskError: "check the disk and the free space on it",
    lmdb.MemoryError: "free some memory and try again",
    lmdb.LockError: "its file system must support locks; move it to a local disk",
    lmdb.ReadonlyError: "make the folder writable",
    lmdb.InvalidError: "it is no LMDB store; {rebuild}",
    lmdb.CorruptedError: "its file is damaged; {rebuild}",
    lmdb.PageNotFoundError: "its file is damaged; {rebuild}",
    lmdb.PanicError: "its file is damaged; {rebuild}",
    lmdb.VersionMismatchError: "another version of LMDB wrote it; {rebuild}",
    lmdb.NotFoundError: "a database is missing from it; {rebuild}",
}
_DAMAGE: Final = (
    *(lmdb.InvalidError, lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.PanicError),
    *(lmdb.VersionMismatchError, lmdb.NotFoundError),
)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreFormat:
    """What errors say about one kind of store, and which databases belong to it."""

    name: str  # as in "there is no market store at FOLDER"
    error: type[LlmTraderError]
    damaged_error: type[LlmTraderError]
    create: str  # how to create one, such as "create one with: COMMAND {path}"
    rebuild: str  # how to recover from damage
    is_database: Callable[[str], bool]
    max_databases: int
    map_size_setting: str

    def missing(self, folder: Path, *, was_open: bool = False) -> LlmTraderError:
        problem = f"there is no {self.name} at {folder};"
        if was_open:
            problem = f"the {self.name} at {folder} was removed while it was open; put it back, or"
        return self.error(f"{problem} {self.create.format(path=folder)}", path=str(folder))

    @contextmanager
    def lmdb_errors(self, folder: Path) -> Iterator[None]:
        """Raises LMDB's errors as the format's."""
        try:
            yield
        except lmdb.Error as error:
            raise self.translated(error, folder) from error

    def translated(
        self, error: lmdb.Error, folder: Path, map_size_bytes: int = 0
    ) -> LlmTraderError:
        """The format's error for one of LMDB's, with a remedy where there is one."""
        remedy = explain(
            getattr(error, "code", None),
            folder,
            map_size_bytes=map_size_bytes,
            setting=self.map_size_setting,
        ) or REMEDIES.get(type(error), "").format(rebuild=self.rebuild)
        if isinstance(error, lmdb.MapFullError):
            remedy += f", or raise {self.map_size_setting}; nothing of this write is kept"
        message = f"the {self.name} at {folder} fails: {error}"
        kind = self.damaged_error if isinstance(error, _DAMAGE) else self.error
        return kind(f"{message}; {remedy}" if remedy else message)

    def damaged(self, folder: Path, where: str) -> LlmTraderError:
        return self.damaged_error(
            f"the {self.name} at {folder} is damaged: {where}; {self.rebuild}", path=str(folder)
        )


@dataclass(slots=True)
class ReadTransaction:
    """One state of an environment. A database that does not exist reads as empty."""

    _txn: Any
    _databases: Mapping[str, Any]
    _generation: int

    @property
    def version(self) -> Version:
        return self._generation, int(self._txn.id())

    @property
    def databases(self) -> Iterable[str]:
        """The names of the format's databases that exist."""
        return self._databases.keys()

    def root_keys(self) -> set[str]:
        """The names of all databases, and of anything that a program has put beside them."""
        return _root_keys(self._txn)

    def get(self, database: str, key: bytes) -> bytes | None:
        handle = self._databases.get(database)
        return None if handle is None else self._txn.get(key, db=handle)

    def cursor(self, database: str) -> Any | None:
        """LMDB's cursor, not positioned yet; None where the database does not exist."""
        handle = self._databases.get(database)
        return None if handle is None else self._txn.cursor(db=handle)

    def count(self, database: str) -> int:
        """The number of records in a database."""
        handle = self._databases.get(database)
        return 0 if handle is None else int(self._txn.stat(handle)["entries"])


class WriteTransaction(ReadTransaction):
    """Sees what it has written itself; writes to the databases that were named when it began."""

    def put(self, database: str, key: bytes, value: bytes) -> None:
        self._txn.put(key, value, db=self._databases[database])

    def put_many(self, database: str, records: Iterable[tuple[bytes, bytes]]) -> None:
        self._txn.cursor(db=self._databases[database]).putmulti(records)

    def delete(self, database: str, key: bytes) -> None:
        self._txn.delete(key, db=self._databases[database])


class Environment(AbstractContextManager["Environment"]):
    """An opened folder, which threads may share.

    When another file takes the place of the opened one, as after a restore, the next transaction
    after at most a second reopens it, and its `version` is of a new generation.
    """

    def __init__(
        self,
        folder: Path,
        store_format: StoreFormat,
        *,
        write: bool = False,
        map_size_bytes: int | None = None,
        immutable: bool = False,
    ) -> None:
        """Open the folder; for writing it is created where missing.

        A writer's map begins with `map_size_bytes` and grows. Where `immutable`, nobody writes to
        the folder, and reading it leaves no trace, so that it may be on a read-only medium.

        Raises the format's error where there is nothing to read or this process has the folder
        open already, and `ConfigurationError` where the folder cannot be written to.
        """
        self.folder = folder
        self.format = store_format
        self.writable = write
        self._file = str(folder / DATA_FILE)
        self._immutable = immutable
        self._map_size = MAP_SIZE_BYTES if map_size_bytes is None else map_size_bytes
        self._generation = 0
        self._closed = False
        self._missing = False
        self._active = 0
        self._lock = threading.RLock()  # guards `_active` and all that reopening sets
        self._changed = threading.Condition(self._lock)
        self._opening = threading.Lock()
        self._identity: tuple[int, int] | None = None  # None also after opening has failed
        self._size = 0  # LMDB's file never shrinks
        self._databases: dict[str, Any] = {}
        # The last state that was read: its transaction, all its root keys, and its databases.
        self._visible: tuple[int, set[str], Mapping[str, Any]]
        if write:
            with write_errors(folder):
                folder.mkdir(parents=True, exist_ok=True)
                if not os.access(folder, os.W_OK | os.X_OK):
                    is_read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
                    number = errno.EROFS if is_read_only else errno.EACCES
                    raise OSError(number, os.strerror(number))
        elif not os.path.exists(self._file):
            raise store_format.missing(folder)
        self._open()

    def close(self) -> None:
        """Release the folder. Closing twice does nothing."""
        self._closed = True
        self._lmdb.close()

    def __exit__(self, *raised: object) -> None:
        self.close()

    @property
    def version(self) -> Version:
        """Changes with every commit of any process. Takes a few microseconds."""
        with self._lock:
            try:
                self._follow_file()
                txn = self._lmdb.begin()
            except lmdb.MapResizedError:
                self._outdated = True
                return self.version
            except lmdb.Error as error:
                raise self.format.translated(error, self.folder) from error
            version = self._generation, int(txn.id())
            txn.abort()
            return version

    @contextmanager
    def read(self) -> Iterator[ReadTransaction]:
        try:  # as `lmdb_errors`, which would take a tenth of a short read
            txn, databases = self._begin(self._begin_read)
            try:
                yield ReadTransaction(txn, databases, self._generation)
            finally:
                txn.abort()
                self._leave()
        except lmdb.Error as error:
            raise self.format.translated(error, self.folder) from error

    @contextmanager
    def write(self, *databases: str) -> Iterator[WriteTransaction]:
        """A transaction that may write to these databases, which are created where missing.

        It waits for the write transactions of other threads and processes, and commits unless
        the block raises.
        """
        if not self.writable:
            raise self.format.error(f"{self.folder} was opened for reading; open it to write")
        with self.format.lmdb_errors(self.folder):
            self._checked_at = -float("inf")  # a write to a replaced file would be lost
            txn, handles = self._begin(self._begin_write)
            names = set(databases) - handles.keys()
            try:
                # LMDB lets only one transaction at a time open databases.
                with self._opening if names else nullcontext():
                    with txn:
                        created = {name: self._open_database(name, txn) for name in names}
                        yield WriteTransaction(txn, {**handles, **created}, self._generation)
                    self._databases.update(created)
            finally:
                self._leave()

    def page_problems(self) -> list[str]:
        """What LMDB's verifier finds wrong with all pages and keys; takes seconds per 100 MB."""
        file = Path(self._file)
        with self.read():  # keeps writers from reusing pages meanwhile
            for _ in range(_VERIFY_TRIES):
                before = pages.meta_bytes(file)
                problems = _page_problems(file)
                if not problems or pages.meta_bytes(file) == before:
                    break
        return problems

    def release_pages(self) -> None:
        """Count what was read of the file no longer as memory of this process."""
        release_mapped_pages(Path(self._file))

    def copy_to(self, folder: Path) -> None:
        """Write a compacted copy of one state into an empty folder, whoever writes meanwhile."""
        with self.format.lmdb_errors(self.folder):
            self._enter()
            try:
                self._lmdb.copy(str(folder), compact=True)
            finally:
                self._leave()

    def _begin(self, begin: Callable[[], _Handles | None]) -> _Handles:
        """Calls `begin` until it succeeds; the environment stays open until `_leave`."""
        while True:
            self._enter()
            transaction = None
            try:
                transaction = begin()
            except lmdb.MapResizedError:
                self._outdated = True
            finally:
                if transaction is None:
                    self._leave()
            if transaction is not None:
                return transaction

    def _begin_read(self) -> _Handles | None:
        """None after opening databases that another process has created.

        LMDB lets a transaction use only databases that were opened before it began.
        """
        txn = self._lmdb.begin()
        visible_in, names, databases = self._visible
        if txn.id() == visible_in:
            return txn, databases
        # Most commits leave the names; telling which are the format's takes longer than a read.
        if (root_keys := _root_keys(txn)) != names:
            stored = set(filter(self.format.is_database, root_keys))
            if unopened := stored - self._databases.keys():
                txn.abort()
                with self._opening:
                    for name in unopened - self._databases.keys():
                        self._databases[name] = self._open_database(name)
                return None
            databases = {name: self._databases[name] for name in stored}
        self._visible = txn.id(), root_keys, databases
        return txn, databases

    def _begin_write(self) -> _Handles | None:
        """None after asking for a larger map."""
        info = self._lmdb.info()
        used = info["last_pgno"] * self._lmdb.stat()["psize"]
        if used > _GROW_FROM_USED_SHARE * info["map_size"]:
            self._map_size = 2 * info["map_size"]
            self._outdated = True
            return None
        return self._lmdb.begin(write=True), dict(self._databases)

    def _open_database(self, name: str, txn: Any | None = None) -> Any:
        return self._lmdb.open_db(name.encode(), txn=txn, create=txn is not None)

    def _enter(self) -> None:
        with self._lock:
            self._follow_file()
            self._active += 1

    def _leave(self) -> None:
        with self._lock:
            self._active -= 1
            if not self._active:
                self._changed.notify_all()

    def _follow_file(self) -> None:
        """Reopen where the opened file is not the one in the folder, or has outgrown the map."""
        clock = time.monotonic()
        recent = clock - self._checked_at < _CHECK_FILE_EVERY_SECONDS
        if self._closed or (recent and not self._outdated):
            return
        self._checked_at = -float("inf")  # threads that come while this one waits look, too
        while self._current_identity() != self._identity or self._outdated:
            if self._active:
                if not self._changed.wait_for(lambda: not self._active, _WAIT_FOR_IDLE_SECONDS):
                    raise self.format.error(
                        f"the {self.format.name} at {self.folder} has to be reopened, and a read "
                        f"or a write of it has not ended for {_WAIT_FOR_IDLE_SECONDS:.0f} s; try "
                        "again"
                    )
                continue
            replaced = not self._outdated
            self._lmdb.close()
            self._identity = None  # should opening fail, another file may take the inode
            self._open()
            self._generation += 1
            if replaced:
                _log.warning("store_replaced", store=self.format.name, path=str(self.folder))
        self._checked_at = clock

    def _current_identity(self) -> tuple[int, int]:
        status = _file_status(self._file)
        if status is None and not self._missing:
            time.sleep(_SWAP_SECONDS)
            status = _file_status(self._file)
        self._missing = status is None
        if status is None:
            raise self.format.missing(self.folder, was_open=True)
        identity = _identity(status)
        if identity == self._identity:
            # Reading what is gone would end the process by a signal.
            if status.st_size < self._size:
                raise self.format.damaged(
                    self.folder,
                    f"its file had {self._size} bytes and was cut to {status.st_size} while open",
                )
            self._size = status.st_size
        return identity

    def _open(self) -> None:
        # Taken before opening: a file that comes between is noticed at the next check.
        status = _file_status(self._file)
        if status is not None and not stat.S_ISREG(status.st_mode):
            raise self.format.error(
                f"{self._file} is no regular file, so it holds no {self.format.name}; "
                f"{self.format.create.format(path=self.folder)}"
            )
        if status is not None:
            self._check_header(status)
        size = status.st_size if status else 0
        map_size = self._map_size
        if not self.writable:
            map_size = min(map_size, max(2 * size, _SMALLEST_READ_MAP_BYTES))
        try:
            self._lmdb = lmdb.open(
                str(self.folder),
                map_size=map_size,
                max_dbs=self.format.max_databases,
                max_readers=_MAX_READERS,
                readonly=not self.writable,
                create=self.writable,
                lock=not self._immutable,
            )
            try:
                if self.writable:
                    self._lmdb.reader_check()  # frees the slots of readers that were killed
                self._check_pages()
            except BaseException:
                self._lmdb.close()
                raise
        except lmdb.Error as error:
            # A file that another process let grow meanwhile is opened again; a damaged one keeps
            # its size.
            is_beyond_map = isinstance(error, lmdb.MapResizedError)
            has_grown = is_beyond_map and os.stat(self._file).st_size > size
            if not has_grown:
                raise self.format.translated(error, self.folder, map_size) from error
            self._open()
            return
        status = status or os.stat(self._file)
        self._identity, self._size = _identity(status), status.st_size
        self._outdated = False
        self._checked_at = time.monotonic()
        self._databases = {}
        self._visible = (-1, set(), {})

    def _check_header(self, status: os.stat_result) -> None:
        """Refuses a file that LMDB must not be given at all."""
        lock = _file_status(str(self.folder / LOCK_FILE))
        if lock is not None and not stat.S_ISREG(lock.st_mode):
            raise self.format.error(f"{self.folder / LOCK_FILE} is no regular file; delete it")
        if status.st_size == 0:  # as left by a process that was killed while it created the file
            if not self.writable:
                raise self.format.missing(self.folder)
            return
        try:
            pages.read_header(Path(self._file))
        except pages.OtherLayoutError:
            pass  # LMDB knows
        except pages.DamagedFileError as error:
            raise self.format.damaged(self.folder, str(error)) from error

    def _check_pages(self) -> None:
        txn = self._lmdb.begin()  # keeps writers from reusing pages meanwhile
        try:
            pages.check_pages(Path(self._file))
        except pages.DamagedFileError as error:
            raise self.format.damaged(self.folder, str(error)) from error
        finally:
            txn.abort()


def _page_problems(file: Path) -> list[str]:
    try:
        pages.check_pages(file)
    except pages.DamagedFileError as error:
        return [str(error)]
    return pages.verified(file)


def _file_status(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _root_keys(txn: Any) -> set[str]:
    return {key.decode("utf-8", "replace") for key in txn.cursor().iternext(values=False)}
