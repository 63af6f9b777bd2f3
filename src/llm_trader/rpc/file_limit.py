"""How many connections the limit of open files leaves room for."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Final

import structlog

from llm_trader.errors import ConfigurationError

# For connections that are turned away, for a store or an index that is opened anew, for the log.
SPARE_FILES: Final = 96

_log = structlog.get_logger(__name__)


def connections_within_file_limit(wanted: int, *, open_now: int = 0) -> int:
    """Raises the soft limit of open files if need be; fewer connections where that is not enough.

    Raises `ConfigurationError` if there is room for none.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _open_files() - open_now + SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        limit = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        if limit > soft:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            soft = limit
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    possible = wanted - (needed - soft)
    if possible < 1:
        raise ConfigurationError(
            f"the process may open {soft} files, and {needed} are needed for {wanted} connections; "
            "raise the limit (ulimit -n)"
        )
    _log.warning(
        "rpc_connections_limited",
        wanted=wanted,
        possible=possible,
        open_files_limit=soft,
        remedy=f"raise the limit of open files (ulimit -n {needed}), or lower max_connections",
    )
    return possible


def _open_files() -> int:
    folder = Path("/dev/fd")
    return len(os.listdir(folder)) if folder.exists() else SPARE_FILES
