// Numbers, times and verdicts in words.

import assert from "node:assert/strict";
import { test } from "node:test";

const { ago, count, counted, minute, number, percent, price, quote, range, signed } = await import(`${process.env.PAGE}/format.js`);
const { guardVerdict } = await import(`${process.env.PAGE}/decisions.js`);

test("what is unknown is a dash, and never a zero", () => {
  for (const unknown of [null, undefined, NaN, Infinity])
    for (const show of [number, signed, percent, count, price, minute]) assert.equal(show(unknown), "–");
  assert.equal(range(null), "–");
  assert.equal(ago(null), "of unknown age");
});

test("a number that rounds to zero has no sign", () => {
  assert.deepEqual([0.004, -0.004, 0.006, -1.5].map((value) => signed(value)), ["0.00", "0.00", "+0.01", "−1.50"]);
  assert.equal(range([-0.5, 0.5]), "−0.50 … +0.50");
});

test("a price has six digits whatever its size", () => {
  assert.deepEqual([34810.2, 1.5, 0.000012345678, 1234567.8].map(price), ["34,810.2", "1.50000", "0.0000123457", "1,234,568"]);
  assert.deepEqual(["BTCUSDT", "ETHBTC", "INDEX"].map(quote), [" USDT", " BTC", ""]);
});

test("ages and counts are words of their size", () => {
  assert.deepEqual([-3, 89, 90, 5399, 5400, 172800].map(ago),
    ["0 s old", "89 s old", "2 min old", "90 min old", "2 h old", "2 days old"]);
  assert.deepEqual([0, 1, 1200].map((value) => counted(value, "jump", "jumps")), ["0 jumps", "1 jump", "1,200 jumps"]);
  assert.equal(minute(Date.UTC(2026, 2, 31, 14, 15)), "2026-03-31 14:15");
});

test("a guard's verdict is what is on record, and no more", () => {
  const verdict = (decision, more = {}) => guardVerdict({ decision, arm: "rag", vetoes: [], labels: {}, ...more });
  const long = { action: "LONG", hold_reason: null, reasoning: "It rose." }, run = { labels: { run: "r1" } };
  const vetoes = [{ rule: "kill_switch", message: "it is on" }, { rule: "stale", message: "20 min old" }];
  assert.equal(verdict(long, { ...run, vetoes }), "refused it: kill_switch: it is on; stale: 20 min old");
  assert.equal(verdict({ action: "HOLD", hold_reason: "guard", reasoning: "RSI(7) is unknown" }), "RSI(7) is unknown");
  assert.equal(verdict(long), "was not asked, as no workflow made this decision");
  assert.equal(verdict(long, run), "no veto is on record");
  assert.equal(verdict(long, { labels: { run: "r1", mode: "ab", executes: "baseline" } }), "was not asked, as this arm is not executed");
  assert.equal(verdict(long, { labels: { run: "r1", mode: "ab", executes: "rag" } }), "no veto is on record");
  assert.equal(verdict({ ...long, action: "HOLD", hold_reason: "model" }, run), "had nothing to refuse");
});
