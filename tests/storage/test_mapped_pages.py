"""Memory of what was read of a mapped file."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import lmdb
import pytest

from llm_trader.storage.mapped_pages import release_mapped_pages


def resident_kb(file: Path) -> int:
    """What the system counts of a mapped file as memory of this process."""
    total, is_file = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            is_file = line.endswith(str(file))
        elif is_file and line.startswith("Rss:"):
            total += int(line.split()[1])
    return total


@pytest.mark.skipif(sys.platform != "linux", reason="mappings are listed on Linux alone")
def test_released_pages_are_no_memory_of_the_process_and_can_be_read_again(tmp_path: Path) -> None:
    file = (tmp_path / "data.mdb").resolve()
    with lmdb.open(str(tmp_path), map_size=2**26) as environment:
        with environment.begin(write=True) as txn:
            for number in range(2000):
                txn.put(b"%d" % number, b"x" * 2000)
        for _ in range(2):
            with environment.begin() as txn:
                assert sum(len(value) for _, value in txn.cursor()) == 4_000_000
            assert resident_kb(file) > 3000
            release_mapped_pages(file)
            assert resident_kb(file) < 1000


def test_a_file_that_is_not_mapped_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "plain"
    file.write_bytes(b"content")
    release_mapped_pages(file)
    assert file.read_bytes() == b"content"
