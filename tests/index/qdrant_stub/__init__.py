"""A Qdrant server for tests: Qdrant's own engine behind Qdrant's own gRPC and some of its REST.

It runs as a process of its own. `start` gives a fixture its address, and ways to misbehave.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.processes import Forked

# Containers have 64 MB there, and a full one would end the engine.
_ROOM_BYTES = 2 << 30
ROOT = Path(__file__).resolve().parents[3]


@dataclass
class Stub:
    """A running stub; `kill` and `launch` keep its folder and its ports."""

    folder: Path
    api_key: str | None = None
    peers: int = 1
    grpc_port: int = 0
    http_port: int = 0
    process: subprocess.Popen[bytes] = field(init=False, repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    def launch(self) -> None:
        command = [sys.executable, "-m", __name__, "--folder", str(self.folder)]
        command += ["--grpc-port", str(self.grpc_port), "--http-port", str(self.http_port)]
        command += ["--peers", str(self.peers)]
        if self.api_key is not None:
            command += ["--api-key", self.api_key]
        # The stub ends when its standard input does, so it never outlives the tests.
        self.process = Forked(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        line = self.process.stdout.readline() if self.process.stdout else b""
        if not line:
            raise RuntimeError(f"the stub did not start: exit code {self._reap()}")
        ports = json.loads(line)
        self.grpc_port, self.http_port = ports["grpc_port"], ports["http_port"]

    def kill(self) -> None:
        """SIGKILL: nothing is flushed, nothing is closed."""
        self.process.kill()
        self._reap()

    def restart(self) -> None:
        self.kill()
        self.launch()

    def _reap(self) -> int:
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            return self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self._reap()

    def _control(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/stub/{path}", data, method=method)
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.load(reply)

    def fail_next(
        self,
        calls: int = 1,
        code: str = "UNAVAILABLE",
        *,
        methods: Sequence[str] = (),
        applied: bool = False,
        retry_after_s: int | None = None,
    ) -> None:
        """The next gRPC calls (of `methods`, such as "Points/Query") fail.

        With `applied` they take effect first, as when only the reply is lost.
        """
        self._control(
            "POST",
            "faults",
            {
                "calls": calls,
                "code": code,
                "methods": list(methods),
                "applied": applied,
                "retry_after_s": retry_after_s,
            },
        )

    def delay(self, milliseconds: float, *, methods: Sequence[str] = ()) -> None:
        self._control("POST", "delay", {"milliseconds": milliseconds, "methods": list(methods)})

    def calls(self) -> dict[str, int]:
        """gRPC calls so far by method ("Points/Query"), REST ones as "GET /collections"."""
        return self._control("GET", "calls")

    def forget_calls(self) -> None:
        self._control("DELETE", "calls")

    def behave(self) -> None:
        """No more faults and delays."""
        self._control("DELETE", "faults")


@contextlib.contextmanager
def start(
    *,
    api_key: str | None = None,
    peers: int = 1,
    grpc_port: int = 0,
    http_port: int = 0,
) -> Iterator[Stub]:
    """In a folder of its own, which is in memory where there is room.

    The engine syncs so much that on a disk a collection takes seconds to make.
    """
    memory = Path("/dev/shm")
    has_room = memory.is_dir() and shutil.disk_usage(memory).free > _ROOM_BYTES
    parent = memory if has_room else None
    with tempfile.TemporaryDirectory(dir=parent, ignore_cleanup_errors=True) as folder:
        stub = Stub(Path(folder), api_key, peers, grpc_port, http_port)
        stub.launch()
        try:
            yield stub
        finally:
            stub.stop()
