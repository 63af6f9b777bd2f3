/** Whether and when a call is sent again. Nothing here reads a clock: time is an argument. */

import { ConnectionLostError, Overloaded, RateLimited, ServerFault } from "./errors.js";

const FIRST_WAIT_MS = 50;
const LONGEST_WAIT_MS = 2000;

export interface RetryPolicy {
  /** Attempts in all; 1 never sends a call again. */
  readonly attempts: number;
}

/**
 * How long to wait before the next attempt after the `attempt`th; null: give up.
 *
 * A server that refuses a call as limited, overloaded or stopping has not begun it, so any call may
 * be sent again. A lost connection says nothing about that, so only a call that changes nothing, a
 * `repeatable` one, is. A wait that the time left does not suffice for is none.
 */
export function waitBeforeRetryMs(
  policy: RetryPolicy,
  error: unknown,
  attempt: number,
  leftMs: number,
  repeatable: boolean,
): number | null {
  if (attempt >= policy.attempts || !mayBeSentAgain(error, repeatable)) return null;
  const ownMs = Math.min(FIRST_WAIT_MS * 2 ** (attempt - 1), LONGEST_WAIT_MS);
  const askedMs = error instanceof RateLimited || error instanceof Overloaded ? error.retryAfterMs : null;
  const waitMs = askedMs ?? ownMs;
  return waitMs < leftMs ? waitMs : null;
}

function mayBeSentAgain(error: unknown, repeatable: boolean): boolean {
  if (error instanceof RateLimited || error instanceof Overloaded) return true;
  if (error instanceof ServerFault) return error.message.startsWith("draining");
  return repeatable && error instanceof ConnectionLostError;
}
