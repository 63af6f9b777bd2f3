/** When the baseline prompt is to be used, and when an error is one to mend. */

import assert from "node:assert/strict";
import { test } from "node:test";
import * as rag from "@llm-trader/rag-client";
import { clientOf, errorOf } from "./support/clients.js";
import { type Answer, FakeServer, fakeServer, never } from "./support/fake_server.js";

const QUERY = { symbol: "BTCUSDT", timestamp: 1_774_008_000_000 };
const refuse = (code: number, message: string): Answer => (request, peer) => peer.refuse(request.id, code, message);
const answer = (verdict: string): Answer => (request, peer) =>
  peer.reply(request.id, { matches: [], statistics: {}, metadata: {}, evidence: { verdict, reason: "why" } });

const UNAVAILABLE: readonly [rag.BaselineReason, number, string][] = [
  ["slow", -32013, "the RAG server did not answer in time"],
  ["busy", -32011, "the RAG server is busy"],
  ["busy", -32012, "the RAG server is busy"],
  ["failing", -32000, "the RAG server failed"],
  ["failing", -32003, "the RAG server failed"],
  ["failing", -32004, "the RAG server failed"],
  ["failing", -32603, "the RAG server failed"],
  ["insufficient_matches", -32001, "too few similar states are known"],
  ["symbol_not_found", -32002, "the RAG server knows no states of this symbol"],
  ["stale_data", -32005, "the RAG server's data are too old"],
];

for (const [reason, code, words] of UNAVAILABLE) {
  test(`the error ${code} leads to the baseline prompt: ${reason}`, async (t) => {
    const server = await fakeServer(t, refuse(code, "the server's words"));
    const client = clientOf(t, server.address, { retries: { attempts: 1 } });
    const arm = await rag.queryOrBaseline(client, QUERY);
    assert.ok(arm.arm === "baseline");
    assert.equal(arm.reason, reason);
    assert.equal(arm.because, `use the baseline prompt because ${words}: the server's words`);
    assert.ok(arm.error instanceof rag.RpcError && arm.error.code === code);
    assert.equal(arm.answer, null);
  });
}

for (const code of [-32010, -32602, -32600, -32601]) {
  test(`the error ${code} is to be mended and is no reason for the baseline prompt`, async (t) => {
    const server = await fakeServer(t, refuse(code, "mend it"));
    const error = await errorOf(rag.queryOrBaseline(clientOf(t, server.address), QUERY));
    assert.ok(error instanceof rag.RpcError && error.code === code);
  });
}

test("a server that is not there leads to the baseline prompt", async (t) => {
  const server = new FakeServer(never, () => undefined);
  await server.listen(0);
  const { address } = server;
  await server.stop();
  const arm = await rag.queryOrBaseline(clientOf(t, address), QUERY, { timeoutMs: 300 });
  assert.ok(arm.arm === "baseline" && arm.reason === "unreachable");
  assert.match(arm.because, /^use the baseline prompt because the RAG server cannot be reached: nothing listens on /);
});

test("a server that says nothing in time leads to the baseline prompt, in time", async (t) => {
  const server = await fakeServer(t, (request, peer) => {
    if (request.method === "rpc.ping") peer.reply(request.id, { pong: true, version: "1" });
  });
  const client = clientOf(t, server.address);
  await client.ping();
  const arm = await rag.queryOrBaseline(client, QUERY, { timeoutMs: 80 });
  assert.ok(arm.arm === "baseline" && arm.reason === "slow" && arm.error instanceof rag.NoReplyError);
});

test("a server that sends garbage leads to the baseline prompt", async (t) => {
  const server = await fakeServer(t, (_, peer) => peer.raw("garbage\n"));
  const arm = await rag.queryOrBaseline(clientOf(t, server.address, { retries: { attempts: 2 } }), QUERY);
  assert.ok(arm.arm === "baseline" && arm.reason === "unreachable");
});

test("a result of another version leads to the baseline prompt", async (t) => {
  const server = await fakeServer(t, (request, peer) => peer.reply(request.id, {}));
  const arm = await rag.queryOrBaseline(clientOf(t, server.address), QUERY);
  assert.ok(arm.arm === "baseline" && arm.reason === "failing");
});

test("the verdict none leads to the baseline prompt, or to the other one by setting", async (t) => {
  const server = await fakeServer(t, answer("none"));
  const client = clientOf(t, server.address);
  const arm = await rag.queryOrBaseline(client, QUERY);
  assert.ok(arm.arm === "baseline" && arm.reason === "verdict_none");
  assert.equal(arm.because, "use the baseline prompt because similar states show nothing beyond chance: why");
  assert.equal(arm.error, null);
  assert.equal(arm.answer?.evidence.verdict, "none");
  assert.equal((await rag.queryOrBaseline(client, QUERY, { verdictNone: "rag" })).arm, "rag");
});

test("evidence is used where there is some", async (t) => {
  for (const verdict of ["weak", "informative"]) {
    const server = await fakeServer(t, answer(verdict));
    const arm = await rag.queryOrBaseline(clientOf(t, server.address), QUERY);
    assert.ok(arm.arm === "rag");
    assert.equal(arm.answer.evidence.verdict, verdict);
  }
});

test("an aborted question and a closed client are no reason for the baseline prompt", async (t) => {
  const server = await fakeServer(t, never);
  const client = clientOf(t, server.address);
  const error = await errorOf(rag.queryOrBaseline(client, QUERY, { signal: AbortSignal.timeout(30) }));
  assert.equal((error as Error).name, "TimeoutError");
  client.close();
  await assert.rejects(rag.queryOrBaseline(client, QUERY), rag.ClientClosedError);
});
