"""`make demo-live` from end to end."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

_SCRIPT = Path(__file__).parents[1] / "scripts" / "demo_live.py"
_ANSWER = re.compile(
    r"2025-04-\d\d \d\d:\d\d  (\w+) [\d.,]+: (-[\d.]+ to \+[\d.]+ %); most like 2025-0"
)


@pytest.mark.soak
def test_the_live_demo_answers_each_posted_snapshot_and_its_answers_move(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(_SCRIPT), "--boundaries", "3"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    answers = _ANSWER.findall(done.stdout)
    assert len(answers) == 6
    assert {symbol for symbol, _ in answers} == {"BTCUSDT", "ETHUSDT"}
    assert len({expected for _, expected in answers}) > 2
    assert "5. All have stopped." in done.stdout
    assert list(tmp_path.iterdir()) == []
