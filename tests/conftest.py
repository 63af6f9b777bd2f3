from __future__ import annotations

import gc
import ipaddress
import logging
import os
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import structlog

# As the command line does; two busy test workers would otherwise fight over BLAS threads.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from hypothesis import settings

if TYPE_CHECKING:
    from tests.cli.corridor import Corridor

# Collecting four thousand tests makes a million objects that stay; looking for garbage among them
# again and again took a tenth of each worker's time.
gc.disable()


def pytest_collection_finish() -> None:
    gc.enable()
    gc.freeze()
    # Python's own threshold of 700 objects is for programs with less memory than tests have.
    gc.set_threshold(20_000, 10, 10)


_SOAK_AS_A_WHOLE = re.compile(r"^pytestmark = \[?pytest\.mark\.soak", re.MULTILINE)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A file that is for `make soak` as a whole is not imported where none of it would run."""
    if "not soak" not in config.option.markexpr or not collection_path.name.startswith("test_"):
        return None
    return bool(_SOAK_AS_A_WHOLE.search(collection_path.read_text("utf-8"))) or None


# Machines that run these tests may be slow and shared: no test fails for taking long.
# `make test` looks for what is likely to break, `make soak` for what is not.
settings.register_profile("quick", deadline=None, max_examples=10, derandomize=True)
settings.register_profile("thorough", deadline=None, max_examples=100)
# CI looks at the same examples each time: a change fails for what it changed, not by chance.
settings.register_profile("ci", deadline=None, max_examples=100, derandomize=True)
settings.load_profile(os.environ.get("TEST_PROFILE", "quick"))

# No test can reach a paid interface: its process and those that it starts have no key, and no
# connection leaves this machine.
for _name in [*os.environ]:
    if _name.startswith(("ANTHROPIC_", "OPENAI_")):
        del os.environ[_name]

_REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def uncached_loggers() -> Iterator[None]:
    """A logger that was used under the settings of one test would keep them in all later ones."""
    configure = structlog.configure
    with pytest.MonkeyPatch.context() as patch:
        uncached = {"cache_logger_on_first_use": False}
        patch.setattr(structlog, "configure", lambda **given: configure(**{**given, **uncached}))
        set_plain_logging()
        yield


def set_plain_logging() -> None:
    """structlog's defaults without its tracebacks, which take a second to show all local values."""
    structlog.reset_defaults()
    *processors, _ = structlog.get_config()["processors"]
    plain = structlog.dev.ConsoleRenderer(
        colors=False, exception_formatter=structlog.dev.plain_traceback
    )
    structlog.configure(processors=[*processors, plain])


def _is_local(sock: socket.socket, address: Any) -> bool:
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return True
    host = address[0].partition("%")[0]
    if host in ("", "localhost"):
        return True
    try:
        ip = ipaddress.ip_address(host)
        return ip.is_loopback or ip.is_unspecified
    except ValueError:  # a name, which would be looked up elsewhere
        return False


@pytest.fixture(scope="session", autouse=True)
def no_way_out() -> Iterator[None]:
    def guarded(connect: Callable[..., Any]) -> Callable[..., Any]:
        def checked(sock: socket.socket, address: Any) -> Any:
            if not _is_local(sock, address):
                raise PermissionError(f"a test tried to connect to {address}")
            return connect(sock, address)

        return checked

    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, guarded(getattr(socket.socket, name)))
        yield


@pytest.fixture
def restored_logging() -> Iterator[None]:
    """For tests that configure the log, which belongs to the whole process."""
    root, ours = logging.getLogger(), logging.getLogger("llm_trader")
    before = list(root.handlers), root.level, ours.level
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])
    logging.captureWarnings(False)
    set_plain_logging()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real market data, which is no part of this repository."""
    named = os.environ.get("LLM_TRADER_TEST_DATA", "../shared/data")
    folder = (_REPOSITORY / named).resolve()
    if not folder.is_dir():
        pytest.skip(f"no real market data at {folder}; set LLM_TRADER_TEST_DATA to its folder")
    return folder


@pytest.fixture(scope="session")
def corridor(tmp_path_factory: pytest.TempPathFactory) -> Corridor:
    """Sixty days of two symbols in a store, and their index; not to be written to."""
    from tests.cli.corridor import make_corridor

    return make_corridor(tmp_path_factory.mktemp("corridor"))
