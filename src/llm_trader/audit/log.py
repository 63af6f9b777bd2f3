"""Writes the audit log: an observer of requests, which writes each line before the reply is sent.

1. Each process takes the first chain that no other holds, so workers do not wait for each other.
2. What a killed process left of its last line is vouched for by the next line.
3. A write that fails loses the line and stops no answer. One line of the log says so, and the first
   line of the chain that can be written again has the number of those that were lost.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import structlog

from llm_trader.audit.chain import (
    GENESIS,
    AuditLine,
    Event,
    Head,
    chains_of,
    encode_head,
    head_path,
    read_head,
    seal,
    segment_path,
    torn_digest,
    unseal,
)
from llm_trader.audit.config import AuditConfig
from llm_trader.errors import ConfigurationError
from llm_trader.rpc.observer import RequestRecord
from llm_trader.storage.files import write_errors
from llm_trader.timeframe import Millis

# Some hundred lines; what a process can have left of one is far less.
_TAIL_BYTES: Final = 1 << 16
_MOST_CHAINS: Final = 1000
_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC

_log = structlog.get_logger(__name__)


class AuditLog:
    """Open until `close`. `methods` are the names that a line may show; others came from a client.

    `lost` counts the requests whose line could not be written.
    """

    def __init__(
        self,
        folder: Path,
        methods: Iterable[str],
        *,
        now_ms: Callable[[], Millis],
        config: AuditConfig | None = None,
    ) -> None:
        config = config or AuditConfig()
        self.lost = 0
        self._folder = folder
        self._methods = frozenset(methods)
        self._now_ms = now_ms
        self._max_bytes = config.max_file_mib << 20
        self._keep_files = config.keep_files
        with write_errors(folder):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._chain, self._lock = _free_chain(folder)
            self._head_fd = os.open(head_path(folder, self._chain), _FLAGS, 0o600)
            self._unreported = 0
            self._unsealed = b""
            self._resume()

    def __call__(self, record: RequestRecord) -> None:
        method = record.method
        self._write(
            "request",
            request_id=record.request_id,
            peer=record.peer,
            key_id=record.key_id,
            method=method if method is None or method in self._methods else "unknown",
            code=record.code,
            duration_us=round(record.duration_s * 1e6),
            request_bytes=record.request_bytes,
            reply_bytes=record.reply_bytes,
            notification=record.notification,
            batch_position=record.batch_position,
        )

    def close(self) -> None:
        self._write("closed")
        for descriptor in (self._fd, self._head_fd, self._lock):
            os.close(descriptor)

    # --- Where the chain goes on

    def _resume(self) -> None:
        segments = chains_of(self._folder).get(self._chain, [])
        head = read_head(head_path(self._folder, self._chain))
        self._seq, self._hash = -1, GENESIS
        for path in reversed(segments):
            last, behind = _last_line(path)
            self._unsealed = behind + self._unsealed
            if last is not None:
                self._seq, self._hash = last
                break
        self._oldest = head.oldest if head else 0
        if not segments and head is not None:  # the files were taken away; the chain goes on
            self._seq, self._hash = head.seq, head.hash
        newest = segments[-1] if segments else segment_path(self._folder, self._chain, 0)
        if not segments and head is not None:
            newest = segment_path(self._folder, self._chain, head.seq + 1)
        self._open(newest)
        ahead = head.seq if head is not None and head.seq > self._seq else None
        if ahead is not None:
            _log.error(
                "audit_lines_missing",
                folder=str(self._folder),
                chain=self._chain,
                first=self._seq + 1,
                last=ahead,
                remedy="run llm-trader audit verify",
            )
        self._write("opened", head_seq=ahead)

    def _open(self, path: Path) -> None:
        self._fd = os.open(path, _FLAGS | os.O_APPEND, 0o600)
        self._size = os.fstat(self._fd).st_size

    def _rotate(self) -> None:
        """Begins the next file, and removes those beyond the number to keep."""
        full = self._fd
        self._open(segment_path(self._folder, self._chain, self._seq + 1))
        os.fsync(full)
        os.close(full)
        if not self._keep_files:
            return
        segments = chains_of(self._folder)[self._chain]
        kept = segments[-self._keep_files :]
        # Before they are removed, so that a kill between makes nobody miss them.
        self._oldest = int(kept[0].name.split(".")[1])
        self._write_head()
        for path in segments[: -self._keep_files]:
            path.unlink()

    # --- Lines

    def _write(self, event: Event, **fields: Any) -> None:
        try:
            if self._size >= self._max_bytes and not self._unsealed:
                self._rotate()
            if self._unreported or (self._unsealed and event != "opened"):
                self._append("gap", lost=self._unreported)
                _log.info("audit_log_written_again", folder=str(self._folder), lost=self.lost)
                self._unreported = 0
            self._append(event, **fields)
        except OSError as error:
            if not self._unreported:
                _log.error(
                    "audit_log_failed",
                    folder=str(self._folder),
                    reason=error.strerror,
                    effect="requests are answered without a line; the next line has their number",
                )
            if event == "request":
                self.lost += 1
            self._unreported += 1

    def _append(self, event: Event, **fields: Any) -> None:
        """Raises `OSError`; what was written of the line then counts as torn."""
        self._end_torn_line()
        if self._unsealed:
            fields |= {
                "torn_bytes": len(self._unsealed),
                "torn_sha256": torn_digest(self._unsealed),
            }
        line = AuditLine(
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
        sealed = unseal(last)
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


def _free_chain(folder: Path) -> tuple[int, int]:
    """The first chain that no process holds, and the descriptor that holds it from now on."""
    for chain in range(_MOST_CHAINS):
        descriptor = os.open(folder / f"audit-{chain}.lock", _FLAGS, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
        else:
            return chain, descriptor
    raise ConfigurationError(f"{_MOST_CHAINS} processes write to {folder}; give each its own")


def _last_line(path: Path) -> tuple[tuple[int, str] | None, bytes]:
    """Number and hash of the last sealed line of a file, if any, and what stands behind it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(size - _TAIL_BYTES, 0))
        tail = file.read()
    end = len(tail)
    while (end := tail.rfind(b"\n", 0, end)) >= 0:
        begin = tail.rfind(b"\n", 0, end) + 1
        if sealed := unseal(tail[begin:end]):
            return (sealed.line.seq, sealed.hash), tail[end + 1 :]
    return None, tail
