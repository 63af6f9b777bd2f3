"""`make demo-trading` from end to end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

_SCRIPT = Path(__file__).parents[1] / "scripts" / "demo_trading.py"
_QUARTERS = 96
_DECISIONS = 2 * _QUARTERS


def _environ(temporary: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(temporary)}


def _figure(pattern: str, text: str) -> list[int]:
    return [int(found.replace(",", "")) for found in re.findall(pattern, text, re.MULTILINE)]


@pytest.mark.soak
@pytest.mark.timeout(400)
def test_two_days_are_decided_and_traded_once_whatever_is_killed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(_SCRIPT)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=_environ(tmp_path),
        timeout=380,
    )
    said = done.stdout
    assert done.returncode == 0, f"{said}\n{done.stderr}"
    assert done.stderr == ""
    assert _figure(r"^   Decisions +(\d+):", said) == [_DECISIONS, _DECISIONS]
    for kinds in re.findall(r"^   Decisions +\d+: (.*)", said, re.MULTILINE):
        assert sum(map(int, re.findall(r"\d+", kinds))) == _DECISIONS
    first, second = _figure(r"^   Evidence +(\d+) decisions", said)
    assert 0.9 * _DECISIONS <= first <= _DECISIONS
    assert 0.45 * _DECISIONS <= second <= _DECISIONS / 2
    assert _figure(r"^   No RAG +(\d+) decisions", said) == [_DECISIONS // 2]
    runs = _figure(r"^   Runs +(\d+) of", said)
    assert runs == [_DECISIONS, 2 * _DECISIONS]
    assert len(re.findall(r"^   Books +balance", said, re.MULTILINE)) == 2
    assert (
        len(re.findall(r"^   Workflow +back in [\d.]+ s; the order of .*: one fill$", said, re.M))
        == 1
    )
    assert min(_figure(r"^   Fills +(\d+)$", said)) > 0
    assert min(_figure(r"^   Tokens +([\d,]+) in", said)) > 0
    assert max(map(len, said.splitlines())) <= 80
    assert list(tmp_path.iterdir()) == []


@pytest.mark.soak
def test_it_leaves_no_process_and_no_file_when_it_is_interrupted(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, str(_SCRIPT)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=_environ(tmp_path),
    ) as demo:
        started = psutil.Process(demo.pid)
        end_s = time.monotonic() + 60
        while len(children := started.children(recursive=True)) < 3:
            assert time.monotonic() < end_s, "the demo started no processes"
            time.sleep(0.1)
        demo.send_signal(signal.SIGINT)
        _, said = demo.communicate(timeout=60)
    assert demo.returncode == 130
    assert said == "\nStopped; every process has ended.\n"
    assert not [child for child in children if child.is_running()]
    assert list(tmp_path.iterdir()) == []
