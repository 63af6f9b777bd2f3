"""The one table of Qdrant's errors: which are its own, and what an operator should do."""

from __future__ import annotations

import importlib
from typing import Any, Final, NamedTuple

from llm_trader.errors import ConfigurationError, VectorIndexError, raised_inside
from llm_trader.index.qdrant.config import QdrantServer

EXTRA: Final = 'pip install "llm-trader-rag[qdrant]"'

# What a server does with the API key, over gRPC and REST alike; to be formatted with `key`.
REJECTED_KEY: Final = "does not accept the API key in {key}"
WEAK_KEY: Final = "does not allow this with the API key in {key}; it needs one with more rights"
TLS_FAILS: Final = "fails at TLS; check that it speaks https, and index.qdrant.ca_file"

_CLIENT: Final = ("qdrant_client", "grpc")
_START: Final = "is it running? docker compose up -d qdrant"
_GRPC: Final = "is index.qdrant.grpc_port its gRPC port, and the server 1.17 or newer?"


class CollectionGoneError(VectorIndexError):
    """The collection does not exist any more; its alias may lead to another by now."""


class Failure(NamedTuple):
    """A `passing` failure is worth another try, at the earliest in `wait_s`."""

    error: VectorIndexError
    passing: bool = False
    wait_s: float = 0.0


def key_of(server: QdrantServer) -> str:
    """The source of the API key, for messages."""
    return f"${server.api_key_env}" if server.api_key_env else "index.qdrant.api_key_env"


# What the server does, by the name of the gRPC status; to be formatted with `server` and `key`.
_WORDS: Final = {
    "UNAVAILABLE": f"cannot be reached; {_START}",
    "DEADLINE_EXCEEDED": "did not answer within {server.timeout_s:g} s; look at its load, or raise "
    "index.qdrant.timeout_s",
    "UNAUTHENTICATED": REJECTED_KEY,
    "PERMISSION_DENIED": WEAK_KEY,
    "RESOURCE_EXHAUSTED": "is out of resources; look at its memory, disk and limits",
    "NOT_FOUND": "does not have the collection any more; make one with: "
    "rag-ingest --qdrant-url {server.shown_url}",
    "INVALID_ARGUMENT": f"refuses the request as invalid; {_GRPC}",
    "UNIMPLEMENTED": f"does not know this call; {_GRPC}",
}
_MISSING_KEY: Final = "wants an API key; name its environment variable in {key}"

# Cause and remedy of a lost connection, by a word in its details.
_CONNECTIONS: Final = {
    "dns": "has a name that cannot be resolved; check index.qdrant.url",
    "resolving": "has a name that cannot be resolved; check index.qdrant.url",
    "http/2": "speaks no gRPC there; check index.qdrant.grpc_port",
    "ssl": TLS_FAILS,
    "certificate": "fails at TLS; check index.qdrant.ca_file",
    "connection refused": f"refuses connections; {_START}",
}
_TLS: Final = ("ssl", "certificate")
_LOST: Final = ("Stream removed", "RST_STREAM", "Socket closed", "GOAWAY")


def raised_by_client(error: Exception) -> bool:
    """Whether the server or the client fails, and not this program."""
    grpc: Any = importlib.import_module("grpc")
    aio: Any = importlib.import_module("grpc.aio")
    client: Any = importlib.import_module("qdrant_client.common.client_exceptions")
    client_errors = (grpc.RpcError, aio.BaseError, client.QdrantException)
    # Our own deadline of a call is a TimeoutError.
    if isinstance(error, (*client_errors, TimeoutError)):
        return True
    # The client has no classes of its own for odd replies, a closed client, and its local mode.
    plain = isinstance(error, AssertionError | RuntimeError | ValueError)
    return plain and raised_inside(error, _CLIENT)


def failure_of(error: Exception, server: QdrantServer, action: str) -> Failure:
    """A failed call as the error to raise; `action` says what the call was for."""
    own_deadline = isinstance(error, TimeoutError)
    status = "DEADLINE_EXCEEDED" if own_deadline else _status(error)
    details = "" if own_deadline else _details(error)
    if server.api_key:
        details = details.replace(server.api_key, "***")
    lost = status == "UNAVAILABLE" or any(word in details for word in _LOST)
    words = _WORDS.get("UNAVAILABLE" if lost else status, "fails; look at its log")
    if words == REJECTED_KEY and server.api_key is None:
        words = _MISSING_KEY
    does, reason = words.format(server=server, key=key_of(server)), details
    if lost:
        does = next((w for sign, w in _CONNECTIONS.items() if sign in details.lower()), does)
        reason = "" if does in _CONNECTIONS.values() else details
    message = f"Qdrant at {server.address} {does} (while {action}{': ' + reason if reason else ''})"
    kind = CollectionGoneError if status == "NOT_FOUND" else VectorIndexError
    wait_s = float(getattr(error, "retry_after_s", 0))
    hopeless = any(sign in details.lower() for sign in _TLS)
    passing = (lost and not hopeless) or status == "DEADLINE_EXCEEDED" or wait_s > 0
    return Failure(kind(message, status=status.lower()), passing, wait_s)


def _status(error: Exception) -> str:
    code = getattr(error, "code", None)
    if callable(code):
        return str(getattr(code(), "name", "UNKNOWN"))
    return "RESOURCE_EXHAUSTED" if hasattr(error, "retry_after_s") else "UNKNOWN"


def _details(error: Exception) -> str:
    details = getattr(error, "details", None)
    return str((details() if callable(details) else None) or error)


def malformed(server: QdrantServer, problem: str) -> VectorIndexError:
    return VectorIndexError(
        f"Qdrant at {server.address} answered what this version cannot read ({problem}); was the "
        "collection changed by another program? llm-trader index rebuild builds it anew"
    )


def missing_extra() -> ConfigurationError:
    return ConfigurationError(f"a Qdrant index needs the extra: {EXTRA}")


def unreadable_ca_file(server: QdrantServer, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"index.qdrant.ca_file {server.ca_file} cannot be read: {error.strerror or error}"
    )
