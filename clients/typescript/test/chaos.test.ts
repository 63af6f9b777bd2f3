/** Everything at once: a server that misbehaves in every way, and callers that give up at any time. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { RagError } from "@llm-trader/rag-client";
import { clientOf } from "./support/clients.js";
import { type Answer, echo, fakeServer, type Peer, type Request, until } from "./support/fake_server.js";
import { seededRandom } from "./support/random.js";

const CALLS = 3000;

/** Answers mostly well, and otherwise in one of the ways in which a server can fail. */
function misbehaving(random: () => number, isTame: () => boolean): Answer {
  const faults: ((request: Request, peer: Peer) => unknown)[] = [
    (_, peer) => peer.hangUp(),
    (_, peer) => peer.reset(),
    (_, peer) => peer.raw("garbage\n"),
    (request, peer) => peer.raw(`{"jsonrpc":"2.0","id":${request.id},"resu`) as unknown ?? peer.hangUp(),
    (request, peer) => setTimeout(echo, 200, request, peer), // later than most wait
    () => undefined, // never
    (request, peer) => (echo(request, peer), echo(request, peer)),
    (request, peer) => peer.reply(request.id + 1_000_000, "nobody's") as unknown ?? echo(request, peer),
    (request, peer) => peer.refuse(request.id, -32012, "overloaded", { retry_after_ms: 5 }),
    (request, peer) => peer.refuse(request.id, -32000, "disk full"),
    (_, peer) => peer.refuse(null, -32012, "too many connections") as unknown ?? peer.hangUp(),
  ];
  return (request, peer) => {
    if (request.method === "rpc.authenticate") return peer.reply(request.id, {});
    if (isTame() || random() < 0.97) return setTimeout(echo, random() * 8, request, peer);
    return faults[Math.floor(random() * faults.length)]?.(request, peer);
  };
}

test("whatever happens, each call ends once, with its own result or a known error, and the client is well after it", { timeout: 60_000 }, async (t) => {
  const random = seededRandom(7);
  let isTame = false;
  const server = await fakeServer(t, misbehaving(random, () => isTame));
  const client = clientOf(t, server.address, { token: "secret", timeoutMs: 5000 });
  const aborted = new Error("aborted by the test");
  const counts = { results: 0, aborted: 0 };
  const kinds = new Set<string>();

  const one = async (value: number): Promise<void> => {
    await new Promise((resolve) => setTimeout(resolve, random() * 1500));
    const abort = new AbortController();
    if (random() < 0.05) setTimeout(() => abort.abort(aborted), random() * 20);
    const timeoutMs = random() < 0.1 ? 1 + random() * 30 : 5000;
    try {
      const options = { timeoutMs, signal: abort.signal, repeatable: random() < 0.8 };
      assert.equal(await client.call("test.echo", { value }, options), value);
      counts.results += 1;
    } catch (error) {
      if (error === aborted) counts.aborted += 1;
      else if (error instanceof RagError) kinds.add(error.kind);
      else throw error;
    }
  };
  await Promise.all(Array.from({ length: CALLS }, (_, value) => one(value)));

  assert.ok(counts.results > CALLS / 2, `${counts.results} results`);
  assert.ok(counts.aborted > 0);
  for (const kind of ["connection_lost", "no_reply", "rpc_server_fault"]) assert.ok(kinds.has(kind), `no ${kind}`);

  isTame = true;
  const values = Array.from({ length: 500 }, (_, value) => value);
  assert.deepEqual(await Promise.all(values.map((value) => client.call("test.echo", { value }))), values);
  assert.equal(client.connections, 4);
  await until(() => server.open === 4);
  client.close();
  await until(() => server.open === 0);
});
