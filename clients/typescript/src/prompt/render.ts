/**
 * The prompt of a decision, of a state and what was retrieved for it.
 *
 * It is the text that `llm_trader.llm.prompt` of the server's package writes, byte for byte: the
 * examples in tests/golden/prompt hold both to it.
 */

import { createHash } from "node:crypto";
import { InvalidInputError } from "../errors.js";
import type { MarketSnapshot } from "../wire.js";
import { evidenceLines, type Retrieved } from "./evidence.js";
import { marketLines } from "./market.js";
import { systemText } from "./system.js";

/** Another one whenever the text of any prompt changes. */
export const TEMPLATE_VERSION = "prompt-1";

const QUESTION = "Decide now: LONG, SHORT or HOLD? Reply with the JSON object only.";

export interface PromptOptions {
  /** Names neither the symbol nor its price, so that a model cannot remember what followed; default false. */
  masked?: boolean | undefined;
  /** After how many hours a position ends; 1 to 999, default 4. */
  longestHoldHours?: number | undefined;
  /** What opening and closing a position costs, % of its value; 0 to 100, default 0.13. */
  roundTripCostPct?: number | undefined;
}

/** The texts for a model. `hasEvidence` is false for `rag` where nothing was retrieved. */
export interface Prompt {
  readonly system: string;
  readonly user: string;
  readonly arm: "rag" | "baseline";
  readonly hasEvidence: boolean;
  readonly templateVersion: string;
}

/**
 * The prompt of an arm. Both have the same text but for the section of the evidence; where `rag` has
 * none, its text is that of `baseline`. `retrieved` is the answer of `queryPatterns`, or null.
 */
export function renderPrompt(
  arm: "rag" | "baseline",
  snapshot: MarketSnapshot,
  retrieved: Retrieved | null,
  options: PromptOptions = {},
): Prompt {
  const { masked = false, longestHoldHours = 4, roundTripCostPct = 0.13 } = options;
  if (!Number.isInteger(longestHoldHours) || longestHoldHours < 1 || longestHoldHours > 999) {
    throw new InvalidInputError(`longestHoldHours is ${longestHoldHours}; give a whole number from 1 to 999`);
  }
  if (!(roundTripCostPct >= 0 && roundTripCostPct <= 100)) {
    throw new InvalidInputError(`roundTripCostPct is ${roundTripCostPct}; give a number from 0 to 100`);
  }
  const isUsed = arm === "rag" && retrieved !== null;
  const evidence = isUsed ? evidenceLines(retrieved, snapshot.timestamp, snapshot.price) : [];
  const sections = [marketLines(snapshot, masked), evidence, [QUESTION]].filter((lines) => lines.length > 0);
  return {
    system: systemText(longestHoldHours, roundTripCostPct),
    user: sections.map((lines) => lines.join("\n")).join("\n\n"),
    arm,
    hasEvidence: evidence.length > 0,
    templateVersion: TEMPLATE_VERSION,
  };
}

/** SHA-256 of both texts, in hex; the one that the server's package records. */
export function promptDigest({ system, user }: Prompt): string {
  return createHash("sha256").update(JSON.stringify([system, user])).digest("hex");
}
