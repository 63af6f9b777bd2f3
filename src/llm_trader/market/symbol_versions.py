"""A version of each symbol's data: it changes with every write of that symbol, and no other.

    writes                 -> [last transaction, epoch]
    symbol_version:SYMBOL  -> the last transaction that wrote this symbol

The original program, and earlier versions of this one, write without leaving a version. The last
transaction betrays them: while it is not the one in `writes`, the transaction itself is the
version of every symbol, and the next versioned write begins a new epoch.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

import msgspec

from llm_trader.market import keys
from llm_trader.storage.environment import ReadTransaction, WriteTransaction

_WRITES: Final = b"writes"
_decode_writes = msgspec.json.Decoder(tuple[int, int]).decode


def symbol_version(txn: ReadTransaction, symbol: str) -> Hashable:
    generation, transaction = txn.version
    last, epoch = _last_write(txn)
    if last != transaction:
        return generation, transaction
    return generation, epoch, txn.get(keys.META, _key(symbol))


def stamp_symbol(txn: WriteTransaction, symbol: str) -> None:
    """Give a symbol a new version; the last step of a transaction that writes its data."""
    transaction = txn.version[1]
    last, epoch = _last_write(txn)
    if last != transaction - 1:  # some other program has written in between
        epoch += 1
    txn.put(keys.META, _WRITES, msgspec.json.encode((transaction, epoch)))
    txn.put(keys.META, _key(symbol), b"%d" % transaction)


def _last_write(txn: ReadTransaction) -> tuple[int, int]:
    stored = txn.get(keys.META, _WRITES)
    return (-1, 0) if stored is None else _decode_writes(stored)


def _key(symbol: str) -> bytes:
    return b"symbol_version:" + symbol.encode()
