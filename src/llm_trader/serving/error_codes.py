"""JSON-RPC codes of the domain's exceptions, beside those of the protocol."""

from __future__ import annotations

from typing import Final

from llm_trader.errors import (
    EmbeddingError,
    InsufficientMatchesError,
    InvalidDataError,
    StaleDataError,
    StoreError,
    StoreLockedError,
    SymbolNotFoundError,
    VectorIndexError,
)
from llm_trader.rpc.errors import PROTOCOL_ERRORS, SERVER_ERROR

INSUFFICIENT_MATCHES: Final = -32001
SYMBOL_NOT_FOUND: Final = -32002
VECTOR_DATABASE_ERROR: Final = -32003
EMBEDDING_ERROR: Final = -32004
STALE_DATA: Final = -32005

RAG_ERRORS: Final = PROTOCOL_ERRORS.extended(
    codes={
        StoreLockedError: SERVER_ERROR,
        InvalidDataError: SERVER_ERROR,
        StoreError: SERVER_ERROR,
        InsufficientMatchesError: INSUFFICIENT_MATCHES,
        SymbolNotFoundError: SYMBOL_NOT_FOUND,
        VectorIndexError: VECTOR_DATABASE_ERROR,
        EmbeddingError: EMBEDDING_ERROR,
        StaleDataError: STALE_DATA,
    },
    titles={
        INSUFFICIENT_MATCHES: "Insufficient matches",
        SYMBOL_NOT_FOUND: "Symbol not found",
        VECTOR_DATABASE_ERROR: "Vector database error",
        EMBEDDING_ERROR: "Embedding error",
        STALE_DATA: "Stale data",
    },
    logged=frozenset({VECTOR_DATABASE_ERROR}),
)
