/** The course of a call: its deadline, its attempts, and the waits between them. */

import { NoReplyError } from "./errors.js";
import { type RetryPolicy, waitBeforeRetryMs } from "./retries.js";

// The longest that Node.js can wait; it takes anything longer for 1 ms.
export const LONGEST_TIMEOUT_MS = 2 ** 31 - 1;

export interface Course {
  readonly method: string;
  /** Bounds all attempts. */
  readonly timeoutMs: number;
  readonly retries: RetryPolicy;
  readonly repeatable: boolean;
  readonly signal: AbortSignal | undefined;
}

/**
 * The result of the first attempt that succeeds; rejects with the error of the last one, or the
 * reason of `signal`. An attempt takes the time left, and a signal that ends it.
 */
export async function runCourse<T>(
  course: Course,
  attempt: (leftMs: number, signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const { method, timeoutMs, retries, repeatable, signal } = course;
  const deadlineMs = performance.now() + timeoutMs;
  const late = (): NoReplyError => new NoReplyError(`${method}: no reply in ${timeoutMs / 1000} s`);
  for (let number = 1; ; number += 1) {
    const leftMs = deadlineMs - performance.now();
    if (leftMs <= 0) throw late();
    try {
      return await limited(leftMs, late, signal, (limit) => attempt(leftMs, limit));
    } catch (error) {
      if (signal?.aborted) throw error;
      const waitMs = waitBeforeRetryMs(retries, error, number, deadlineMs - performance.now(), repeatable);
      if (waitMs === null) throw error;
      await pause(waitMs, signal);
    }
  }
}

/** Runs `work` with a signal that aborts after `timeoutMs` with `late`, or as `outer` does. */
async function limited<T>(
  timeoutMs: number,
  late: () => Error,
  outer: AbortSignal | undefined,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  outer?.throwIfAborted();
  const limit = new AbortController();
  const follow = (): void => limit.abort(outer?.reason);
  const timer = setTimeout(() => limit.abort(late()), timeoutMs);
  outer?.addEventListener("abort", follow, { once: true });
  try {
    return await work(limit.signal);
  } finally {
    clearTimeout(timer);
    outer?.removeEventListener("abort", follow);
  }
}

function pause(waitMs: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = (): void => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, waitMs);
    signal?.addEventListener("abort", stop, { once: true });
  });
}
