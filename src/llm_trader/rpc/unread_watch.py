"""Watches whether a client reads its replies, and cuts it off when it does not for too long."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import sys
import termios

import structlog

from llm_trader.rpc.admission import Admission
from llm_trader.rpc.reply_budget import Unsent


class UnreadWatch:
    """The unread replies of one connection; its protocol passes `pause_writing` and so on to it."""

    _transport: asyncio.Transport
    _socket: socket.socket

    def __init__(self, gate: Admission, write_timeout_s: float) -> None:
        self._gate = gate
        self._write_timeout_s = write_timeout_s
        self._peer = ""
        self._timer: asyncio.TimerHandle | None = None
        self.unsent = Unsent(self.cut_off, self.buffered_bytes, self.kernel_bytes)

    def connection_made(self, transport: asyncio.Transport, peer: str) -> None:
        self._transport, self._peer = transport, peer
        self._socket = transport.get_extra_info("socket")

    def connection_lost(self) -> None:
        self._stop_timer()
        self.unsent.writable.set()
        self._gate.budget.forget(self.unsent)

    def pause_writing(self) -> None:
        self.unsent.writable.clear()
        self._gate.budget.update(self.unsent, self._gate.clock.now_s())
        self._check_after(self._write_timeout_s)

    def resume_writing(self) -> None:
        self.unsent.writable.set()
        self._gate.budget.update(self.unsent, self._gate.clock.now_s())
        self._stop_timer()

    def buffered_bytes(self) -> int:
        return self._transport.get_write_buffer_size()

    def kernel_bytes(self) -> int:
        """What the kernel has not sent, or the client not acknowledged; 0 where it does not say."""
        count = bytearray(4)
        with contextlib.suppress(OSError, ValueError):
            fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, count)
        return int.from_bytes(count, sys.byteorder)

    def cut_off(self) -> None:
        """Closes the connection, and drops the replies."""
        structlog.get_logger(__name__).info(
            "rpc_connection_cut_off", peer=self._peer, unread_bytes=self.buffered_bytes()
        )
        self._transport.abort()

    def _check_after(self, delay_s: float) -> None:
        self._stop_timer()
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._check)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        """Cuts the client off when it has read nothing for too long."""
        now_s = self._gate.clock.now_s()
        self._gate.budget.update(self.unsent, now_s)
        remaining_s = self.unsent.progress_s + self._write_timeout_s - now_s
        if self.unsent.writable.is_set():
            return
        if remaining_s > 0:
            self._check_after(remaining_s)
        else:
            self.cut_off()
