"""Work in several processes gives what it gives in one, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from llm_trader.errors import InvalidInputError, LlmTraderError
from llm_trader.evaluation.workers import Task, available_cores, run_tasks
from tests.cli.corridor import until
from tests.evaluation import pieces

REPOSITORY = Path(__file__).resolve().parents[2]

Heard = list[tuple[str, int, int]]


def ran(of: list[Task], jobs: int) -> tuple[list[object], Heard]:
    heard: Heard = []
    return run_tasks(of, jobs, lambda *told: heard.append(told)), heard


@contextmanager
def working(folder: Path) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """A process with two busy workers, in a process group of its own."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.evaluation.pieces", str(folder)],
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as parent:
        children: list[psutil.Process] = []
        try:
            assert until(lambda: len(list(folder.glob("*.pid"))) == 2, seconds=30)
            children = psutil.Process(parent.pid).children(recursive=True)
            assert {int(path.stem) for path in folder.glob("*.pid")} <= {of.pid for of in children}
            yield parent, children
        finally:
            parent.kill()
            for child in children:
                with suppress(psutil.NoSuchProcess):
                    child.kill()


def ended(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_results_come_in_the_order_of_the_pieces_whatever_order_they_end_in() -> None:
    slow_first = [Task(pieces.square, (n, 0.2 if n == 0 else 0.0)) for n in range(4)]
    alone, told_alone = ran(slow_first, 1)
    together, told_together = ran(slow_first, 2)
    assert alone == together == [0, 1, 4, 9]
    assert sorted(told_alone) == sorted(told_together)
    assert set(told_alone) == {(f"number {n}", done, 1) for n in range(4) for done in (0, 1)}


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_error_of_a_piece_comes_out_as_itself(jobs: int) -> None:
    of = [Task(pieces.fail, ()), Task(pieces.square, (1, 0.0))]
    with pytest.raises(InvalidInputError) as failed:
        ran(of, jobs)
    assert failed.value.message == "this piece cannot be done"


def test_the_first_piece_to_fail_ends_all_the_others() -> None:
    of = [Task(pieces.square, (1, 60.0)), Task(pieces.fail, ())]
    with pytest.raises(InvalidInputError) as failed:
        ran(of, 2)
    # The traceback of the other process is part of the report.
    assert "in fail" in str(failed.value.__cause__)


def test_an_error_that_cannot_be_sent_as_it_is_keeps_its_words() -> None:
    of = [Task(pieces.square, (1, 0.0)), Task(pieces.miss, ())]
    with pytest.raises(LlmTraderError, match="no data for symbol 'DOGEUSDT'; available: BTCUSDT"):
        ran(of, 2)


def test_a_worker_that_was_ended_from_outside_is_an_error_with_a_remedy() -> None:
    # More than a pipe holds is still waiting.
    large = Task(pieces.length, (bytes(1 << 20),))
    of = [Task(pieces.leave, ()), Task(pieces.square, (1, 5.0)), large, large, large]
    with pytest.raises(LlmTraderError, match="--jobs 1"):
        ran(of, 2)


def test_one_piece_needs_no_other_process() -> None:
    here: list[int] = []

    def noted(progress: object) -> None:
        here.append(os.getpid())

    ran([Task(noted, ())], 8)
    assert here == [os.getpid()]


def test_a_killed_parent_leaves_no_worker_behind(tmp_path: Path) -> None:
    with working(tmp_path) as (parent, children):
        os.kill(parent.pid, signal.SIGKILL)
        assert parent.wait(10) == -signal.SIGKILL
        assert until(lambda: all(map(ended, children)), seconds=15)


def test_ctrl_c_ends_all_of_them_without_a_word(tmp_path: Path) -> None:
    with working(tmp_path) as (parent, children):
        os.killpg(parent.pid, signal.SIGINT)
        _, said = parent.communicate(timeout=15)
        assert (parent.returncode, said) == (130, "")
        assert until(lambda: all(map(ended, children)), seconds=15)


def test_there_is_a_core_to_work_on() -> None:
    assert 1 <= available_cores() <= (os.cpu_count() or 1)
