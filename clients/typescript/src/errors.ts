/**
 * What can go wrong, as classes; `kind` names the class where `instanceof` cannot be used.
 *
 * RagError
 * ├── RpcError                                     the server answered with an error: `code`, `data`
 * │   ├── InvalidRequest, MethodNotFound, ServerFault   mend the request, or tell the operator
 * │   ├── InvalidParams                                 `errors` says which fields and why
 * │   ├── InsufficientMatches                           ask for more, `suggestion` says how
 * │   ├── SymbolNotFound, StaleData, IndexFailed, EmbeddingFailed
 * │   ├── Unauthorized                                  send a token that the server knows
 * │   ├── RateLimited, Overloaded                       `retryAfterMs`; repeated by the client itself
 * │   └── DeadlineExceeded                              ask for less, or give it more time
 * ├── ConnectionLostError    connect again; the server may have taken the call or not
 * ├── NoReplyError           wait longer, or ask for less; the server may still be at work
 * ├── UnexpectedResultError  use the client of the server's version
 * ├── InvalidInputError      correct what was given to this client
 * └── ClientClosedError      make another client
 */

import type { ErrorCode, ErrorObject } from "./wire.js";

export class RagError extends Error {
  readonly kind: string = "rag";

  constructor(message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = new.target.name;
  }
}

export class ConnectionLostError extends RagError {
  override readonly kind = "connection_lost";
}

export class NoReplyError extends RagError {
  override readonly kind = "no_reply";
}

export class UnexpectedResultError extends RagError {
  override readonly kind = "unexpected_result";
}

export class InvalidInputError extends RagError {
  override readonly kind = "invalid_input";
}

export class ClientClosedError extends RagError {
  override readonly kind = "client_closed";

  constructor() {
    super("this client is closed; make another one");
  }
}

export class RpcError extends RagError {
  override readonly kind: string = "rpc";
  /** The JSON-RPC code, such as -32001. */
  readonly code: number;
  /** More about it; depends on the code. */
  readonly data: unknown;

  constructor(error: ErrorObject) {
    super(error.message);
    this.code = error.code;
    this.data = error.data ?? null;
  }
}

export class InvalidRequest extends RpcError {
  override readonly kind = "rpc_invalid_request";
}

export class MethodNotFound extends RpcError {
  override readonly kind = "rpc_method_not_found";
}

/** One refused parameter: its dotted path, such as `current_state.rsi_7`, and why. */
export interface FieldError {
  readonly field: string;
  readonly error: string;
}

export class InvalidParams extends RpcError {
  override readonly kind = "rpc_invalid_params";

  /** Each refused parameter. */
  get errors(): readonly FieldError[] {
    const errors = detail(this, "errors");
    return Array.isArray(errors) ? errors.filter(isFieldError) : [];
  }
}

export class ServerFault extends RpcError {
  override readonly kind = "rpc_server_fault";
}

export class InsufficientMatches extends RpcError {
  override readonly kind = "rpc_insufficient_matches";

  /** What to ask instead; empty if the server has no suggestion. */
  get suggestion(): string {
    const suggestion = detail(this, "suggestion");
    return typeof suggestion === "string" ? suggestion : "";
  }

  get matchesFound(): number | null {
    return numberOf(this, "matches_found");
  }

  get minRequired(): number | null {
    return numberOf(this, "min_required");
  }
}

export class SymbolNotFound extends RpcError {
  override readonly kind = "rpc_symbol_not_found";
}

export class IndexFailed extends RpcError {
  override readonly kind = "rpc_index_failed";
}

export class EmbeddingFailed extends RpcError {
  override readonly kind = "rpc_embedding_failed";
}

export class StaleData extends RpcError {
  override readonly kind = "rpc_stale_data";
}

export class Unauthorized extends RpcError {
  override readonly kind = "rpc_unauthorized";
}

export class RateLimited extends RpcError {
  override readonly kind = "rpc_rate_limited";

  /** What the server asks to wait for; null if it does not say. */
  get retryAfterMs(): number | null {
    return numberOf(this, "retry_after_ms");
  }
}

export class Overloaded extends RpcError {
  override readonly kind = "rpc_overloaded";

  /** What the server asks to wait for; null if it does not say. */
  get retryAfterMs(): number | null {
    return numberOf(this, "retry_after_ms");
  }
}

export class DeadlineExceeded extends RpcError {
  override readonly kind = "rpc_deadline_exceeded";
}

// Every code of the server has a class: the compiler refuses this table when one is missing.
const CLASSES: Readonly<Record<ErrorCode, new (error: ErrorObject) => RpcError>> = {
  [-32700]: InvalidRequest,
  [-32600]: InvalidRequest,
  [-32601]: MethodNotFound,
  [-32602]: InvalidParams,
  [-32603]: ServerFault,
  [-32000]: ServerFault,
  [-32001]: InsufficientMatches,
  [-32002]: SymbolNotFound,
  [-32003]: IndexFailed,
  [-32004]: EmbeddingFailed,
  [-32005]: StaleData,
  [-32010]: Unauthorized,
  [-32011]: RateLimited,
  [-32012]: Overloaded,
  [-32013]: DeadlineExceeded,
};

/** The error of an error reply; of a code that is not known here, `RpcError` itself. */
export function errorOf(error: ErrorObject): RpcError {
  const known = Object.hasOwn(CLASSES, error.code) ? CLASSES[error.code as ErrorCode] : RpcError;
  return new known(error);
}

function detail(error: RpcError, name: string): unknown {
  const { data } = error;
  return typeof data === "object" && data !== null ? (data as Record<string, unknown>)[name] : undefined;
}

function numberOf(error: RpcError, name: string): number | null {
  const value = detail(error, name);
  return typeof value === "number" ? value : null;
}

function isFieldError(value: unknown): value is FieldError {
  if (typeof value !== "object" || value === null) return false;
  const { field, error } = value as Record<string, unknown>;
  return typeof field === "string" && typeof error === "string";
}
