"""The server of the demos: a process of its own, without the settings of the environment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from llm_trader.errors import ConfigurationError

_SERVER = "import sys; from llm_trader.cli.main import rag_rpc_server; sys.exit(rag_rpc_server())"
_LINES_KEPT = 50


@contextmanager
def demo_server(
    store: Path, index: Path, flags: Sequence[str] = (), **settings: str
) -> Iterator[tuple[int, int]]:
    """Runs a server process, yields its ports of TCP and HTTP, and stops it with SIGTERM.

    The process does not see the settings of the environment, such as tokens or a log level, but
    `settings`, which are environment variables.
    """
    from llm_trader.settings.tree import ENV_PREFIX

    # Any free port, so that a demo does not meet a running server.
    command = [sys.executable, "-c", _SERVER, "--port", "0", "--min-matches", "1", *flags]
    command += ["--store", str(store.absolute()), "--index", str(index.absolute())]
    environ = {k: v for k, v in os.environ.items() if not k.startswith(ENV_PREFIX)}
    # In a folder where no settings file lies, because a server would read one.
    process = subprocess.Popen(  # noqa: S603  our own
        command, stderr=subprocess.PIPE, text=True, cwd=index, env=environ | settings
    )
    log = _Log(process)
    try:
        yield log.ports()
    finally:
        process.terminate()
        process.wait(timeout=30)
        log.reader.join()
    # Ctrl-C reaches the server, too, which may then have no more care for SIGTERM.
    if process.returncode not in (0, -signal.SIGTERM):
        raise ConfigurationError(
            f"the server ended with exit code {process.returncode}: {''.join(log.lines)}"
        )


class _Log:
    """Reads the log to its end, as a server whose log nobody reads stands still in the end."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.lines: list[str] = []
        self._http_port = self._port = 0
        self._is_known = threading.Event()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def ports(self) -> tuple[int, int]:
        self._is_known.wait()
        if not self._port:
            raise ConfigurationError("the server did not start: " + "".join(self.lines[-5:]))
        return self._port, self._http_port

    def _read(self) -> None:
        for line in self._process.stderr or ():
            self.lines = [*self.lines[-_LINES_KEPT:], line]
            # HTTP listens first.
            if "http_listening" in line:
                self._http_port = int(json.loads(line)["port"])
            elif "rpc_listening" in line:
                self._port = int(json.loads(line)["port"])
                self._is_known.set()
        self._is_known.set()
