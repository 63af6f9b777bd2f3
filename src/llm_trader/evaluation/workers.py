"""Independent pieces of work on several cores, in processes of their own.

A piece is a function of a module and its arguments, and says how far it is. Results come back in
the order of the pieces, whatever order they end in. Each process has a line of its own to this one:
where several shared a queue, one that is ended while it writes would leave it locked for all.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, Final, NamedTuple, TypeAlias, cast

from llm_trader.errors import ConfigurationError, LlmTraderError
from llm_trader.progress import Progress

_ENDED: Final = (
    "a worker process was ended from outside, perhaps for want of memory; take fewer with --jobs 1"
)


_Line: TypeAlias = "Connection[Any, Any]"


class Piece(NamedTuple):
    """`function(*arguments, progress)`; with several cores all of it must be picklable."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]


class _Told(NamedTuple):
    what: str
    done: int
    total: int


class _Done(NamedTuple):
    result: Any


class _Failed(NamedTuple):
    error: Exception


def run(pieces: Sequence[Piece], jobs: int, progress: Progress) -> list[Any]:
    """What the pieces return. With one job they run here, one after the other.

    The first to fail ends all; raises its error, and `ConfigurationError` where a process dies.
    """
    if jobs <= 1 or len(pieces) <= 1:
        return [piece.function(*piece.arguments, progress) for piece in pieces]
    workers: list[_Worker] = []
    try:
        with _deaf_to_ctrl_c():
            for _ in range(min(jobs, len(pieces))):
                workers.append(_Worker())
        return _results([of.line for of in workers], pieces, progress)
    except (EOFError, ConnectionError):
        raise ConfigurationError(_ENDED) from None
    finally:
        for worker in workers:
            worker.end()


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Worker:
    """A process that does one piece after the other."""

    def __init__(self) -> None:
        context = mp.get_context("spawn")
        self.line, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()  # so that the end of the process is the end of the line

    def end(self) -> None:
        self._process.terminate()
        self._process.join()
        self.line.close()


def _results(lines: Sequence[_Line], pieces: Sequence[Piece], progress: Progress) -> list[Any]:
    """Of all pieces, each given to whoever is free."""
    left = iter(enumerate(pieces))
    results: list[Any] = [None] * len(pieces)
    busy: dict[Any, int] = {}

    def give(line: _Line) -> None:
        for place, piece in left:
            busy[line] = place
            line.send(piece)
            return

    for free in lines:
        give(free)
    while busy:
        for ready in wait(list(busy)):
            line = cast(_Line, ready)
            said = line.recv()
            if isinstance(said, _Told):
                progress(*said)
            elif isinstance(said, _Failed):
                raise said.error
            else:
                results[busy.pop(line)] = said.result
                give(line)
    return results


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Processes started meanwhile never hear of it; this one does at the end."""
    if threading.current_thread() is not threading.main_thread() or os.name != "posix":
        yield
        return
    heard: list[int] = []
    resource_tracker.ensure_running()  # or the first process would start it, which unmasks
    # What is masked is masked in what is started, but another thread of this process may hear it.
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, before or signal.SIG_DFL)
    if heard:
        raise KeyboardInterrupt


def _serve(line: _Line) -> None:
    """In a worker: Ctrl-C is the parent's business, and without a parent there is no work."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(EOFError, ConnectionError):
        while True:
            piece: Piece = line.recv()
            line.send(_answered(piece, lambda *told: line.send(_Told(*told))))


def _answered(piece: Piece, progress: Progress) -> _Done | _Failed:
    try:
        return _Done(piece.function(*piece.arguments, progress))
    except Exception as error:  # noqa: BLE001  it is raised again where it is heard
        return _Failed(_sendable(error))


def _sendable(error: Exception) -> Exception:
    """With where it happened, which would be lost on the way."""
    error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  of this very process
    except Exception:  # noqa: BLE001  whatever its constructor makes of too few arguments
        return LlmTraderError(str(error))
    return error


def _end_with_parent() -> None:
    parent = mp.parent_process()
    if parent:
        parent.join()
        os._exit(1)
