/** Which calls are sent again, after how long, and which are not. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { ConnectionLostError, Overloaded, RateLimited, ServerFault } from "@llm-trader/rag-client";
import { clientOf, echoed, errorOf } from "./support/clients.js";
import { type Answer, echo, FakeServer, fakeServer } from "./support/fake_server.js";

/** Refuses the first calls, then echoes. */
function refusing(times: number, code: number, message: string, data: unknown = null): Answer {
  let refused = 0;
  return (request, peer) => {
    if (refused < times) {
      refused += 1;
      peer.refuse(request.id, code, message, data);
    } else echo(request, peer);
  };
}

test("a limited call is sent again after the time that the server asks for", async (t) => {
  const server = await fakeServer(t, refusing(2, -32011, "rate limited", { retry_after_ms: 40 }));
  const client = clientOf(t, server.address);
  const started = performance.now();
  assert.equal(await client.call("test.echo", { value: 7 }), 7);
  assert.ok(performance.now() - started >= 78);
  assert.equal(server.requests.length, 3);
});

test("a call that an overloaded or stopping server refused is sent again, whatever it does", async (t) => {
  for (const [code, message] of [[-32012, "overloaded"], [-32000, "draining: the server is stopping"]] as const) {
    const server = await fakeServer(t, refusing(2, code, message));
    const client = clientOf(t, server.address);
    assert.equal(await client.call("test.echo", { value: 7 }), 7);
  }
});

test("a limit beyond the deadline is told at once", async (t) => {
  const server = await fakeServer(t, refusing(9, -32011, "rate limited", { retry_after_ms: 60_000 }));
  const client = clientOf(t, server.address);
  const error = await errorOf(echoed(client, 1));
  assert.ok(error instanceof RateLimited);
  assert.equal(error.retryAfterMs, 60_000);
  assert.equal(server.requests.length, 1);
});

test("attempts end, with the error of the last one", async (t) => {
  const server = await fakeServer(t, refusing(9, -32012, "overloaded", { retry_after_ms: 1 }));
  const client = clientOf(t, server.address, { retries: { attempts: 3 } });
  assert.ok((await errorOf(echoed(client, 1))) instanceof Overloaded);
  assert.equal(server.requests.length, 3);
});

test("another fault of the server is not repeated", async (t) => {
  const server = await fakeServer(t, refusing(9, -32000, "disk full"));
  const error = await errorOf(echoed(clientOf(t, server.address), 1));
  assert.ok(error instanceof ServerFault);
  assert.equal(server.requests.length, 1);
});

test("a lost call is sent again only if it changes nothing", async (t) => {
  for (const [repeatable, sent] of [[true, 3], [false, 1]] as const) {
    const server = await fakeServer(t, (_, peer) => peer.hangUp());
    const client = clientOf(t, server.address, { retries: { attempts: 3 } });
    const error = await errorOf(client.call("test.order", {}, { repeatable }));
    assert.ok(error instanceof ConnectionLostError);
    assert.equal(error.message, "the server closed the connection");
    assert.equal(server.requests.length, sent);
  }
});

test("where nothing listens, the error says how to start a server", async (t) => {
  const server = new FakeServer(echo, () => undefined);
  await server.listen(0);
  const { port, address } = server;
  await server.stop();
  const error = await errorOf(clientOf(t, address, { retries: { attempts: 2 } }).ping());
  assert.ok(error instanceof ConnectionLostError);
  const command = `rag-rpc-server --host 127.0.0.1 --port ${port}`;
  assert.equal(error.message, `nothing listens on 127.0.0.1:${port}; start it with: ${command}`);
});

test("a call waits for a server that comes back in time", async (t) => {
  const first = new FakeServer(echo, () => undefined);
  await first.listen(0);
  const { port, address } = first;
  const client = clientOf(t, address);
  assert.equal(await echoed(client, 1), 1);
  await first.stop();
  const waiting = echoed(client, 2);
  setTimeout(() => void fakeServer(t, echo, { port }), 100);
  assert.equal(await waiting, 2);
});

test("under load, a server that restarts again and again loses no call and mixes none up", async (t) => {
  const slowly: Answer = (request, peer) => setTimeout(echo, Number(request.params["value"]) % 7, request, peer);
  let server = new FakeServer(slowly, () => undefined);
  await server.listen(0);
  const { port, address } = server;
  const client = clientOf(t, address, { timeoutMs: 30_000, retries: { attempts: 100 } });
  let isDone = false;
  const restarts = (async () => {
    let count = 0;
    for (; !isDone; count += 1) {
      await new Promise((resolve) => setTimeout(resolve, 60));
      await server.stop();
      server = new FakeServer(slowly, () => undefined);
      await server.listen(port);
    }
    return count;
  })();
  const values = Array.from({ length: 4000 }, (_, number) => number);
  const results = await Promise.all(values.map((value) => echoed(client, value)));
  isDone = true;
  const count = await restarts;
  await server.stop();
  assert.deepEqual(results, values);
  assert.ok(count >= 2, `${count} restarts`);
});
