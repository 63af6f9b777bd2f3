"""The errors of a server as exceptions, by their JSON-RPC codes.

RpcError (llm_trader.rpc.conversation)
├── InvalidRequest, MethodNotFound, ServerFault   mend the request, or tell the operator
├── InvalidParams                                 `errors` says which fields and why
├── InsufficientMatches                           ask for more, `suggestion` says how
├── SymbolNotFound, StaleData, IndexFailed, EmbeddingFailed
├── Unauthorized                                  send a token that the server knows
├── RateLimited, Overloaded                       `retry_after_ms`; repeated by the client itself
└── DeadlineExceeded                              ask for less, or give it more time

`ConnectionLostError` and `NoReplyError` say that no reply came.
"""

from __future__ import annotations

from typing import Any, Final

from llm_trader.errors import LlmTraderError
from llm_trader.rpc.conversation import RpcError
from llm_trader.rpc.errors import ErrorObject


class InvalidRequest(RpcError):  # noqa: N818  named after the protocol's own titles
    code = "rpc_invalid_request"


class MethodNotFound(RpcError):  # noqa: N818
    code = "rpc_method_not_found"


class InvalidParams(RpcError):  # noqa: N818
    code = "rpc_invalid_params"

    @property
    def errors(self) -> list[dict[str, str]]:
        """A `field` and an `error` for each refused parameter."""
        return list(_details(self).get("errors", []))


class ServerFault(RpcError):  # noqa: N818
    code = "rpc_server_fault"


class InsufficientMatches(RpcError):  # noqa: N818
    code = "rpc_insufficient_matches"

    @property
    def suggestion(self) -> str:
        return str(_details(self).get("suggestion", ""))


class SymbolNotFound(RpcError):  # noqa: N818
    code = "rpc_symbol_not_found"


class IndexFailed(RpcError):  # noqa: N818
    code = "rpc_index_failed"


class EmbeddingFailed(RpcError):  # noqa: N818
    code = "rpc_embedding_failed"


class StaleData(RpcError):  # noqa: N818
    code = "rpc_stale_data"


class Unauthorized(RpcError):  # noqa: N818
    code = "rpc_unauthorized"


class RateLimited(RpcError):  # noqa: N818
    code = "rpc_rate_limited"


class Overloaded(RpcError):  # noqa: N818
    code = "rpc_overloaded"


class DeadlineExceeded(RpcError):  # noqa: N818
    code = "rpc_deadline_exceeded"


ERRORS: Final[dict[int, type[RpcError]]] = {
    -32700: InvalidRequest,
    -32600: InvalidRequest,
    -32601: MethodNotFound,
    -32602: InvalidParams,
    -32603: ServerFault,
    -32000: ServerFault,
    -32001: InsufficientMatches,
    -32002: SymbolNotFound,
    -32003: IndexFailed,
    -32004: EmbeddingFailed,
    -32005: StaleData,
    -32010: Unauthorized,
    -32011: RateLimited,
    -32012: Overloaded,
    -32013: DeadlineExceeded,
}


def error_of(error: ErrorObject) -> RpcError:
    """The exception for an error; the base class for a code that is not known here."""
    return ERRORS.get(error.code, RpcError)(error)


def typed(error: LlmTraderError) -> LlmTraderError:
    """A refusal of a whole connection with its own type, as the answer to each of its calls."""
    if type(error) is RpcError:
        return error_of(ErrorObject(error.rpc_code, error.message, error.data))
    return error


def retry_after_s(error: RpcError) -> float | None:
    """What the server asks to wait for, if it does."""
    wait_ms = _details(error).get("retry_after_ms")
    return wait_ms / 1000 if isinstance(wait_ms, int | float) else None


def _details(error: RpcError) -> dict[str, Any]:
    return error.data if isinstance(error.data, dict) else {}
