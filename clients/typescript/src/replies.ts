/** JSON-RPC documents as text: requests out, replies in. */

import { InvalidInputError } from "./errors.js";
import type { ErrorObject } from "./wire.js";

const SHOWN_CHARS = 80;

export type Outcome =
  | { readonly error: ErrorObject }
  | { readonly error: null; readonly result: unknown };

export interface Reply {
  /** Null where the server could not tell which call it refuses. */
  readonly id: number | null;
  readonly outcome: Outcome;
}

/** A line with its end. Throws `InvalidInputError` for what JSON has no form of. */
export function encodeRequest(id: number, method: string, params: object): string {
  try {
    return `${JSON.stringify({ jsonrpc: "2.0", method, id, params }, refuseInfinity)}\n`;
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new InvalidInputError(`${method}: the parameters are no JSON: ${reason}`, { cause: error });
  }
}

/** The reply of a line; null for a notification. Throws for a line that is neither. */
export function readReply(line: string): Reply | null {
  let document: unknown;
  try {
    document = JSON.parse(line);
  } catch {
    throw new SyntaxError(`this is no JSON: ${excerpt(line)}`);
  }
  const reply = isObject(document) ? document : {};
  if (typeof reply["method"] === "string" && reply["id"] === undefined) return null;
  const id = reply["id"] ?? null;
  const outcome = readOutcome(reply);
  if (outcome === null || !(id === null || typeof id === "number")) {
    throw new SyntaxError(`this is no reply of JSON-RPC: ${excerpt(line)}`);
  }
  return { id, outcome };
}

function readOutcome(reply: Record<string, unknown>): Outcome | null {
  const error = reply["error"] ?? null;
  if (error === null) return "result" in reply ? { error: null, result: reply["result"] } : null;
  if (!isObject(error)) return null;
  const { code, message, data } = error;
  return typeof code === "number" && typeof message === "string" ? { error: { code, message, data } } : null;
}

// NaN is a missing value and becomes null; an infinite one is a mistake and would as well.
function refuseInfinity(key: string, value: unknown): unknown {
  if (value === Infinity || value === -Infinity) throw new RangeError(`${key} is ${String(value)}`);
  return value;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function excerpt(line: string): string {
  return JSON.stringify(line.length > SHOWN_CHARS ? `${line.slice(0, SHOWN_CHARS)}…` : line);
}
