// What the page computes from answers and candles, without a browser.

import assert from "node:assert/strict";
import { test } from "node:test";

const {
  STEP, curves, horizonOfVerdict, inExpectedMoves, pathAfter, quarterHours,
} = await import(`${process.env.PAGE}/forecast.js`);

const MINUTE = 60_000, HOUR = 60 * MINUTE, START = Date.UTC(2026, 2, 20, 12);
const NAMES = ["15m", "1h", "4h", "24h"];

const horizon = (size) => ({
  forecast: { quantiles: Array.from({ length: 99 }, (_, i) => size * (i - 49)) },
  band_80: null, expected_volatility_pct: size, p10: { base_rate: -size }, p90: { base_rate: size },
  scale: null, direction: null,
});
const evidence = (change = {}) => ({
  verdict: "weak",
  horizons: Object.fromEntries(NAMES.map((name, i) => [name, { ...horizon(i + 1), ...change[name] }])),
});
const candlesFrom = (times, close) => ({
  open_time: times, open: [...close], close,
  high: close.map((price) => price + 1), low: close.map((price) => price - 1),
});

test("a curve starts at the price, meets each horizon, and follows the root of time between", () => {
  const { middle, high80, move } = curves(evidence());
  assert.equal(high80.length, 97);
  assert.deepEqual([0, 1, 4, 16, 96].map((step) => move[step]), [0, 1, 2, 3, 4]);
  assert.deepEqual([1, 4, 16, 96].map((step) => high80[step]), [40, 80, 120, 160]);
  // Between 1h and 4h, at 2h15: half of the way in the root of time.
  assert.ok(Math.abs(move[9] - 2.5) < 1e-12);
  assert.ok(middle.every((value) => value === 0));
});

test("a calibrated range takes the place of the forecast's", () => {
  const { low80, high80, high50 } = curves(evidence({ "24h": { band_80: [-500, 700] } }));
  assert.deepEqual([low80[96], high80[96], high50[96]], [-500, 700, 100]);
});

test("an unknown horizon makes a curve unknown, and the base rates stay", () => {
  const shown = curves(evidence({ "4h": { forecast: null, expected_volatility_pct: null } }));
  assert.deepEqual([shown.low80, shown.high50, shown.middle, shown.move], [null, null, null, null]);
  assert.equal(shown.baseHigh[96], 4);
});

test("the verdict is about the horizon that deviates most, and about the longest where there is none", () => {
  const found = evidence({ "1h": { direction: { deviation: -3 } }, "4h": { scale: { deviation: 2 } } });
  assert.equal(horizonOfVerdict(found)[0], "1h");
  assert.equal(horizonOfVerdict({ ...found, verdict: "none" })[0], "24h");
});

test("candles of a quarter-hour come from finer ones, and a hole stays a hole", () => {
  const times = [0, 5, 10, 30].map((minutes) => START + minutes * MINUTE);
  assert.deepEqual(quarterHours(candlesFrom(times, [10, 14, 9, 20])), [
    { start: START, open: 10, high: 15, low: 8, close: 9 },
    { start: START + 2 * STEP, open: 20, high: 21, low: 19, close: 20 },
  ]);
});

test("the path after a match starts at 0, and a missing candle is unknown", () => {
  const times = Array.from({ length: 289 }, (_, i) => START + (i - 1) * 5 * MINUTE);
  const columns = candlesFrom(times, times.map((_, i) => 100 + i));
  // The candle that closes an hour after the match.
  for (const values of Object.values(columns)) values.splice(12, 1);
  const path = pathAfter(columns, START, 5 * MINUTE);
  assert.equal(path.length, 24 * HOUR / STEP + 1);
  assert.equal(path[0], 0);
  assert.ok(Math.abs(path[96] - 288) < 1e-9);
  assert.deepEqual(path.flatMap((value, i) => Number.isNaN(value) ? [i] : []), [4]);
});

test("a path in expected moves is unknown where either move is", () => {
  assert.deepEqual(inExpectedMoves([0, 2, -4], 3, 2), [0, 3, -6]);
  assert.deepEqual(inExpectedMoves([0, 2], 3, null), [NaN, NaN]);
  assert.deepEqual(inExpectedMoves([0, 2], undefined, 2), [NaN, NaN]);
});
