from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llm_trader.errors import ConfigurationError
from llm_trader.workflow.kill_switch import KillSwitch
from tests.workflow.builders import START_MS

_WATCHING = """
import sys, time
from pathlib import Path
from llm_trader.workflow.kill_switch import KillSwitch
switch, before = KillSwitch(Path(sys.argv[1])), None
print("watching", flush=True)
while True:
    reason = switch.reason()
    if reason != before:
        print(reason, flush=True)
        before = reason
    time.sleep(0.01)
"""


def test_it_is_off_until_turned_on_and_says_why_and_since_when(tmp_path: Path) -> None:
    switch = KillSwitch(tmp_path / "deep" / "kill")
    assert switch.reason() is None
    switch.turn_on("the API key leaked", START_MS)
    reason = switch.reason()
    assert reason is not None
    assert "2023-11-15T00:00:00Z the API key leaked" in reason
    assert str(switch.path) in reason
    assert switch.turn_off()
    assert switch.reason() is None
    assert not switch.turn_off()


def test_an_empty_file_made_by_hand_is_enough(tmp_path: Path) -> None:
    (tmp_path / "kill").touch()
    assert "no reason given" in (KillSwitch(tmp_path / "kill").reason() or "")


def test_what_exists_and_cannot_be_read_stops_trading(tmp_path: Path) -> None:
    (tmp_path / "kill").mkdir()
    assert "cannot be read" in (KillSwitch(tmp_path / "kill").reason() or "")


def test_a_switch_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="cannot write"):
        KillSwitch(tmp_path / "file" / "kill").turn_on("now", START_MS)


def test_every_other_process_sees_it_within_a_second(tmp_path: Path) -> None:
    switch = KillSwitch(tmp_path / "kill")
    arguments = [sys.executable, "-c", _WATCHING, str(switch.path)]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    others = [
        subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=environ)
        for _ in range(2)
    ]
    try:
        lines = [other.stdout for other in others if other.stdout is not None]
        assert [line.readline() for line in lines] == ["watching\n"] * 2
        switch.turn_on("stop", START_MS)
        begun = time.monotonic()
        assert all("stop" in line.readline() for line in lines)
        switch.turn_off()
        assert [line.readline() for line in lines] == ["None\n"] * 2
        assert time.monotonic() - begun < 60  # seen at all; how soon is up to who asks
    finally:
        for other in others:
            other.kill()
            other.wait()
            if other.stdout is not None:
                other.stdout.close()
