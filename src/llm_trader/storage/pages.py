"""Checks the pages of an LMDB file, so that LMDB is never led astray by a damaged one.

LMDB trusts every page number, offset and size in its file: one wrong bit can end the process by a
signal. This walks all pages in use, level by level and on arrays, and compares what LMDB would
follow with the file: the places of pages, the bounds of what they hold, the counters of each
database, and the list of free pages. The bytes of keys and values are not judged here.

`lmdb.verify` is as strict and reads other layouts, too, but takes thirty times as long.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import lmdb.verify
import numpy as np
import numpy.typing as npt

_Numbers: TypeAlias = npt.NDArray[np.int64]

_MAGIC: Final = 0xBEEFC0DE
_VERSION: Final = 1  # of files that LMDB 0.9 writes
_HEADER: Final = 16
_DATABASE: Final = np.dtype(
    [
        *(("pad", "<u4"), ("flags", "<u2"), ("depth", "<u2"), ("branch_pages", "<u8")),
        *(("leaf_pages", "<u8"), ("overflow_pages", "<u8"), ("entries", "<u8"), ("root", "<u8")),
    ]
)
_META: Final = np.dtype(
    [
        *(("number", "<u8"), ("pad", "<u2"), ("flags", "<u2"), ("bounds", "<u4")),
        *(("magic", "<u4"), ("version", "<u4"), ("address", "<u8"), ("map_size", "<u8")),
        *(("free", _DATABASE), ("main", _DATABASE), ("last_page", "<u8"), ("transaction", "<u8")),
    ]
)
_NO_ROOT: Final = 2**64 - 1
_BRANCH, _LEAF, _OVERFLOW, _META_PAGE = 1, 2, 4, 8
_BIG_DATA, _SUB_DATABASE = 1, 2  # flags of nodes
_FREE_FLAGS: Final = 8  # LMDB's own list of free pages has numbers as keys
_MAX_DEPTH: Final = 32
# What py-lmdb's walk takes for damage and LMDB writes: a value that became shorter within its
# transaction keeps its pages. The walk here counts them. Unused pages that are not free do no harm.
_SOUND: Final = ("header mp_pages", "overflow pages, record says", "-- a leak")
# Pages at a time; the arrays about their nodes take some 10 MB.
_CHUNK: Final = 4096
# A writer that commits all the time is seen between two commits within a few readings.
_READINGS: Final = 10


class DamagedFileError(Exception):
    """Says where a file contradicts itself. Callers translate it."""


class OtherLayoutError(Exception):
    """The file is of a layout that only `lmdb.verify` reads."""


@dataclass(frozen=True, slots=True)
class Header:
    """The two meta pages, of which the newer one is in force."""

    page_size: int
    metas: npt.NDArray[np.void]

    @property
    def newest(self) -> np.void:
        transactions = self.metas["transaction"]
        newest: np.void = self.metas[int(transactions[1] > transactions[0])]
        return newest


def read_header(file: Path) -> Header:
    """Raises `DamagedFileError` where LMDB would trip over the first two pages."""
    header = _both_metas(file)
    for _ in range(_READINGS):
        try:
            _check_metas(header)
            break
        except DamagedFileError:
            # A writer may have committed after the first page was read and before the second.
            former, header = header, _both_metas(file)
            if former.metas.tobytes() == header.metas.tobytes():
                raise
    else:
        _check_metas(header)
    return header


def _both_metas(file: Path) -> Header:
    with file.open("rb") as content:
        first = content.read(_META.itemsize)
        if len(first) < _META.itemsize:
            raise DamagedFileError(f"it ends after {len(first)} bytes, within its first page")
        if int.from_bytes(first[24:28], "little") == _MAGIC:
            raise OtherLayoutError
        if int.from_bytes(first[16:20], "little") != _MAGIC:
            raise DamagedFileError("it is no LMDB store")
        page_size = int(np.frombuffer(first, _META)[0]["free"]["pad"])
        if page_size not in (2**power for power in range(9, 16)):
            raise DamagedFileError(f"its pages have an impossible size of {page_size} bytes")
        content.seek(page_size)
        second = content.read(_META.itemsize)
    if len(second) < _META.itemsize:
        raise DamagedFileError("it ends within its second page")
    return Header(page_size, np.frombuffer(first + second, _META))


def meta_bytes(file: Path) -> bytes:
    """Changes with every commit."""
    return read_header(file).metas.tobytes()


def check_pages(file: Path) -> None:
    """Raises `DamagedFileError` unless all pages in use are as LMDB writes them.

    Whoever calls it while others write holds a read transaction, so that no page is reused.
    """
    try:
        header = read_header(file)
        for _ in range(3):
            try:
                return _Walk(file, header).check()
            except DamagedFileError:
                # A writer may have changed the meta pages while they were read.
                former, header = header, read_header(file)
                if former.metas.tobytes() == header.metas.tobytes():
                    raise
        return _Walk(file, header).check()
    except OtherLayoutError:
        if problems := verified(file):
            raise DamagedFileError(problems[0]) from None


def verified(file: Path) -> list[str]:
    """The problems that py-lmdb's own, slower walk finds; it also compares the order of keys."""
    try:
        problems = lmdb.verify.verify(str(file))  # type: ignore[no-untyped-call]
        return [problem for problem in problems if not any(words in problem for words in _SOUND)]
    except lmdb.verify.VerifyError as error:
        return [str(error)]


def _check_metas(header: Header) -> None:
    metas = header.metas
    for number, meta in enumerate(metas):
        if meta["magic"] != _MAGIC or meta["version"] != _VERSION:
            raise DamagedFileError(f"page {number} is no meta page of an LMDB file")
        if meta["number"] != number or meta["flags"] != _META_PAGE:
            raise DamagedFileError(f"page {number} is not in its place")
        if meta["free"]["pad"] != header.page_size:
            raise DamagedFileError("the first two pages disagree about the size of pages")
        if int(meta["free"]["flags"]) & ~_FREE_FLAGS:
            raise DamagedFileError(f"page {number} describes no list of free pages")
        if meta["transaction"] and int(meta["transaction"]) % 2 != number:
            raise DamagedFileError(f"page {number} names a transaction of the other meta page")
    first, second = (int(number) for number in metas["transaction"])
    # Transactions write the two pages by turns; a new file has had none.
    if abs(first - second) != 1 and (first or second):
        raise DamagedFileError("the first two pages are not of consecutive transactions")


class _Walk:
    """One pass over all pages that the newest meta page leads to."""

    def __init__(self, file: Path, header: Header) -> None:
        self._meta, self._page_size = header.newest, header.page_size
        self._other = header.metas[1 - int(self._meta["number"])]
        with file.open("rb") as content:
            mapped = mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ)
        pages = len(mapped) // self._page_size
        whole = pages * self._page_size
        self._bytes = np.frombuffer(mapped, np.uint8, whole)
        self._words = np.frombuffer(mapped, "<u2", whole // 2)
        self._numbers = np.frombuffer(mapped, "<u8", whole // 8)
        self._end = int(self._meta["last_page"]) + 1
        if self._end > pages + 2**20:
            raise DamagedFileError(f"it should have {self._end} pages, and has {pages}")
        self._pages = pages
        self._used = np.zeros(self._end, np.bool_)

    def check(self) -> None:
        free = self._check_tree("the free list", self._meta["free"])
        self._check_main(self._meta["main"])
        self._check_free(free)
        self._check_order()

    def _check_main(self, record: np.void) -> None:
        """The tree whose values are the records of the named databases."""
        if int(record["flags"]):
            raise OtherLayoutError
        for offset, key_size, flags in self._check_tree("the list of databases", record):
            if not flags & _SUB_DATABASE:
                continue
            start = offset + 8 + key_size
            content = self._bytes[start : start + _DATABASE.itemsize].tobytes()
            name = self._bytes[offset + 8 : start].tobytes().decode("utf-8", "replace")
            database = np.frombuffer(content, _DATABASE)[0]
            if int(database["flags"]):
                raise OtherLayoutError
            self._check_tree(repr(name)[1:-1], database)

    def _check_tree(self, name: str, record: np.void) -> list[tuple[int, int, int]]:
        """The (offset, key size, flags) of all nodes of its leaves, where it is a list of LMDB's.

        Those of a named database are too many to be listed.
        """
        depth, root = int(record["depth"]), int(record["root"])
        counts = dict.fromkeys(("branch_pages", "leaf_pages", "overflow_pages", "entries"), 0)
        listed: list[tuple[int, int, int]] = []
        level = np.array([] if root == _NO_ROOT else [root], np.uint64)
        if bool(len(level)) != bool(depth) or depth > _MAX_DEPTH:
            raise DamagedFileError(f"the depth of {name} is {depth}")
        for step in range(depth):
            is_leaf = step == depth - 1
            counts["leaf_pages" if is_leaf else "branch_pages"] += len(level)
            children = []
            for first in range(0, len(level), _CHUNK):
                pages = self._placed(name, level[first : first + _CHUNK], is_leaf=is_leaf)
                offsets, key_sizes, flags, sizes = self._nodes(name, pages, is_leaf=is_leaf)
                if not is_leaf:
                    children.append(sizes + (flags.astype(np.uint64) << np.uint64(32)))
                    continue
                counts["entries"] += len(offsets)
                counts["overflow_pages"] += self._check_values(
                    name, offsets, key_sizes, flags, sizes
                )
                if name.startswith("the "):
                    listed += zip(
                        *(offsets.tolist(), key_sizes.tolist(), flags.tolist()), strict=True
                    )
            level = np.concatenate(children) if children else level
        for what, counted in counts.items():
            if counted != record[what]:
                words = what.replace("_", " ")
                raise DamagedFileError(f"{name} has {counted} {words}, not {record[what]}")
        return listed

    def _placed(self, name: str, numbers: npt.NDArray[np.uint64], *, is_leaf: bool) -> _Numbers:
        """Marks pages as used; raises unless each is where its number says, and of the kind."""
        pages = self._mark(name, numbers)
        kinds = self._words[pages * (self._page_size // 2) + 5]
        wrong = np.flatnonzero(kinds != (_LEAF if is_leaf else _BRANCH))
        if len(wrong):
            kind = "leaf" if is_leaf else "branch"
            raise DamagedFileError(f"page {pages[wrong[0]]} of {name} is no {kind} page")
        return pages

    def _mark(self, name: str, numbers: npt.NDArray[np.uint64]) -> _Numbers:
        """Marks the first pages of nodes as used, and compares the number that each has inside."""
        self._mark_used(name, numbers)
        pages = numbers.astype(np.int64)
        inside = self._numbers[pages * (self._page_size // 8)]
        misplaced = np.flatnonzero(inside != numbers)
        if len(misplaced):
            row = misplaced[0]
            raise DamagedFileError(
                f"page {pages[row]} of {name} says that it is page {inside[row]}"
            )
        return pages

    def _mark_used(self, name: str, numbers: npt.NDArray[np.uint64], *, free: bool = False) -> None:
        outside = numbers[(numbers < 2) | (numbers >= self._end)]
        if len(outside):
            raise DamagedFileError(f"{name} refers to page {outside[0]}, which does not exist")
        beyond = numbers[numbers >= self._pages]
        # LMDB may never have written a page that it freed at once.
        if len(beyond) and not free:
            raise DamagedFileError(
                f"it has {self._pages} whole pages, and {name} needs page {beyond[0]}; "
                "it was cut short or copied in part"
            )
        pages = numbers.astype(np.int64)
        if self._used[pages].any() or len(np.unique(pages)) < len(pages):
            raise DamagedFileError(f"{name} uses a page that is in use already")
        self._used[pages] = True

    def _nodes(
        self, name: str, pages: _Numbers, *, is_leaf: bool
    ) -> tuple[_Numbers, _Numbers, _Numbers, npt.NDArray[np.uint64]]:
        """Offsets in the file, key sizes, flags, and data sizes or the low bits of children."""
        words, size = self._words, self._page_size
        start = pages * (size // 2)
        lower, upper = (words[start + field].astype(np.int64) for field in (6, 7))
        refuse = _Refusal(name, pages)
        refuse((lower < _HEADER) | (lower % 2 == 1) | (lower > upper) | (upper > size))
        count = (lower - _HEADER) // 2
        # LMDB frees a page that becomes empty.
        refuse(count == 0)
        row = np.repeat(np.arange(len(pages)), count)
        first = np.cumsum(count) - count
        slot = np.arange(len(row)) - first[row]
        offset = words[start[row] + 8 + slot].astype(np.int64)
        refuse((offset < upper[row]) | (offset > size - 8) | (offset % 2 == 1), row)
        at = start[row] + offset // 2
        low, high, flags, key_size = (words[at + field] for field in range(4))
        number = low.astype(np.uint64) | high.astype(np.uint64) << np.uint64(16)
        key_size = key_size.astype(np.int64)
        length = 8 + key_size
        if is_leaf:
            big = flags & _BIG_DATA == _BIG_DATA
            length += np.where(big, 8, number.astype(np.int64))
        refuse(offset + length > size, row)
        # The nodes of a page fill it from `upper` to its end, each on an even offset.
        filled = np.add.reduceat(length + length % 2, first)
        refuse(filled != size - upper)
        return start[row] * 2 + offset, key_size, flags.astype(np.int64), number

    def _check_values(
        self,
        name: str,
        offsets: _Numbers,
        key_sizes: _Numbers,
        flags: _Numbers,
        sizes: npt.NDArray[np.uint64],
    ) -> int:
        """Checks the pages of values that are larger than a page; returns how many there are."""
        allowed = _BIG_DATA | (_SUB_DATABASE if name == "the list of databases" else 0)
        is_record = flags & _SUB_DATABASE != 0
        if (flags & ~allowed).any() or (sizes[is_record] != _DATABASE.itemsize).any():
            raise DamagedFileError(f"{name} has a value of an unknown kind")
        big = np.flatnonzero(flags & _BIG_DATA)
        if not len(big):
            return 0
        at = (offsets[big] + 8 + key_sizes[big])[:, None] + np.arange(8)
        first = np.ascontiguousarray(self._bytes[at]).view("<u8")[:, 0]
        pages = self._mark(name, first)
        words = self._words
        start = pages * (self._page_size // 2)
        held = words[start + 6].astype(np.int64) | words[start + 7].astype(np.int64) << 16
        needed = (_HEADER - 1 + sizes[big].astype(np.int64)) // self._page_size + 1
        if (words[start + 5] != _OVERFLOW).any() or (held < needed).any() or held.max() > self._end:
            raise DamagedFileError(f"{name} has a long value whose pages do not fit it")
        rest = np.repeat(pages, held - 1)
        step = np.arange(len(rest)) - np.repeat(np.cumsum(held - 1) - (held - 1), held - 1)
        self._mark_used(name, (rest + step + 1).astype(np.uint64))
        return int(held.sum())

    def _check_free(self, nodes: list[tuple[int, int, int]]) -> None:
        """No page that is in use is free, or a write would overwrite it; none is free twice."""
        for offset, key_size, flags in nodes:
            start = offset + 8 + key_size
            if key_size != 8 or self._number(offset + 8) > self._meta["transaction"]:
                raise DamagedFileError("the free list has an entry of no transaction")
            if flags & _BIG_DATA:
                start = self._number(start) * self._page_size + _HEADER
            length = self._number(start)
            if length > self._end or start + 8 * (length + 1) > len(self._bytes):
                raise DamagedFileError("the free list has an entry of an impossible length")
            content = self._bytes[start + 8 : start + 8 * (length + 1)].tobytes()
            self._mark_used("the free list", np.frombuffer(content, "<u8"), free=True)

    def _check_order(self) -> None:
        """A wrong bit in the number of a transaction would lead LMDB back to an earlier state.

        Every transaction, but the first, lists the pages that it freed under its own number, so the
        last entry of a free list is the number of the transaction that wrote it.
        """
        newest, earlier = self._last_freed(self._meta), self._last_freed(self._other)
        is_first = int(self._other["main"]["root"]) == _NO_ROOT
        if not is_first and newest != self._meta["transaction"]:
            raise DamagedFileError("the newest meta page is not of the newest transaction")
        if earlier is not None and earlier > self._other["transaction"]:
            raise DamagedFileError("the older meta page is of the newest transaction")

    def _last_freed(self, meta: np.void) -> int | None:
        """The transaction of the last entry of a free list; the older list is not checked yet."""
        page, depth = int(meta["free"]["root"]), int(meta["free"]["depth"])
        for step in range(min(depth, _MAX_DEPTH)):
            if not 2 <= page < self._pages:
                return None
            start = page * self._page_size
            last = int(self._words[start // 2 + 6]) - 2
            if not _HEADER <= last < self._page_size - 2:
                return None
            node = int(self._words[(start + last) // 2])
            if node > self._page_size - 16:
                return None
            if step == depth - 1:
                return self._number(start + node + 8)
            page = self._number(start + node) & (2**48 - 1)
        return None

    def _number(self, offset: int) -> int:
        return int.from_bytes(self._bytes[offset : offset + 8].tobytes(), "little")


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Raises for the first page, or for the page of the first node, of which a flag is set."""

    name: str
    pages: _Numbers

    def __call__(self, flagged: npt.NDArray[np.bool_], row: Any = None) -> None:
        if flagged.any():
            first = np.flatnonzero(flagged)[0]
            page = self.pages[first if row is None else row[first]]
            raise DamagedFileError(f"page {page} of {self.name} has no valid content")
