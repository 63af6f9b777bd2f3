"""`make demo-trading` from end to end."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

_SCRIPT = Path(__file__).parents[1] / "scripts" / "demo_trading.py"
_DAY, _WITH_KILLS = 2 * 96, 2 * 4 * 4

pytestmark = pytest.mark.soak


@pytest.mark.timeout(600)
def test_the_trading_demo_decides_on_a_day_and_bears_the_kills(tmp_path: Path) -> None:
    pytest.importorskip("ccxt")
    pytest.importorskip("dbos")
    done = subprocess.run(
        [sys.executable, str(_SCRIPT)], capture_output=True, text=True, cwd=tmp_path, timeout=580
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert max(map(len, done.stdout.splitlines())) <= 80
    _, day, with_kills = re.split(r"\n(?:The day|With the kills), .*:\n", done.stdout)
    for text, count in ((day, _DAY), (with_kills, _WITH_KILLS)):
        assert _decided(text) == (count, count, count)
        assert f"{count} durable runs, all done" in text
        assert "books     balanced: " in text
        opened, closed = _fills(text)
        assert opened > 0
        assert closed > 0
    assert _without_evidence(day) < _DAY / 10
    assert _without_evidence(with_kills) >= _WITH_KILLS / 2
    assert day.count("is killed by SIGKILL") == 2
    assert re.search(r"resumed   \w+-\w+-\w+: done, one order", with_kills)
    assert f"baseline  {_WITH_KILLS // 2} decisions without the server" in with_kills
    assert list(tmp_path.iterdir()) == []


def _decided(text: str) -> tuple[int, int, int]:
    """All decisions, their sum by action, and with HOLDs by their kind."""
    found = re.search(
        r"decisions (\d+): (\d+) LONG, (\d+) SHORT, (\d+) HOLD "
        r"\(by (\d+) model, (\d+) guard, (\d+) error\)",
        text,
    )
    assert found is not None
    count, long, short, hold, *kinds = map(int, found.groups())
    return count, long + short + hold, long + short + sum(kinds)


def _fills(text: str) -> tuple[int, int]:
    found = re.search(r"fills     (\d+): (\d+) opened, (\d+) closed", text)
    assert found is not None
    count, opened, closed = map(int, found.groups())
    assert count == opened + closed
    return opened, closed


def _without_evidence(text: str) -> int:
    found = re.search(r"evidence  \d+ with .*?,\s+(\d+)\s+without", text, re.DOTALL)
    assert found is not None
    return int(found[1])
