"""Columns of numbers that do not fit into memory all at once, in files without a name."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Final

import numpy as np

from llm_trader.arrays import Floats, Rows
from llm_trader.storage.files import write_errors

_BYTES_PER_VALUE: Final = 8
# Per column: up to a million rows stay in memory, some 40 MB for candles.
_BYTES_IN_MEMORY: Final = 8 * 2**20


class ColumnSpool(AbstractContextManager["ColumnSpool"]):
    """Written once in the order of rows, then read by rows. A context manager; frees its files.

    The files lie in `folder`, which should be on the disk that the data are for. The system deletes
    them whatever happens, as they have no name.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, SpooledTemporaryFile[bytes]] = {}

    def __exit__(self, *raised: object) -> None:
        for file in self._files.values():
            file.close()

    @property
    def names(self) -> list[str]:
        return list(self._files)

    def write(self, rows: Rows, columns: Mapping[str, Floats]) -> None:
        """Add the values of increasing rows; those left out between them have none."""
        place = rows - rows[0]
        with write_errors(self._folder):
            for name, values in columns.items():
                dense = np.full(int(place[-1]) + 1, np.nan)
                dense[place] = values
                file = self._file(name)
                file.seek(int(rows[0]) * _BYTES_PER_VALUE)
                file.write(dense.tobytes())

    def read(self, name: str, rows: Rows) -> Floats:
        """The values of rows in any order; it reads all between the first and the last."""
        if not len(rows):
            return np.empty(0)
        first, last = int(rows.min()), int(rows.max())
        file = self._files[name]
        file.seek(first * _BYTES_PER_VALUE)
        dense = np.frombuffer(file.read((last - first + 1) * _BYTES_PER_VALUE))
        return dense[rows - first]

    def _file(self, name: str) -> SpooledTemporaryFile[bytes]:
        if name not in self._files:
            folder = str(self._folder)
            self._files[name] = SpooledTemporaryFile(_BYTES_IN_MEMORY, dir=folder)  # noqa: SIM115
        return self._files[name]
