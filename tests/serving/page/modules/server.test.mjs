// How the page calls the server: within the limits, with an end, and never about a later time.

import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";

const { Moment, ServerError, server } = await import(`${process.env.PAGE}/server.js`);
const REFUSED = { code: -32011, message: "too many requests", data: { retry_after_ms: 1 } };
const UNLIMITED = { rate_limit_per_s: 0, rate_burst: 20, work_limit_ms_per_s: 0, work_burst_ms: 2000 };

let sent, answer;
const result = ({ id, params }) => ({ jsonrpc: "2.0", id, result: params });
const failed = (error) => ({ id }) => ({ jsonrpc: "2.0", id, error });

beforeEach(() => {
  sent = [];
  answer = result;
  globalThis.sessionStorage = { getItem: () => null };
  globalThis.fetch = async (_, { body }) => {
    const asked = [JSON.parse(body)].flat();
    sent.push(asked);
    // In another order, as a server may.
    return { status: 200, json: async () => asked.map((call) => answer(call)).reverse() };
  };
  server.pace.configure({ ...UNLIMITED, rate_limit_per_s: 10_000, rate_burst: 6 });
});
afterEach(() => { delete globalThis.fetch; delete globalThis.sessionStorage; });

const calls = (count) => Array.from({ length: count }, (_, i) => ["rag.stats", { number: i }]);

test("many calls go in parts that the limits allow, and results keep their order", async () => {
  const results = await server.batch(calls(8));
  assert.deepEqual(results.map(({ number }) => number), [0, 1, 2, 3, 4, 5, 6, 7]);
  assert.deepEqual(sent.map((part) => part.length), [3, 3, 2]);
});

test("more than its share is waited for", async () => {
  server.pace.configure({ ...UNLIMITED, rate_limit_per_s: 200, rate_burst: 4 });
  const started = performance.now();
  await server.batch(calls(6));
  // Two at once, and the other four at half of 200 a second; timers may be a millisecond early.
  assert.ok(performance.now() - started > 35);
});

test("calls go together where nothing is limited, and one by one where working time is", async () => {
  server.pace.configure(UNLIMITED);
  await server.batch(calls(8));
  assert.deepEqual(sent.map((part) => part.length), [8]);
  server.pace.configure({ ...UNLIMITED, work_limit_ms_per_s: 1000 });
  await server.batch(calls(3));
  assert.deepEqual(sent.slice(1).map((part) => part.length), [1, 1, 1]);
});

test("the server's working time is counted as the time that it took, and waited for when it is used up", async () => {
  server.pace.configure({ ...UNLIMITED, work_limit_ms_per_s: 1000, work_burst_ms: 20 });
  const { fetch } = globalThis, begun = [];
  globalThis.fetch = async (...asked) => {
    begun.push(performance.now());
    await new Promise((resolve) => setTimeout(resolve, 30));
    return fetch(...asked);
  };
  await server.batch(calls(3));
  // Of 10 ms it has used 30, and its half of the limit gives back one in two; timers may be early.
  for (const i of [1, 2]) assert.ok(begun[i] - begun[i - 1] > 30 + 2 * 12);
});

test("a refusal is waited for and asked again, and not for ever", async () => {
  let refusals = 2;
  answer = (call) => refusals-- > 0 ? failed(REFUSED)(call) : result(call);
  assert.deepEqual(await server.call("rag.stats", { number: 1 }), { number: 1 });
  assert.equal(sent.length, 3);
  answer = failed(REFUSED);
  await assert.rejects(server.call("rag.stats"), { message: "Too many requests.", code: -32011 });
  assert.equal(sent.length, 3 + 4);
});

test("a call that fails is an error beside the results of the others", async () => {
  answer = (call) => call.params.number === 1
    ? failed({ code: -32002, message: "no data for 'X'", data: { suggestion: "choose another" } })(call) : result(call);
  const [first, second, third] = await server.batch(calls(3));
  assert.deepEqual([first, third], [{ number: 0 }, { number: 2 }]);
  assert.ok(second instanceof ServerError);
  assert.equal(second.message, "No data for 'X': choose another.");
});

test("a server that is away is told from one that refuses", async () => {
  globalThis.fetch = async () => { throw new TypeError("fetch failed"); };
  await assert.rejects(server.call("rag.stats"), ({ isAway, message }) => isAway && message.startsWith("The server does not answer"));
  globalThis.fetch = async () => ({ status: 502, json: async () => JSON.parse("<html>") });
  await assert.rejects(server.call("rag.stats"), /the status 502 and no JSON/);
  globalThis.fetch = async (_, { signal }) => {
    assert.ok(signal instanceof AbortSignal);
    throw new DOMException("the signal timed out", "TimeoutError");
  };
  await assert.rejects(server.call("rag.stats"), /did not answer within 15 s/);
  let asksForKey = false;
  server.addEventListener("key-needed", () => { asksForKey = true; }, { once: true });
  globalThis.fetch = async () => ({ status: 401 });
  await assert.rejects(server.call("rag.stats"), ({ isAway }) => !isAway);
  assert.ok(asksForKey);
});

test("nothing later than the chosen moment is sent", async () => {
  const moment = new Moment("BTCUSDT", 1000);
  for (const later of [{ timestamp: 1001 }, { start: 0, end: 1001 }, { timestamp: 1000, others: [10, 1001] }])
    assert.throws(() => moment.call("rag.compare_states", later), /after the chosen one/);
  assert.deepEqual(sent, []);
  await moment.call("rag.compare_states", { timestamp: 1000, others: [10] });
  assert.deepEqual(sent[0][0].params, { symbol: "BTCUSDT", timestamp: 1000, others: [10] });
});
