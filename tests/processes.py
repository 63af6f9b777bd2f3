"""The project's programs as processes of their own, forked from one that has loaded their modules.

Some two hundred of them would otherwise import everything anew, which took a third of the tests'
time. What is about the start itself, or about a limit of memory, uses `subprocess`.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Sequence
from multiprocessing import reduction
from pathlib import Path
from typing import Any

_REPOSITORY = Path(__file__).resolve().parents[1]
_STREAMS = 3
# The bits of a status that `os.waitpid` gives.
_EXIT_SHIFT = 8


class Forked(subprocess.Popen[Any]):
    """`subprocess.Popen` of a console script, or of Python with `-c` or `-m`."""

    def _execute_child(
        self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo,
        creationflags, shell, p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite, *more,
    ) -> None:  # fmt: skip
        # A session of its own is the sixth of the others.
        if preexec_fn or pass_fds or shell or more[5]:
            raise NotImplementedError("use subprocess.Popen for this")
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tests.preloaded"])
        own = (p2cread, c2pwrite, errwrite)
        streams = _Streams([number if fd == -1 else fd for number, fd in enumerate(own)])
        environ = dict(os.environ if env is None else env)
        folder = str(Path.cwd() if cwd is None else cwd)
        self._child = context.Process(
            target=_run, args=([os.fspath(arg) for arg in args], environ, folder, streams)
        )
        try:
            self._child.start()
        finally:
            self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)
        self.pid = self._child.pid or 0
        self._child_created = True

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        if self.returncode is None:
            self.returncode = self._child.exitcode
        return self.returncode

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        if not wait_flags & os.WNOHANG:
            self._child.join()
        code = self._child.exitcode
        if code is None:
            return 0, 0
        return self.pid, -code if code < 0 else code << _EXIT_SHIFT


def run(
    command: Sequence[str], timeout: float | None = 60, **options: Any
) -> subprocess.CompletedProcess[Any]:
    """`subprocess.run` with its output captured as text."""
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    with Forked(command, **given) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


class _Streams:
    """Three descriptors that a forked process takes over as its standard streams."""

    def __init__(self, descriptors: list[int]) -> None:
        self._descriptors = descriptors

    def __getstate__(self) -> list[Any]:
        return [reduction.DupFd(descriptor) for descriptor in self._descriptors]

    def __setstate__(self, duplicates: list[Any]) -> None:
        self._descriptors = [duplicate.detach() for duplicate in duplicates]

    def take_over(self) -> None:
        # Above the three, lest one overwrites another.
        high = [os.dup(fd) if fd < _STREAMS else fd for fd in self._descriptors]
        for number, descriptor in enumerate(high):
            os.dup2(descriptor, number)
            os.close(descriptor)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115


def _run(command: list[str], environ: dict[str, str], folder: str, streams: _Streams) -> None:
    streams.take_over()
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(folder)
    program, *arguments = command
    match arguments:
        case ["-c", code, *rest]:
            sys.argv = ["-c", *rest]
            exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
        case ["-m", module, *rest]:
            sys.argv = [module, *rest]
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        case _:
            sys.argv = command
            _entry_of(Path(program).name)()


def _entry_of(script: str) -> Any:
    from llm_trader.cli import main

    return {
        "llm-trader": main.main,
        "rag-ingest": main.rag_ingest,
        "rag-rpc-server": main.rag_rpc_server,
    }[script]
