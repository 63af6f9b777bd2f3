"""A file that stops new positions in every process while it exists."""

from __future__ import annotations

from pathlib import Path

from llm_trader.storage.files import write_atomically, write_errors
from llm_trader.timeframe import Millis, iso8601
from llm_trader.workflow.moved_files import refuse_old_place

_LONGEST_REASON = 500


class KillSwitch:
    """It is looked up before each order, so that it holds at once and needs no messages."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def reason(self) -> str | None:
        """Why nothing is traded; None where the switch is off.

        A file that exists and cannot be read stops trading as well. Raises `ConfigurationError`
        where one lies at its former place.
        """
        try:
            text = self.path.read_bytes()[:_LONGEST_REASON].decode("utf-8", "replace").strip()
        except FileNotFoundError:
            refuse_old_place(self.path)
            return None
        except OSError as error:
            text = f"it cannot be read: {error.strerror}"
        return f"the kill switch {self.path} is on ({text or 'no reason given'})"

    def turn_on(self, reason: str, now_ms: Millis) -> None:
        """On disk when this returns. Raises `ConfigurationError` where it cannot be written."""
        with write_errors(self.path.parent):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, f"{iso8601(now_ms)} {reason}\n".encode())

    def turn_off(self) -> bool:
        """False where it was off.

        Raises `ConfigurationError` where one lies at its former place.
        """
        with write_errors(self.path.parent):
            was_on = self.path.exists()
            self.path.unlink(missing_ok=True)
        refuse_old_place(self.path)
        return was_on
