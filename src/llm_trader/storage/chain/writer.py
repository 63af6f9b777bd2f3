"""Writes the lines of a chain, each in one call, before whoever asked for it goes on.

1. Each process takes the first chain that no other holds, so workers do not wait for each other.
2. What a killed process left of its last line is vouched for by the next line.
3. A write that fails loses the line and raises nothing. One line of the log says so, and the first
   line of the chain that can be written again has the number of those that were lost.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Generic

import structlog

from llm_trader.errors import ConfigurationError
from llm_trader.storage.chain.lines import (
    GENESIS,
    OWN_EVENTS,
    AnyKind,
    ChainConfig,
    ChainKind,
    Head,
    L,
    encode_head,
    first_seq_of,
    read_head,
    seal,
    torn_digest,
)
from llm_trader.storage.files import write_errors
from llm_trader.timeframe import Millis

# Some hundred lines; what a process can have left of one is far less.
_TAIL_BYTES: Final = 1 << 16
_MOST_CHAINS: Final = 1000
_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC

_log = structlog.get_logger(__name__)


class ChainWriter(Generic[L]):
    """Open until `close`. `lost` counts the lines that could not be written.

    `effect` says in the log what a failed write means.
    """

    def __init__(
        self,
        kind: ChainKind[L],
        folder: Path,
        config: ChainConfig,
        *,
        now_ms: Callable[[], Millis],
        effect: str,
    ) -> None:
        self.lost = 0
        self._kind = kind
        self._folder = folder
        self._now_ms = now_ms
        self._effect = effect
        self._max_bytes = config.max_file_mib << 20
        self._keep_files = config.keep_files
        with write_errors(folder):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._chain, self._lock = _free_chain(kind, folder)
            self._head_fd = os.open(kind.head_path(folder, self._chain), _FLAGS, 0o600)
            self._unreported = 0
            self._unsealed = b""
            self._resume()

    def close(self) -> None:
        self.write("closed")
        for descriptor in (self._fd, self._head_fd, self._lock):
            os.close(descriptor)

    # --- Where the chain goes on

    def _resume(self) -> None:
        segments = self._kind.chains_of(self._folder).get(self._chain, [])
        head = read_head(self._kind.head_path(self._folder, self._chain))
        self._seq, self._hash = -1, GENESIS
        for path in reversed(segments):
            last, behind = _last_line(self._kind, path)
            self._unsealed = behind + self._unsealed
            if last is not None:
                self._seq, self._hash = last
                break
        self._oldest = head.oldest if head else 0
        if not segments and head is not None:  # the files were taken away; the chain goes on
            self._seq, self._hash = head.seq, head.hash
        newest = segments[-1] if segments else self._kind.segment_path(self._folder, self._chain, 0)
        if not segments and head is not None:
            newest = self._kind.segment_path(self._folder, self._chain, head.seq + 1)
        self._open(newest)
        ahead = head.seq if head is not None and head.seq > self._seq else None
        if ahead is not None:
            _log.error(
                f"{self._kind.name}_lines_missing",
                folder=str(self._folder),
                chain=self._chain,
                first=self._seq + 1,
                last=ahead,
                remedy=f"run llm-trader {self._kind.setting.partition('.')[0]} verify",
            )
        self.write("opened", head_seq=ahead)

    def _open(self, path: Path) -> None:
        self._fd = os.open(path, _FLAGS | os.O_APPEND, 0o600)
        self._size = os.fstat(self._fd).st_size

    def _rotate(self) -> None:
        """Begins the next file, and removes those beyond the number to keep."""
        full = self._fd
        self._open(self._kind.segment_path(self._folder, self._chain, self._seq + 1))
        os.fsync(full)
        os.close(full)
        if not self._keep_files:
            return
        segments = self._kind.chains_of(self._folder)[self._chain]
        kept = segments[-self._keep_files :]
        # Before they are removed, so that a kill between makes nobody miss them.
        self._oldest = first_seq_of(kept[0])
        self._write_head()
        for path in segments[: -self._keep_files]:
            path.unlink()

    # --- Lines

    def write(self, event: str, **fields: Any) -> int | None:
        """The number of the line; None where it could not be written."""
        try:
            if self._size >= self._max_bytes and not self._unsealed:
                self._rotate()
            if self._unreported or (self._unsealed and event != "opened"):
                self._append("gap", lost=self._unreported)
                _log.info(
                    f"{self._kind.name}_log_written_again", folder=str(self._folder), lost=self.lost
                )
                self._unreported = 0
            self._append(event, **fields)
        except OSError as error:
            if not self._unreported:
                _log.error(
                    f"{self._kind.name}_log_failed",
                    folder=str(self._folder),
                    reason=error.strerror,
                    effect="requests are answered without a line; the next line has their number",
                )
            if event not in OWN_EVENTS:
                self.lost += 1
            self._unreported += 1
            return None
        return self._seq

    def _append(self, event: str, **fields: Any) -> None:
        """Raises `OSError`; what was written of the line then counts as torn."""
        self._end_torn_line()
        if self._unsealed:
            fields |= {
                "torn_bytes": len(self._unsealed),
                "torn_sha256": torn_digest(self._unsealed),
            }
        line = self._kind.line_type(
            seq=self._seq + 1, prev=self._hash, event=event, at_ms=self._now_ms(), **fields
        )
        raw, digest = seal(line)
        self._put(raw)
        self._unsealed = b""
        self._seq, self._hash = line.seq, digest
        self._write_head()

    def _end_torn_line(self) -> None:
        """A torn line that lacks nothing but its end is a line."""
        if not self._unsealed:
            return
        last = self._unsealed.rpartition(b"\n")[2]
        if last:
            self._put(b"\n")
        sealed = self._kind.unseal(last)
        if sealed is not None and (sealed.line.seq, sealed.line.prev) == (
            self._seq + 1,
            self._hash,
        ):
            self._unsealed = b""
            self._seq, self._hash = sealed.line.seq, sealed.hash

    def _put(self, data: bytes) -> None:
        while data:
            count = os.write(self._fd, data)
            self._size += count
            self._unsealed += data[:count]
            data = data[count:]

    def _write_head(self) -> None:
        os.pwrite(self._head_fd, encode_head(Head(self._oldest, self._seq, self._hash)), 0)


def _free_chain(kind: AnyKind, folder: Path) -> tuple[int, int]:
    """The first chain that no process holds, and the descriptor that holds it from now on."""
    for chain in range(_MOST_CHAINS):
        descriptor = os.open(kind.lock_path(folder, chain), _FLAGS, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
        else:
            return chain, descriptor
    raise ConfigurationError(f"{_MOST_CHAINS} processes write to {folder}; give each its own")


def _last_line(kind: AnyKind, path: Path) -> tuple[tuple[int, str] | None, bytes]:
    """Number and hash of the last sealed line of a file, if any, and what stands behind it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(size - _TAIL_BYTES, 0))
        tail = file.read()
    end = len(tail)
    while (end := tail.rfind(b"\n", 0, end)) >= 0:
        begin = tail.rfind(b"\n", 0, end) + 1
        if sealed := kind.unseal(tail[begin:end]):
            return (sealed.line.seq, sealed.hash), tail[end + 1 :]
    return None, tail
