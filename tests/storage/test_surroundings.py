"""What disk, owner, limits and other containers refuse is said with its cause and remedy."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from llm_trader.errors import StoreError, StoreLockedError
from llm_trader.storage.environment import Environment
from llm_trader.storage.writer_lock import WriterLock
from tests.market.processes import hear, running, tell
from tests.storage.test_environment import FORMAT, get, put, store_with

_REPOSITORY = Path(__file__).resolve().parents[2]

PRELUDE = """
import os, resource, sys
from pathlib import Path
from llm_trader.errors import LlmTraderError
from llm_trader.storage.environment import Environment
from llm_trader.storage.writer_lock import WriterLock
from tests.storage.test_environment import FORMAT, get, put
path = Path(sys.argv[1])

def say(*words):
    print(*words, flush=True)

def tried(work):
    try:
        say("done:", work())
    except LlmTraderError as error:
        say("refused:", error.message)
"""
HOLD = """
say("pid", os.getpid())
lock = WriterLock(path)
with Environment(path, FORMAT) as held, held.read():
    say("reading")
    sys.stdin.readline()
"""


def run(program: str, path: Path, *before: str) -> list[str]:
    line = [*before, sys.executable, "-c", PRELUDE + program, str(path)]
    ended = subprocess.run(line, capture_output=True, text=True, cwd=_REPOSITORY, timeout=60)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


def as_nobody(program: str, path: Path) -> list[str]:
    try:
        return run(f"os.setgid(65534); os.setuid(65534)\n{program}", path)
    except AssertionError as error:
        # Another user may be unable to read this environment's modules.
        if any(
            word in str(error)
            for word in ("Operation not permitted", "ImportError", "ModuleNotFound")
        ):
            pytest.skip("needs the right to become another user, who can read this program")
        raise


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter; pytest's own are private."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def namespace_holding(path: Path) -> Iterator[None]:
    """A process that is number 1 of a PID namespace of its own, as in a container."""
    command = ["unshare", "--pid", "--fork"]
    if shutil.which("unshare") is None or subprocess.run([*command, "true"]).returncode:
        pytest.skip("needs the right to make PID namespaces")
    with subprocess.Popen(
        [*command, sys.executable, "-c", PRELUDE + HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=_REPOSITORY,
    ) as holder:
        assert [hear(holder), hear(holder)] == ["pid 1", "reading"]
        try:
            yield
        finally:
            holder.communicate("\n")


def test_two_containers_on_one_volume_are_told_apart_and_what_to_do(tmp_path: Path) -> None:
    folder = store_with(tmp_path / "store", b"1")
    with namespace_holding(folder):
        program = """
for write in (False, True):
    tried(lambda: Environment(path, FORMAT, write=write))
tried(lambda: WriterLock(path))
"""
        read, write, lock = run(program, folder, "unshare", "--pid", "--fork")
        for answer in (read, write):
            assert "another process with the same number (1) has it open" in answer
            assert "give them one PID namespace" in answer
        assert "process 1 of another container is writing to" in lock
        with pytest.raises(StoreLockedError, match="process 1 of another container"):
            WriterLock(folder)
        # Other numbers are no obstacle.
        with Environment(folder, FORMAT) as reader:
            assert get(reader) == b"1"


def test_a_full_disk_says_which_and_for_whom_and_nothing_is_lost(tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "size=400k") as disk:
        folder = disk / "store"
        with Environment(folder, FORMAT, write=True) as writer:
            put(writer, b"1")
            with pytest.raises(StoreError) as refusal:
                put(writer, bytes(10**6))
            said = str(refusal.value)
            assert f"the disk of {folder} is full: " in said
            assert "of 0 MiB are free for user root; nothing of this write is kept" in said
            assert get(writer) == b"1"
            put(writer, b"2")
            assert get(writer) == b"2"


def test_a_user_without_the_right_is_told_whose_the_file_is(open_folder: Path) -> None:
    folder = store_with(open_folder / "store", b"1")
    program = """
for write in (False, True):
    tried(lambda: Environment(path, FORMAT, write=write))
tried(lambda: WriterLock(path))
"""
    for answer in as_nobody(program, folder):
        assert f"may not write to {folder}" in answer
        assert "which belongs to user root (mode " in answer
        assert "run as that user, or give user" in answer


def test_a_limit_of_the_address_space_is_named_with_the_setting(tmp_path: Path) -> None:
    program = """
resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))
tried(lambda: Environment(path, FORMAT, write=True))
with Environment(path, FORMAT, write=True, map_size_bytes=2**26) as writer:
    put(writer, b"2")
with Environment(path, FORMAT) as reader:
    say(get(reader))
"""
    refused, read = run(program, store_with(tmp_path, b"1"))
    assert "its map needs 16384 MiB of address space, and this process may use 2048 MiB" in refused
    assert "raise the limit (ulimit -v unlimited), or lower test.map_size_mib" in refused
    assert read == "b'2'"


def test_a_read_only_medium_can_be_read_and_says_so_when_it_is_written_to(tmp_path: Path) -> None:
    with mounted(tmp_path / "medium", "size=4m") as medium:
        folder = store_with(medium / "store", b"1")
        remount = ["mount", "-o", "remount,ro", str(medium)]
        subprocess.run(remount, check=True)
        for immutable in (False, True):
            with Environment(folder, FORMAT, immutable=immutable) as reader:
                assert get(reader) == b"1"
        program = "tried(lambda: Environment(path, FORMAT, write=True))"
        assert "is mounted read-only" in run(program, folder)[0]


def test_an_immutable_store_is_read_without_a_trace(open_folder: Path) -> None:
    folder = store_with(open_folder / "store", b"1")
    (folder / "lock.mdb").unlink()
    program = """
with Environment(path, FORMAT, immutable=True) as reader:
    say(get(reader), sorted(os.listdir(path)))
"""
    assert as_nobody(program, folder) == ["b'1' ['data.mdb']"]


def test_a_writer_in_this_process_is_still_told_so(tmp_path: Path) -> None:
    lock = WriterLock(tmp_path)
    with pytest.raises(StoreError, match="in this process"):
        WriterLock(tmp_path)
    lock.release()


def test_a_reader_with_a_small_map_follows_a_writer_that_outgrows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_trader.storage.environment._SMALLEST_READ_MAP_BYTES", 2**18)
    program = """
from llm_trader.storage.environment import Environment
from tests.storage.test_environment import FORMAT
with Environment(path, FORMAT, write=True) as writer:
    while wait():
        with writer.write("data") as txn:
            for number in range(40):
                txn.put("data", b"%d" % number, bytes(40_000))
        say("written")
"""
    with running(program, tmp_path) as writer:
        tell(writer)
        assert hear(writer) == "written"
        with Environment(tmp_path, FORMAT) as reader:
            with reader.read() as txn:
                assert txn.count("data") == 40
            tell(writer)
            assert hear(writer) == "written"
            with reader.read() as txn:
                assert txn.count("data") == 40
