"""JSON-RPC codes of the domain's exceptions, beside those of the protocol."""

from __future__ import annotations

from typing import Final

from llm_trader import errors
from llm_trader.rpc.errors import PROTOCOL_ERRORS, SERVER_ERROR, ErrorKind, ErrorTable

_STORE_ERRORS: Final = (errors.StoreLockedError, errors.InvalidDataError, errors.StoreError)

RAG_ERRORS: Final = ErrorTable(
    (
        *PROTOCOL_ERRORS.kinds,
        ErrorKind(SERVER_ERROR, PROTOCOL_ERRORS.titles[SERVER_ERROR], _STORE_ERRORS, logged=True),
        ErrorKind(-32001, "Insufficient matches", (errors.InsufficientMatchesError,)),
        ErrorKind(-32002, "Symbol not found", (errors.SymbolNotFoundError,)),
        ErrorKind(-32003, "Vector database error", (errors.VectorIndexError,), logged=True),
        ErrorKind(-32004, "Embedding error", (errors.EmbeddingError,)),
        ErrorKind(-32005, "Stale data", (errors.StaleDataError,)),
    )
)
