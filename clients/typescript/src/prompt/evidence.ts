/** What followed similar states, in a prompt: every figure beside its base rate. */

import type { BarrierEvidence, Evidence, HorizonEvidence, Match, QueryPatternsResult } from "../wire.js";
import { RelativeTo } from "./market.js";
import { fixed, isKnown, type MaybeNumber, percent, quoted, signed, UNKNOWN } from "./numbers.js";

/** The part of an answer that a prompt is written from. */
export type Retrieved = Pick<QueryPatternsResult, "matches" | "evidence">;

const DAY_MS = 86_400_000;
const HORIZONS = ["15m", "1h", "4h", "24h"];
const VERDICTS = ["informative", "weak", "none"];
const BARRIERS = ["stop", "target", "none"];
// What a query may ask for at most.
const MOST_MATCHES = 50;
const MOST_REASON_CHARACTERS = 300;
// Quantiles at 1, 2, ... 99 %.
const QUANTILES = 99;

const HOW_TO_READ = [
  "How to read it: changes are in %; [brackets] hold the base rate, the same figure over all " +
    "states of the window, and only a difference from it tells anything.",
  "The fewer effective observations, the less it tells. The verdict weighs both; none means " +
    "nothing beyond the base rates.",
];

/** The lines of the section, with a heading; none where there is no evidence. */
export function evidenceLines({ matches, evidence }: Retrieved, nowMs: number, price: MaybeNumber): string[] {
  if (matches.length === 0 && Object.keys(evidence.horizons).length === 0) return [];
  return [
    "EVIDENCE from similar past states of this market",
    ...HOW_TO_READ,
    `verdict: ${wordOf(VERDICTS, evidence.verdict)}, because ${quoted(evidence.reason, MOST_REASON_CHARACTERS)}`,
    `${evidence.episodes} separate episodes among ${evidence.base_rate_points} states, ` +
      `similarity ${fixed(evidence.similarity_mean, 2)}; ` +
      `${percent(fixed(evidence.novelty?.percentile, 0))} of past states had a nearer neighbour`,
    ...horizonLines(evidence),
    ...barrierLines(evidence),
    ...matchLines(matches.slice(0, MOST_MATCHES), nowMs, new RelativeTo(price)),
  ];
}

function horizonLines({ horizons, calibrated = false }: Evidence): string[] {
  const rows = HORIZONS.flatMap((name) => {
    const horizon = Object.hasOwn(horizons, name) ? horizons[name] : undefined;
    return horizon === undefined ? [] : [horizonLine(name, horizon, calibrated)];
  });
  if (rows.length === 0) return [];
  const band = calibrated ? "calibrated" : "not calibrated";
  return [
    `horizon: volatility expected now, 80% band (${band}) | after similar states mean, % of ` +
      "rises | size of moves (usual is 1), effective observations",
    ...rows,
  ];
}

function horizonLine(name: string, horizon: HorizonEvidence, calibrated: boolean): string {
  const [low, high] = band80(horizon, calibrated);
  const { mean, p_up } = horizon;
  return (
    `${name}: ${fixed(horizon.expected_volatility_pct, 2)}, ${signed(low, 2)} to ${signed(high, 2)} | ` +
    `${signed(mean.value, 2)} [${signed(mean.base_rate, 2)}] ${share(p_up.value)} [${share(p_up.base_rate)}] | ` +
    `${fixed(horizon.scale?.value, 2)} ${fixed(horizon.effective_episodes, 0)}`
  );
}

function band80({ band_80, forecast }: HorizonEvidence, calibrated: boolean): readonly MaybeNumber[] {
  if (calibrated) return band_80 ?? [];
  return forecast?.quantiles.length === QUANTILES ? [forecast.quantiles[9], forecast.quantiles[89]] : [];
}

function barrierLines({ barriers, barrier_forecasts }: Evidence): string[] {
  const lines = barriers === null ? [] : [touchedFirst(barriers)];
  const [chance] = barrier_forecasts ?? [];
  if (chance !== undefined) {
    lines.push(
      `by the volatility expected now, %: stop ${share(chance.stop_first)}, ` +
        `target ${share(chance.target_first)}, neither ${share(chance.neither)}`,
    );
  }
  return lines;
}

function touchedFirst({ stop_first, target_first }: BarrierEvidence): string {
  return (
    `first within 24h, % of similar states: stop (-2%) ${share(stop_first.value)} ` +
    `[${share(stop_first.base_rate)}], target (+3%) ${share(target_first.value)} [${share(target_first.base_rate)}]`
  );
}

function matchLines(matches: readonly Match[], nowMs: number, now: RelativeTo): string[] {
  if (matches.length === 0) return [];
  return [
    "nearest states: days ago, similarity: RSI(7), RSI(14), MACD, 4h EMA(20)/EMA(50), open " +
      "interest %, funding % -> change after 15m, 1h, 4h, 24h; highest, lowest within 1h; stop " +
      "(-2%) or target (+3%) first within 24h",
    ...matches.map((match) => matchLine(match, nowMs, now)),
  ];
}

function matchLine({ timestamp, similarity, market_state, outcomes }: Match, nowMs: number, now: RelativeTo): string {
  const { rsi_7, rsi_14, macd, ema_ratio, oi_delta_pct, funding_rate } = market_state;
  const funding = isKnown(funding_rate) ? 100 * funding_rate : null;
  const changes = [outcomes.outcome_15m, outcomes.outcome_1h, outcomes.outcome_4h, outcomes.outcome_24h];
  return (
    `${fixed((nowMs - timestamp) / DAY_MS, 1)} ${fixed(similarity, 2)}: ` +
    `${fixed(rsi_7, 0)} ${fixed(rsi_14, 0)} ${now.difference(macd)} ` +
    `${fixed(ema_ratio, 3)} ${signed(oi_delta_pct, 1)} ${signed(funding, 3)} -> ` +
    `${changes.map((value) => signed(value, 2)).join(" ")}; ` +
    `${signed(outcomes.max_runup_1h, 2)} ${signed(outcomes.max_drawdown_1h, 2)}; ` +
    wordOf(BARRIERS, outcomes.first_barrier)
  );
}

function share(fraction: MaybeNumber): string {
  return fixed(isKnown(fraction) ? 100 * fraction : null, 0);
}

/** A word of the server as it is if it is one of these. */
function wordOf(words: readonly string[], word: string | null): string {
  return word !== null && words.includes(word) ? word : UNKNOWN;
}
