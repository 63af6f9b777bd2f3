/** Asks for evidence, or says why a decision is better made without: "use the baseline prompt because …". */

import type { CallOptions, Query, RagClient } from "./client.js";
import {
  ConnectionLostError,
  DeadlineExceeded,
  EmbeddingFailed,
  IndexFailed,
  InsufficientMatches,
  NoReplyError,
  Overloaded,
  RagError,
  RateLimited,
  ServerFault,
  StaleData,
  SymbolNotFound,
  UnexpectedResultError,
} from "./errors.js";
import type { QueryPatternsResult } from "./wire.js";

/** Why there is no evidence to use. */
export type BaselineReason =
  | "unreachable"
  | "slow"
  | "busy"
  | "failing"
  | "insufficient_matches"
  | "symbol_not_found"
  | "stale_data"
  | "verdict_none";

/** There is evidence: use the prompt with it. */
export interface EvidenceArm {
  readonly arm: "rag";
  readonly answer: QueryPatternsResult;
}

/** There is none: use the baseline prompt, and let the decision's record say `because`. */
export interface BaselineArm {
  readonly arm: "baseline";
  readonly reason: BaselineReason;
  /** Such as "use the baseline prompt because the RAG server cannot be reached: nothing listens on …". */
  readonly because: string;
  /** Null where the server answered with the verdict `none`. */
  readonly error: RagError | null;
  /** The answer with the verdict `none`, else null. */
  readonly answer: QueryPatternsResult | null;
}

export type PromptArm = EvidenceArm | BaselineArm;

export interface BaselineOptions extends CallOptions {
  /** Which prompt an answer with the verdict `none` leads to; default `baseline`. */
  verdictNone?: "baseline" | "rag" | undefined;
}

const WORDS: Readonly<Record<BaselineReason, string>> = {
  unreachable: "the RAG server cannot be reached",
  slow: "the RAG server did not answer in time",
  busy: "the RAG server is busy",
  failing: "the RAG server failed",
  insufficient_matches: "too few similar states are known",
  symbol_not_found: "the RAG server knows no states of this symbol",
  stale_data: "the RAG server's data are too old",
  verdict_none: "similar states show nothing beyond chance",
};

/**
 * The evidence for a state, or that the baseline prompt is to be used, and why.
 *
 * Rejects where somebody must mend something, because no later call would do better: parameters,
 * the token, or the client itself. Rejects with the reason of `signal` when that aborts.
 */
export async function queryOrBaseline(
  client: Pick<RagClient, "queryPatterns">,
  query: Query,
  options: BaselineOptions = {},
): Promise<PromptArm> {
  const { verdictNone = "baseline", ...callOptions } = options;
  let answer: QueryPatternsResult;
  try {
    answer = await client.queryPatterns(query, callOptions);
  } catch (error) {
    const reason = error instanceof RagError ? baselineReason(error) : null;
    if (reason === null) throw error;
    return baseline(reason, (error as RagError).message, error as RagError, null);
  }
  if (answer.evidence.verdict !== "none" || verdictNone === "rag") return { arm: "rag", answer };
  return baseline("verdict_none", answer.evidence.reason, null, answer);
}

/** Why an error of a query calls for the baseline prompt; null where it does not. */
export function baselineReason(error: RagError): BaselineReason | null {
  if (error instanceof ConnectionLostError) return "unreachable";
  if (error instanceof NoReplyError || error instanceof DeadlineExceeded) return "slow";
  if (error instanceof Overloaded || error instanceof RateLimited) return "busy";
  if (error instanceof InsufficientMatches) return "insufficient_matches";
  if (error instanceof SymbolNotFound) return "symbol_not_found";
  if (error instanceof StaleData) return "stale_data";
  const isFault =
    error instanceof ServerFault ||
    error instanceof IndexFailed ||
    error instanceof EmbeddingFailed ||
    error instanceof UnexpectedResultError;
  return isFault ? "failing" : null;
}

function baseline(
  reason: BaselineReason,
  detail: string,
  error: RagError | null,
  answer: QueryPatternsResult | null,
): BaselineArm {
  return { arm: "baseline", reason, because: `use the baseline prompt because ${WORDS[reason]}: ${detail}`, error, answer };
}
