"""What a person sees: lines that stay, and on a terminal one that is written over."""

from __future__ import annotations

import shutil
import sys
import textwrap
import time
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from llm_trader.llm.record.decisions import RecordedDecision
from llm_trader.timeframe import Millis

_BAR: Final = 24
_NAMES: Final = 10
_WIDTH: Final = 80


class Screen:
    def __init__(self) -> None:
        self._is_terminal = sys.stdout.isatty()
        self._started_s = time.monotonic()
        self._is_over = False

    def seconds(self) -> float:
        return time.monotonic() - self._started_s

    def say(self, text: str = "") -> None:
        self.end()
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    def progress(self, done: int, count: int, text: str) -> None:
        """On a terminal alone; `say` takes its place."""
        if not self._is_terminal:
            return
        full = _BAR * done // count
        bar = f"   [{'=' * full}{' ' * (_BAR - full)}] {text}"
        width = shutil.get_terminal_size().columns - 1
        sys.stdout.write(f"\r\x1b[K{bar[:width]}")
        sys.stdout.flush()
        self._is_over = True

    def end(self) -> None:
        """Removes the line that is written over."""
        if self._is_over:
            sys.stdout.write("\r\x1b[K")
            sys.stdout.flush()
            self._is_over = False

    def named(self, name: str, text: str) -> None:
        indent = f"   {'':<{_NAMES}}"
        self.say(
            textwrap.fill(
                text,
                _WIDTH,
                initial_indent=f"   {name:<{_NAMES}}",
                subsequent_indent=indent,
                break_on_hyphens=False,
            )
        )


def decision_line(one: RecordedDecision, equity: Decimal) -> str:
    """A decision with its evidence, and what the account is worth."""
    decision = one.decision
    price = "n/a" if one.snapshot.price is None else f"{one.snapshot.price:,.0f}"
    action = decision.action if not one.vetoes else f"{decision.action} vetoed"
    return (
        f"{clock_time(one.as_of_ms)} {one.symbol[:3]} {price:>6} {action:<12} "
        f"{evidence_text(one):<38} {equity:>9,.2f}"
    )


def evidence_text(one: RecordedDecision) -> str:
    if not one.has_evidence or one.answer is None:
        return "no evidence: baseline prompt"
    evidence = one.answer.evidence
    horizon = evidence.horizons.get("4h")
    text = f"{evidence.verdict}, {len(one.answer.matches)} alike"
    if horizon is None:
        return text
    return f"{text}, 4h {horizon.mean.value:+.2f} [{horizon.mean.base_rate:+.2f}] %"


def clock_time(time_ms: Millis) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%H:%M")
