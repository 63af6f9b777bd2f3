"""Memory of mapped files.

What a process reads of a mapped file counts as its memory until the file is closed, though the
system could take it back at any time. A long import would seem to need all that it has read.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path
from typing import Final

_MAPS: Final = Path("/proc/self/maps")


def release_mapped_pages(file: Path) -> None:
    """Unload the pages of a file that this process has mapped for reading.

    They stay in the cache of the system, and reading loads them again. Does nothing where the
    system does not list mappings, as outside Linux.
    """
    if not _MAPS.exists():
        return
    madvise = ctypes.CDLL(None, use_errno=True).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    path = os.path.realpath(file)
    for line in _MAPS.read_text("utf-8", "replace").splitlines():
        addresses, rights, _, _, _, *name = line.split(maxsplit=5)
        # A shared mapping alone: private changes would be lost.
        if name == [path] and rights.endswith("s"):
            first, end = (int(address, 16) for address in addresses.split("-"))
            madvise(first, end - first, mmap.MADV_DONTNEED)
