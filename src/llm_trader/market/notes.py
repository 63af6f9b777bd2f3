"""Small records of `meta` that are about no series.

PREFIX:NAME  -> whatever the writer of the prefix keeps
"""

from __future__ import annotations

from llm_trader.market import checksums, keys
from llm_trader.storage.environment import ReadTransaction, WriteTransaction


def read_notes(txn: ReadTransaction, prefix: str) -> dict[str, bytes]:
    """The contents by name; raises `StoreError` where one differs from its checksum."""
    start, found = f"{prefix}:", {}
    cursor = txn.cursor(keys.META)
    if cursor is None or not cursor.set_range(start.encode()):
        return {}
    for key in cursor.iternext(keys=True, values=False):
        name = bytes(key).decode("utf-8", "replace")
        if not name.startswith(start):
            break
        content = checksums.get_meta(txn, name)
        if content is not None:
            found[name.removeprefix(start)] = content
    return found


def delete_note(txn: WriteTransaction, prefix: str, name: str) -> None:
    checksums.delete_meta(txn, f"{prefix}:{name}")


def put_note(txn: WriteTransaction, prefix: str, name: str, content: bytes) -> None:
    checksums.put_meta(txn, f"{prefix}:{name}", content)
