"""Every command prints on terminals whose encoding lacks letters."""

from __future__ import annotations

import os
import subprocess

import pytest

from llm_trader.timeframe import iso8601
from tests.cli.corridor import AT_MS, SYMBOL, console_script


@pytest.mark.parametrize(
    ("environ", "shown"),
    [
        ({"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}, "+/-"),
        ({"PYTHONIOENCODING": "utf-8"}, "±"),
    ],
)
def test_a_query_prints_whatever_the_terminal_can(
    served_port: int, environ: dict[str, str], shown: str
) -> None:
    flags = ["--port", str(served_port), "--symbol", SYMBOL, "--at", iso8601(AT_MS)]
    ended = subprocess.run(
        [console_script("llm-trader"), "query", *flags],
        env=os.environ | environ,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert shown in ended.stdout.decode(environ["PYTHONIOENCODING"])


def test_other_letters_and_messages_of_errors_keep_their_escapes() -> None:
    ended = subprocess.run(
        [console_script("llm-trader"), "data", "info", "--store", "/no/Zürich–Ω"],
        env=os.environ | {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert b"Traceback" not in ended.stderr
    assert rb"\xfcrich" in ended.stderr
