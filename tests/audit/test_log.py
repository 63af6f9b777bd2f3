from __future__ import annotations

import re
import resource
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
import structlog

from llm_trader.storage.chain.lines import torn_digest
from tests.audit.builders import events, files, lines, request, verify, write, writing
from tests.processes import Forked
from tests.rpc.stub import connected, serving


def test_a_line_has_who_what_and_what_came_of_it_and_no_words_of_the_client(
    tmp_path: Path,
) -> None:
    with writing(tmp_path) as log:
        log(request(1, code=-32602))
        log(request(2, method="my-secret-typed-as-a-method", code=-32601))
    _, known, unknown, _ = map(msgspec.json.decode, lines(files(tmp_path)[0]))
    assert (known["key_id"], known["method"], known["code"]) == ("k1", "rag.stats", -32602)
    assert unknown["method"] == "unknown"
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_chain_goes_on_where_the_last_process_closed_it(tmp_path: Path) -> None:
    for _ in range(3):
        write(tmp_path, 2)
    assert events(tmp_path) == ["opened", "request", "request", "closed"] * 3
    assert verify(tmp_path).passed


def test_processes_at_once_have_chains_of_their_own(tmp_path: Path) -> None:
    with writing(tmp_path) as one, writing(tmp_path) as two:
        one(request(1))
        two(request(2))
        report = verify(tmp_path)
        assert report.passed
        assert [chain.lines for chain in report.chains] == [2, 2]
    write(tmp_path, 1)  # the first chain is free again
    assert [chain.lines for chain in verify(tmp_path).chains] == [6, 3]


def killed(folder: Path, part: int) -> bytes:
    """Leaves a log whose process was killed when a part of a line was written; returns the part."""
    with writing(folder) as log:
        log(request(1))
        head = (folder / "audit-0.head").read_bytes()
        log(request(2))
        content = files(folder)[0].read_bytes()
    whole = content.splitlines(keepends=True)[-1]
    files(folder)[0].write_bytes(content.removesuffix(whole) + whole[:part])
    (folder / "audit-0.head").write_bytes(head)
    return whole[:part]


@pytest.mark.parametrize("part", [1, 50, -2])
def test_what_a_killed_process_left_of_a_line_is_vouched_for(tmp_path: Path, part: int) -> None:
    torn = killed(tmp_path, part)
    report = verify(tmp_path)
    assert report.passed
    assert report.chains[0].torn_lines == 1
    write(tmp_path, 1)
    report = verify(tmp_path)
    assert report.passed
    assert (report.chains[0].torn_lines, report.chains[0].lines) == (1, 5)
    # From then on no byte of it can be changed.
    path = files(tmp_path)[0]
    path.write_bytes(path.read_bytes().replace(b"\n" + torn + b"\n", b"\nX\n", 1))
    assert not verify(tmp_path).passed


def test_a_line_that_lacks_only_its_end_is_a_line(tmp_path: Path) -> None:
    killed(tmp_path, -1)
    write(tmp_path, 1)
    report = verify(tmp_path)
    assert report.passed
    assert (report.chains[0].torn_lines, report.chains[0].lines) == (0, 6)


def test_a_last_line_that_was_changed_before_a_restart_is_no_torn_line(tmp_path: Path) -> None:
    write(tmp_path, 3)
    path = files(tmp_path)[0]
    path.write_bytes(path.read_bytes()[:-10] + b'abcdefg"}\n')
    with structlog.testing.capture_logs() as logs:
        write(tmp_path, 1)
    assert [log["event"] for log in logs] == ["audit_lines_missing"]
    assert any("were lost" in p.problem for p in verify(tmp_path).chains[0].problems)


_WRITER = """
import sys
from pathlib import Path
from tests.audit.builders import request, writing
with writing(Path(sys.argv[1])) as log:
    print("ready", flush=True)
    number = 0
    while True:
        log(request(number))
        number += 1
"""


def test_a_log_survives_kill_9_in_the_middle_of_writing(tmp_path: Path) -> None:
    for _ in range(3):
        with Forked(
            [sys.executable, "-c", _WRITER, str(tmp_path)], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.1)
            process.send_signal(signal.SIGKILL)
    write(tmp_path, 1)
    (chain,) = verify(tmp_path).chains
    assert chain.problems == []
    assert chain.lines > 10
    assert events(tmp_path).count("opened") == 4


@contextmanager
def no_more_than(size: int) -> Iterator[None]:
    """No file of this process may become larger: what a full disk does to a write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)


def test_lines_that_a_full_disk_refuses_are_counted_and_the_chain_goes_on(tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as logs, writing(tmp_path) as log:
        log(request(0))
        with no_more_than(files(tmp_path)[0].stat().st_size + 100):
            for number in range(7):
                log(request(number))
        assert log.lost == 7
        log(request(8))
    assert [entry["event"] for entry in logs] == ["audit_log_failed", "audit_log_written_again"]
    report = verify(tmp_path)
    assert report.passed
    assert (report.chains[0].lost_lines, report.chains[0].torn_lines) == (7, 1)


async def test_a_full_disk_stops_no_answer(tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as logs, writing(tmp_path) as log:
        async with serving(observers=[log]) as server, connected(server) as line:
            with no_more_than(50):
                for _ in range(20):
                    assert (await line.call("subtract", [5, 3]))["result"] == 2
            assert "result" in await line.call("rpc.ping")
    assert log.lost == 20
    assert [e["event"] for e in logs if e["event"].startswith("audit")] == [
        *("audit_log_failed", "audit_log_written_again")
    ]
    assert verify(tmp_path).passed


async def test_the_line_of_a_request_is_written_when_its_reply_arrives(tmp_path: Path) -> None:
    with writing(tmp_path) as log:
        async with serving(observers=[log]) as server, connected(server) as line:
            await line.call("subtract", [5, 3])
            assert events(tmp_path) == ["opened", "request"]


def test_the_digest_of_torn_bytes_is_their_sha256() -> None:
    # By the sha256sum command.
    assert torn_digest(b"abc") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def test_a_line_can_be_checked_with_the_tools_of_a_shell(tmp_path: Path) -> None:
    """The form of a line is a promise: everything before its hash, hashed."""
    write(tmp_path, 1)
    raw = lines(files(tmp_path)[0])[0]
    match = re.fullmatch(rb'(.*),"hash":"([0-9a-f]{64})"}\n', raw)
    assert match
    command = ["sha256sum"]
    done = subprocess.run(command, input=match[1], capture_output=True, check=True)
    assert done.stdout.split()[0] == match[2]
