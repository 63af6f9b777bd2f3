"""Independent pieces of work on several cores, each in a process of its own.

A piece is a function of a module and its arguments, and says how far it is. Results come back in
the order of the pieces, whatever order they end in.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any, Final, NamedTuple

Progress = Callable[[str, int, int], None]
"""Told what is worked on, how much of it is done, and how much there is."""

_END: Final = ("", 0, 0)


class Piece(NamedTuple):
    """`function(*arguments, progress)`; with several cores all of it must be picklable."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]


def run(pieces: Sequence[Piece], jobs: int, progress: Progress) -> list[Any]:
    """What the pieces return. With one job they run here, one after the other."""
    if jobs <= 1 or len(pieces) <= 1:
        return [piece.function(*piece.arguments, progress) for piece in pieces]
    context = mp.get_context("spawn")
    told = context.SimpleQueue()
    listener = threading.Thread(target=_listen, args=(told, progress), daemon=True)
    listener.start()
    try:
        with ProcessPoolExecutor(
            min(jobs, len(pieces)), context, initializer=_begin, initargs=(told,)
        ) as pool:
            waiting = [pool.submit(_work, piece) for piece in pieces]
            try:
                return [of.result() for of in waiting]
            except BaseException:
                # Ctrl-C, or a piece that failed: the others are of no use to anybody.
                pool.shutdown(wait=False, cancel_futures=True)
                for child in mp.active_children():
                    child.terminate()
                raise
    finally:
        told.put(_END)
        listener.join()


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_told: Any = None


def _begin(told: Any) -> None:
    """In a worker: Ctrl-C is the parent's business, and without a parent there is no work."""
    global _told
    _told = told
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = mp.parent_process()
    if parent:
        parent.join()
        os._exit(1)


def _work(piece: Piece) -> Any:
    return piece.function(*piece.arguments, partial(_tell, _told))


def _tell(told: Any, what: str, done: int, total: int) -> None:
    told.put((what, done, total))


def _listen(told: Any, progress: Progress) -> None:
    while (message := told.get()) != _END:
        progress(*message)
