"""A running server notices what happens to its embedded index, also while nobody asks."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.corridor import Corridor, console_script, copied, serving_process
from tests.cli.test_processes import line_to
from tests.processes import run

# The bound is a second; a machine that runs these tests may be slow.
BOUND_S = 5


def logged(process: subprocess.Popen[str], event: str) -> dict[str, Any]:
    began = time.monotonic()
    for text in process.stderr or ():
        line = json.loads(text)
        if line["event"] == event:
            assert time.monotonic() - began < BOUND_S
            return dict(line)
    raise AssertionError(f"the server ended without {event}")


@pytest.mark.soak
def test_a_deleted_index_is_logged_and_refused_and_a_rebuilt_one_is_followed(
    corridor: Corridor, tmp_path: Path
) -> None:
    index, away = copied(corridor.index, tmp_path / "index"), tmp_path / "away"
    places = ["--store", str(corridor.store), "--index", str(index)]
    with serving_process(*places) as (process, port), line_to(port) as line:

        def stats() -> Any:
            line.send((1, "rag.stats", None))
            return line.receive()

        before = stats()["result"]
        index.rename(away)
        refused = logged(process, "index_refused")
        assert (refused["level"], refused["path"]) == ("warning", str(index))
        assert "was removed while it was open; put it back, or" in refused["reason"]
        assert "was removed while it was open" in json.dumps(stats()["error"])
        away.rename(index)
        logged(process, "index_answers_again")
        assert stats()["result"]["index"]["symbols"] == before["index"]["symbols"]

        rebuild = [console_script("llm-trader"), "index", "rebuild", *places]
        run(rebuild).check_returncode()
        assert logged(process, "store_replaced")["path"] == str(index)
        assert stats()["result"]["index"]["symbols"] == before["index"]["symbols"]

        damaged = bytearray((index / "data.mdb").read_bytes())
        damaged[len(damaged) // 2] ^= 1
        (tmp_path / "damaged").write_bytes(damaged)
        shutil.move(tmp_path / "damaged", index / "data.mdb")
        assert "llm-trader index rebuild" in logged(process, "index_refused")["reason"]
        assert "is damaged" in json.dumps(stats()["error"])

        # A damaged index is built again, and the server follows that, too.
        run(rebuild).check_returncode()
        logged(process, "index_answers_again")
        assert stats()["result"]["index"]["symbols"] == before["index"]["symbols"]
