"""A process that makes processes which make a call and are killed; for `test_kills.py`.

`python -m tests.llm.record.killed_calls URL` reads lines of `ORDER FOLDER QUESTION`, forks, and
writes the state of the call, unless the child dies before, and then `end`. With the order `between`
the child kills itself between the reply and its record; with a number it is killed after so many
milliseconds; with `finish` it lives.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from llm_trader.app.llm_deciders import DeciderChoice, open_llm_decider
from llm_trader.llm.providers.protocol import Message
from llm_trader.llm.record.calls import CallLog
from tests.llm.decider_at_stub import NOW_MS, job_at


async def _call(url: str, folder: Path, question: str) -> str:
    job = job_at(url, folder, llm__daily_budget_usd=100.0)
    opening = open_llm_decider(job, DeciderChoice(), origin="test", clock=lambda: NOW_MS)
    async with opening as decider:
        request = decider.make_request("You trade.", (Message("user", question),), {}, 0)
        used = await decider.calls.complete(request, symbol="BTCUSDT")
    return f"{used.call.state} {used.is_new}"


def _write(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _killed(*arguments: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _child(order: str, url: str, folder: Path, question: str) -> None:
    if order == "between":
        CallLog.replied = _killed  # type: ignore[assignment]
    _write(asyncio.run(_call(url, folder, question)))


def main() -> None:
    import anthropic  # noqa: F401  once, and not in each child

    url = sys.argv[1]
    _write("ready")
    for line in sys.stdin:
        order, folder, question = line.split()
        child = os.fork()
        if child == 0:
            _child(order, url, Path(folder), question)
            os._exit(0)
        if order.isdigit():
            time.sleep(int(order) / 1000)
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        _write("end killed" if os.WIFSIGNALED(status) else "end")


if __name__ == "__main__":
    main()
