/** Calls over one connection and many: pool, pipelining, deadlines, aborting. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { ClientClosedError, ConnectionLostError, InvalidInputError, NoReplyError, RagClient } from "@llm-trader/rag-client";
import { clientOf, echoed, errorOf } from "./support/clients.js";
import { echo, fakeServer, never, type Peer, type Request, until } from "./support/fake_server.js";

test("a call sends its parameters and when the server shall give up", async (t) => {
  const server = await fakeServer(t, (request, peer) => peer.reply(request.id, { pong: true, version: "1.2.3" }));
  const client = clientOf(t, server.address, { timeoutMs: 1000 });
  assert.deepEqual(await client.ping(), { pong: true, version: "1.2.3" });
  const [request] = server.requests;
  assert.equal(request?.method, "rpc.ping");
  const timeout = request?.params["timeout_ms"] as number;
  assert.ok(timeout > 500 && timeout <= 950, `timeout_ms is ${timeout}`);
});

test("replies that come out of order find their calls", async (t) => {
  const held: Request[] = [];
  const server = await fakeServer(t, (request, peer) => {
    held.push(request);
    if (held.length === 20) for (const one of held.reverse()) peer.reply(one.id, one.params["value"]);
  });
  const client = clientOf(t, server.address, { connections: 1 });
  const values = Array.from({ length: 20 }, (_, number) => number);
  assert.deepEqual(await Promise.all(values.map((value) => echoed(client, value))), values);
  assert.equal(server.connections, 1);
});

test("many calls share no more connections than the pool has", async (t) => {
  const server = await fakeServer(t, (request, peer) => setTimeout(echo, 5, request, peer));
  const client = clientOf(t, server.address, { connections: 3 });
  const values = Array.from({ length: 300 }, (_, number) => number);
  assert.deepEqual(await Promise.all(values.map((value) => echoed(client, value))), values);
  assert.equal(server.connections, 3);
  assert.equal(client.connections, 3);
});

test("one call after the other uses one connection", async (t) => {
  const server = await fakeServer(t, echo);
  const client = clientOf(t, server.address);
  for (let value = 0; value < 10; value += 1) assert.equal(await echoed(client, value), value);
  assert.equal(server.connections, 1);
});

test("a call that waits for a place is withdrawn without being sent", async (t) => {
  const held: [Request, Peer][] = [];
  const server = await fakeServer(t, (request, peer) => held.push([request, peer]));
  const client = clientOf(t, server.address, { connections: 1 });
  const full = Array.from({ length: 32 }, (_, number) => echoed(client, number));
  const abort = new AbortController();
  const aborted = errorOf(client.call("test.aborted", {}, { signal: abort.signal }));
  const late = errorOf(client.call("test.late", {}, { timeoutMs: 30 }));
  const next = echoed(client, 99);
  abort.abort(new Error("changed my mind"));
  assert.equal(String(await aborted), "Error: changed my mind");
  assert.match(String(await late), /^NoReplyError: test\.late: no reply in 0\.03 s; all connections .* are in use$/);
  await until(() => held.length === 32);
  for (const [request, peer] of held.splice(0)) echo(request, peer);
  assert.deepEqual((await Promise.all(full)).length, 32);
  await until(() => held.length === 1);
  for (const [request, peer] of held) echo(request, peer);
  assert.equal(await next, 99);
  assert.deepEqual([...new Set(server.requests.map((request) => request.method))], ["test.echo"]);
});

test("a reply after its timeout is passed over, and the connection goes on", async (t) => {
  const server = await fakeServer(t, (request, peer) => {
    if (request.method === "test.slow") setTimeout(() => peer.reply(request.id, "late"), 500);
    else peer.reply(request.id, request.params["value"]);
  });
  const client = clientOf(t, server.address, { connections: 1 });
  await echoed(client, 0);
  const slow = errorOf(client.call("test.slow", {}, { timeoutMs: 300 }));
  assert.equal(await echoed(client, 1), 1);
  const error = await slow;
  assert.ok(error instanceof NoReplyError);
  assert.equal(error.message, "test.slow: no reply in 0.3 s");
  await new Promise((resolve) => setTimeout(resolve, 300));
  assert.equal(await echoed(client, 2), 2);
  assert.equal(server.connections, 1);
});

test("a connection on which nothing comes is left for another one", async (t) => {
  const server = await fakeServer(t, (request, peer) => {
    if (peer.number > 1 || request.params["value"] === 0) echo(request, peer);
  });
  const client = clientOf(t, server.address, { connections: 1 });
  await echoed(client, 0);
  assert.ok((await errorOf(echoed(client, 1, 40))) instanceof NoReplyError);
  assert.equal(await echoed(client, 2), 2);
  assert.equal(server.connections, 2);
  await until(() => server.open === 1);
});

test("a host that takes no connection is given up at the deadline of the call", async (t) => {
  // Such as one behind a firewall; a handshake of TLS that is never answered is alike.
  const server = await fakeServer(t, never, { isDeaf: true });
  const client = clientOf(t, server.address.replace("tcp:", "tls:"), { timeoutMs: 5000 });
  const error = await errorOf(client.ping({ timeoutMs: 50 }));
  assert.ok(error instanceof ConnectionLostError);
  assert.match(error.message, /^no answer from 127\.0\.0\.1:\d+; rpc\.ping: no reply in 0\.05 s$/);
  await until(() => server.open === 0);
});

test("connecting ends after the timeout of the client", async (t) => {
  const server = await fakeServer(t, never, { isDeaf: true });
  const client = clientOf(t, server.address.replace("tcp:", "tls:"), { timeoutMs: 40, retries: { attempts: 1 } });
  const error = await errorOf(client.ping({ timeoutMs: 5000 }));
  assert.match(String(error), /^ConnectionLostError: no answer from 127\.0\.0\.1:\d+ in 0\.04 s$/);
});

test("a signal aborts before a call, during it, and between attempts", async (t) => {
  const server = await fakeServer(t, (request, peer) => {
    if (request.method === "test.limited") peer.refuse(request.id, -32011, "limited", { retry_after_ms: 5000 });
  });
  const client = clientOf(t, server.address);
  const reason = new Error("no longer needed");

  assert.equal(await errorOf(client.ping({ signal: AbortSignal.abort(reason) })), reason);
  assert.equal(server.requests.length, 0);

  for (const method of ["test.silent", "test.limited"]) {
    const abort = new AbortController();
    const error = errorOf(client.call(method, {}, { signal: abort.signal, repeatable: true }));
    await until(() => server.requests.some((request) => request.method === method));
    await new Promise((resolve) => setTimeout(resolve, 20));
    abort.abort(reason);
    assert.equal(await error, reason);
  }
  assert.equal(server.requests.length, 2);
});

test("an aborted call leaves the others of its connection alone", async (t) => {
  const held: [Request, Peer][] = [];
  const server = await fakeServer(t, (request, peer) => held.push([request, peer]));
  const client = clientOf(t, server.address, { connections: 1 });
  const abort = new AbortController();
  const aborted = errorOf(client.call("test.echo", { value: 1 }, { signal: abort.signal }));
  const kept = echoed(client, 2);
  await until(() => held.length === 2);
  abort.abort();
  assert.equal((await aborted as Error).name, "AbortError");
  for (const [request, peer] of held) echo(request, peer);
  assert.equal(await kept, 2);
  assert.equal(client.connections, 1);
});

test("a signal that many calls share keeps no listener of a call that has ended", async (t) => {
  const server = await fakeServer(t, echo);
  const client = clientOf(t, server.address);
  const { signal } = new AbortController();
  let listeners = 0;
  const add = signal.addEventListener.bind(signal);
  const remove = signal.removeEventListener.bind(signal);
  signal.addEventListener = (...given: Parameters<typeof add>) => { listeners += 1; add(...given); };
  signal.removeEventListener = (...given: Parameters<typeof remove>) => { listeners -= 1; remove(...given); };
  for (let value = 0; value < 5; value += 1) await client.call("test.echo", { value }, { signal });
  assert.equal(listeners, 0);
});

test("closing also ends calls of a connection that was silent", async (t) => {
  const server = await fakeServer(t, (request, peer) => request.params["value"] === 0 && echo(request, peer));
  const client = clientOf(t, server.address, { connections: 1 });
  await echoed(client, 0);
  const waiting = errorOf(echoed(client, 1));
  assert.ok((await errorOf(echoed(client, 2, 30))) instanceof NoReplyError);
  client.close();
  assert.ok((await waiting) instanceof ClientClosedError);
  await until(() => server.open === 0);
});

test("closing ends calls under way and refuses later ones", async (t) => {
  const server = await fakeServer(t, never);
  const client = clientOf(t, server.address, { connections: 1 });
  const under_way = Array.from({ length: 40 }, (_, number) => errorOf(echoed(client, number)));
  await until(() => server.requests.length === 32);
  client.close();
  for (const error of await Promise.all(under_way)) assert.ok(error instanceof ClientClosedError);
  assert.ok((await errorOf(client.ping())) instanceof ClientClosedError);
  await until(() => server.open === 0);
});

test("an address or an option that is none is refused", () => {
  for (const address of ["127.0.0.1:7879", "ftp://host", "tcp://", "tcp://host:x", "tcp://host:0", ""]) {
    assert.throws(() => new RagClient(address), /is no address of a server; such as tcp:/, address);
  }
  assert.throws(() => new RagClient("http://127.0.0.1:7880"), /this client speaks JSON-RPC over TCP/);
  for (const tls of [{ ca: "no certificate" }, { cert: "x", key: "y" }]) {
    assert.throws(() => new RagClient("tls://127.0.0.1:7879", { tls }), /option tls cannot be used: /);
  }
  for (const options of [{ timeoutMs: 0 }, { timeoutMs: NaN }, { connections: 0 }, { retries: { attempts: 0.5 } }]) {
    assert.throws(() => new RagClient("tcp://127.0.0.1:7879", options), InvalidInputError);
  }
});

test("what JSON has no form of is refused, and a missing value is null", async (t) => {
  const server = await fakeServer(t, (request, peer) => peer.reply(request.id, request.params));
  const client = clientOf(t, server.address);
  for (const value of [Infinity, -Infinity, 1n]) {
    const error = await errorOf(client.call("test.echo", { value }));
    assert.ok(error instanceof InvalidInputError);
    assert.match(error.message, /^test\.echo: the parameters are no JSON: /);
  }
  assert.ok((await errorOf(client.call("test.echo", [1]))) instanceof InvalidInputError);
  const result = (await client.call("test.echo", { value: NaN })) as Record<string, unknown>;
  assert.equal(result["value"], null);
});
