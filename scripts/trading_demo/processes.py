"""Processes whose output, lines of JSON, becomes events."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Self

Event = dict[str, Any]

_LONGEST_STOP_S: Final = 20.0
_LINES_KEPT: Final = 20


class DemoError(Exception):
    """Something that the demo claims did not happen; the message says what."""


class Process:
    """A context manager: at its end the process is asked to stop, and killed if it does not."""

    def __init__(self, name: str, command: Sequence[str], environ: Mapping[str, str]) -> None:
        self.name = name
        self._last_lines: deque[str] = deque(maxlen=_LINES_KEPT)
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._popen = subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environ,
            text=True,
            errors="replace",
        )
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self._popen.pid

    def event(self, is_it: Callable[[Event], bool], longest_s: float) -> Event:
        """The next event of a kind; others before it are passed over."""
        return self.events(is_it, longest_s)[-1]

    def events(self, is_it: Callable[[Event], bool], longest_s: float) -> list[Event]:
        """All events up to the next one of a kind, with it."""
        end_s, found = time.monotonic() + longest_s, list[Event]()
        while (left_s := end_s - time.monotonic()) > 0:
            event = self.next_event(left_s)
            if event is not None:
                found.append(event)
                if is_it(event):
                    return found
        raise DemoError(f"the {self.name} did not get so far within {longest_s:g} s:\n{self.said}")

    def next_event(self, wait_s: float) -> Event | None:
        """None where none came; raises `DemoError` if the process has ended."""
        try:
            found = self._events.get(timeout=max(wait_s, 0.0))
        except queue.Empty:
            return None
        if not found:
            raise DemoError(f"the {self.name} ended unasked:\n{self.said}")
        return found

    def check(self) -> None:
        """Raises `DemoError` if the process has ended."""
        if self._popen.poll() is not None:
            raise DemoError(f"the {self.name} ended unasked:\n{self.said}")

    def has_ended(self) -> bool:
        return self._popen.poll() is not None

    def ended_by(self, longest_s: float = _LONGEST_STOP_S) -> signal.Signals | None:
        """Waits for its end; the signal that ended it, None if it ended by itself."""
        code = self._popen.wait(longest_s)
        return signal.Signals(-code) if code < 0 else None

    def kill(self) -> None:
        self._popen.kill()
        self._popen.wait()

    def stop(self) -> None:
        """As an operator would, by SIGTERM."""
        if self._popen.poll() is None:
            self._popen.terminate()
        try:
            self._popen.wait(_LONGEST_STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
        self._reading.join()

    @property
    def said(self) -> str:
        """Its last lines."""
        return "\n".join(self._last_lines)

    def _read(self) -> None:
        for line in self._popen.stdout or ():
            try:
                event = json.loads(line)
            except ValueError:
                event = None
            if isinstance(event, dict):
                self._events.put(event)
            self._last_lines.append(line.rstrip())
        self._events.put({})


def environ_of(settings: Mapping[str, str], prefix: str, paths: Sequence[str]) -> dict[str, str]:
    """Without the settings of the environment, such as of a real index, and without keys."""
    own = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(prefix) and not name.endswith("_API_KEY")
    }
    ours = {f"{prefix}{name}": value for name, value in settings.items()}
    path = os.pathsep.join([*paths, *filter(None, sys.path)])
    return {**own, **ours, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "NO_PROXY": "127.0.0.1"}
