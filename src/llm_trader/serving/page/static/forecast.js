// What an answer says about the coming 24 hours, as curves over time. No drawing here.

import { HORIZON_HOURS, HOUR } from "./format.js";

export const STEP = 15 * 60_000;
const LOW_10 = 9, LOW_25 = 24, MIDDLE = 49, HIGH_75 = 74, HIGH_90 = 89;

/** The range that 8 of 10 outcomes should fall in: the calibrated one where there is one. */
export function rangeNow(horizon) {
  if (horizon.band_80) return horizon.band_80;
  const quantiles = horizon.forecast?.quantiles;
  return quantiles ? [quantiles[LOW_10], quantiles[HIGH_90]] : null;
}

/**
 * Curves in % of the price at each quarter-hour of the next 24 hours, from 0 on; null where there is
 * no forecast. Between two horizons they follow the square root of time, as a random walk spreads.
 */
export function curves(evidence) {
  const knots = Object.entries(evidence.horizons)
    .map(([name, horizon]) => ({ hours: HORIZON_HOURS[name], horizon }))
    .filter(({ hours }) => hours)
    .sort((a, b) => a.hours - b.hours);
  const curve = (value) => {
    const points = knots.map(({ hours, horizon }) => [Math.sqrt(hours), value(horizon)]);
    return points.some(([, y]) => y === null || y === undefined) ? null : spread([[0, 0], ...points]);
  };
  const quantile = (index) => curve(({ forecast }) => forecast?.quantiles[index] ?? null);
  return {
    low80: curve((horizon) => rangeNow(horizon)?.[0] ?? null),
    high80: curve((horizon) => rangeNow(horizon)?.[1] ?? null),
    low50: quantile(LOW_25), high50: quantile(HIGH_75), middle: quantile(MIDDLE),
    baseLow: curve(({ p10 }) => p10.base_rate), baseHigh: curve(({ p90 }) => p90.base_rate),
    move: curve(({ expected_volatility_pct }) => expected_volatility_pct),
  };
}

function spread(knots) {
  const values = [];
  for (let step = 0; step * STEP <= 24 * HOUR; step++) {
    const x = Math.sqrt(step * STEP / HOUR);
    const next = knots.findIndex(([knot]) => knot >= x - 1e-9);
    if (next <= 0) { values.push(next === 0 ? knots[0][1] : knots.at(-1)[1]); continue; }
    const [[x0, y0], [x1, y1]] = [knots[next - 1], knots[next]];
    values.push(y0 + (y1 - y0) * (x - x0) / (x1 - x0));
  }
  return values;
}

/** The horizon at which similar states differ most; where they show nothing, the longest. */
export function horizonOfVerdict(evidence) {
  const named = Object.entries(evidence.horizons);
  if (evidence.verdict === "none") return named.at(-1);
  const deviation = ([, { scale, direction }]) =>
    Math.max(Math.abs(scale?.deviation ?? 0), Math.abs(direction?.deviation ?? 0));
  return named.reduce((best, entry) => deviation(entry) > deviation(best) ? entry : best);
}

/** Candles of 15 minutes out of finer columns; a bucket without a candle stays out. */
export function quarterHours(columns, step = STEP) {
  const buckets = [];
  columns.open_time.forEach((time, i) => {
    const start = time - time % step, last = buckets.at(-1);
    if (last?.start === start) {
      last.high = Math.max(last.high, columns.high[i]);
      last.low = Math.min(last.low, columns.low[i]);
      last.close = columns.close[i];
    } else buckets.push({ start, open: columns.open[i], high: columns.high[i], low: columns.low[i], close: columns.close[i] });
  });
  return buckets;
}

/** The % changes at each quarter-hour after `start`, from 0 on; NaN where a candle is missing. */
export function pathAfter(columns, start, length) {
  const closes = new Map(columns.open_time.map((time, i) => [time + length, columns.close[i]]));
  const first = closes.get(start), values = [];
  for (let time = start; time <= start + 24 * HOUR; time += STEP) {
    const close = closes.get(time);
    values.push(first && close ? (close / first - 1) * 100 : NaN);
  }
  return values;
}

/** A path as long moves went then, in those of now; unknown where either is. */
export const inExpectedMoves = (path, now, then) => path.map((change) => now && then ? change * now / then : NaN);

export function lengthOf(timeframe) {
  const units = { m: 60_000, h: HOUR, d: 24 * HOUR };
  return Number(timeframe.slice(0, -1)) * units[timeframe.at(-1)];
}
