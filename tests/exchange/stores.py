"""The contents of a market store, for comparisons."""

from __future__ import annotations

from pathlib import Path

import lmdb


def rows_of(folder: Path) -> dict[str, dict[bytes, bytes]]:
    """The records of all series by database, byte for byte."""
    environment = lmdb.open(str(folder), readonly=True, max_dbs=128, lock=False)
    try:
        return {
            name: records
            for name, records in _databases(environment).items()
            if name.startswith("candles_") or name in ("funding", "open_interest")
        }
    finally:
        environment.close()


def meta_of(folder: Path, beginning: str) -> dict[bytes, bytes]:
    """The records of `meta` whose keys begin so."""
    environment = lmdb.open(str(folder), readonly=True, max_dbs=128, lock=False)
    try:
        meta = _databases(environment)["meta"]
        return {key: value for key, value in meta.items() if key.startswith(beginning.encode())}
    finally:
        environment.close()


def _databases(environment: lmdb.Environment) -> dict[str, dict[bytes, bytes]]:
    with environment.begin() as txn:
        names = [key.decode() for key, _ in txn.cursor()]
    contents = {}
    for name in names:
        database = environment.open_db(name.encode(), create=False)
        with environment.begin(database) as txn:
            contents[name] = {bytes(key): bytes(value) for key, value in txn.cursor()}
    return contents
