"""Independent tasks on several cores, in worker processes of `concurrent.futures`.

A task is a function of a module and its arguments. Results come back in the order of the tasks,
whatever order they end in, and do not depend on the number of processes. The tasks wait in files:
early releases of Python 3.11 never end a pool whose pipe is full of them (python/cpython#94777).
"""

from __future__ import annotations

import multiprocessing as mp
import os
import pickle
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any, Final, NamedTuple

from llm_trader.errors import ConfigurationError, LlmTraderError
from llm_trader.progress import Progress

# Progress is shown to people; workers that report often fill a pipe in about a second.
_POLL_S: Final = 0.05


class Task(NamedTuple):
    """`function(*arguments, progress)`; with several processes all of it must be picklable."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]


def run_tasks(tasks: Sequence[Task], jobs: int, progress: Progress) -> list[Any]:
    """The results of the tasks. With one job they run in this process, one after the other.

    The first task that fails ends all: its error is raised, or `ConfigurationError` where a worker
    process dies.
    """
    if jobs <= 1 or len(tasks) <= 1:
        return [task.function(*task.arguments, progress) for task in tasks]
    context = mp.get_context("spawn")
    reports: SimpleQueue[tuple[str, int, int]] = context.SimpleQueue()
    processes = min(jobs, len(tasks))
    executor = ProcessPoolExecutor(processes, context, _start_worker, (reports,))
    others = set(mp.active_children())
    folder = tempfile.TemporaryDirectory(prefix="llm-trader-")
    try:
        files = [_written(task, Path(folder.name) / str(at)) for at, task in enumerate(tasks)]
        with _without_ctrl_c():
            futures = [executor.submit(_run_task, file) for file in files]
        return _results(futures, reports, progress)
    except BrokenProcessPool:
        raise ConfigurationError(
            "a worker process was ended from outside, perhaps for lack of memory; run fewer at "
            "once, as with --jobs 1"
        ) from None
    finally:
        for worker in set(mp.active_children()) - others:
            worker.terminate()
        executor.shutdown(cancel_futures=True)
        folder.cleanup()


def available_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _written(task: Task, file: Path) -> Path:
    file.write_bytes(pickle.dumps(task, pickle.HIGHEST_PROTOCOL))
    return file


def _results(
    futures: Sequence[Future[Any]], reports: SimpleQueue[tuple[str, int, int]], progress: Progress
) -> list[Any]:
    running: set[Future[Any]] = set(futures)
    while running:
        done, running = wait(running, _POLL_S, FIRST_EXCEPTION)
        # A task reports before its result is sent, so nothing is left after the last one.
        while not reports.empty():
            progress(*reports.get())
        for future in done:
            future.result()
    return [future.result() for future in futures]


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Processes started here never receive Ctrl-C; this one receives it at the end."""
    if threading.current_thread() is not threading.main_thread() or os.name != "posix":
        yield
        return
    interrupts: list[int] = []
    # The first process would start it, which unblocks the signal.
    resource_tracker.ensure_running()
    # A blocked signal stays blocked in what is started, but another thread here may receive it.
    handler = signal.signal(signal.SIGINT, lambda number, frame: interrupts.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler or signal.SIG_DFL)
    if interrupts:
        raise KeyboardInterrupt


_reports: SimpleQueue[tuple[str, int, int]]


def _start_worker(reports: SimpleQueue[tuple[str, int, int]]) -> None:
    global _reports
    _reports = reports
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _run_task(file: Path) -> Any:
    try:
        task: Task = pickle.loads(file.read_bytes())  # noqa: S301  written by this one's parent
        file.unlink()
        return task.function(*task.arguments, lambda *report: _reports.put(report))
    except Exception as error:
        # An error whose constructor refuses to be called again travels as its words.
        try:
            pickle.loads(pickle.dumps(error))  # noqa: S301  made by this very process
        except Exception:  # noqa: BLE001  whatever a constructor raises
            raise LlmTraderError(str(error)) from error
        raise


def _exit_with_parent() -> None:
    """Without its parent a worker would compute on for nobody."""
    parent = mp.parent_process()
    if parent:
        parent.join()
        os._exit(1)
