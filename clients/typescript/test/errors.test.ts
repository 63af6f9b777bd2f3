/** Errors of a server as classes, with code and data. */

import assert from "node:assert/strict";
import { test } from "node:test";
import * as rag from "@llm-trader/rag-client";
import { clientOf, echoed, errorOf } from "./support/clients.js";
import { echo, fakeServer } from "./support/fake_server.js";

const NO_RETRIES = { retries: { attempts: 1 } };
const CLASSES: readonly [number, new (error: rag.ErrorObject) => rag.RpcError, string][] = [
  [-32700, rag.InvalidRequest, "rpc_invalid_request"],
  [-32600, rag.InvalidRequest, "rpc_invalid_request"],
  [-32601, rag.MethodNotFound, "rpc_method_not_found"],
  [-32602, rag.InvalidParams, "rpc_invalid_params"],
  [-32603, rag.ServerFault, "rpc_server_fault"],
  [-32000, rag.ServerFault, "rpc_server_fault"],
  [-32001, rag.InsufficientMatches, "rpc_insufficient_matches"],
  [-32002, rag.SymbolNotFound, "rpc_symbol_not_found"],
  [-32003, rag.IndexFailed, "rpc_index_failed"],
  [-32004, rag.EmbeddingFailed, "rpc_embedding_failed"],
  [-32005, rag.StaleData, "rpc_stale_data"],
  [-32010, rag.Unauthorized, "rpc_unauthorized"],
  [-32011, rag.RateLimited, "rpc_rate_limited"],
  [-32012, rag.Overloaded, "rpc_overloaded"],
  [-32013, rag.DeadlineExceeded, "rpc_deadline_exceeded"],
  [-1, rag.RpcError, "rpc"],
];

for (const [code, Class, kind] of CLASSES) {
  test(`an error ${code} is a ${Class.name} with its code, message and data`, async (t) => {
    const data = { some: ["detail"] };
    const server = await fakeServer(t, (request, peer) => peer.refuse(request.id, code, "what is wrong", data));
    const error = await errorOf(echoed(clientOf(t, server.address, NO_RETRIES), 1));
    assert.ok(error instanceof Class && error instanceof rag.RagError && error instanceof Error);
    assert.equal(error.constructor, Class);
    assert.equal(error.name, Class.name);
    assert.equal(error.kind, kind);
    assert.equal(error.code, code);
    assert.equal(error.message, "what is wrong");
    assert.deepEqual(error.data, data);
  });
}

test("every code of a server has a class", () => {
  const codes = Object.keys(rag.ERROR_TITLES).map(Number);
  assert.deepEqual(codes.sort(), CLASSES.map(([code]) => code).filter((code) => code !== -1).sort());
});

test("what an error says beyond its message has a name", () => {
  const params = { errors: [{ field: "symbol", error: "is missing" }, "no field error"] };
  assert.deepEqual(new rag.InvalidParams({ code: -32602, message: "", data: params }).errors, [params.errors[0]]);
  const matches = { matches_found: 2, min_required: 3, suggestion: "ask for more days" };
  const insufficient = new rag.InsufficientMatches({ code: -32001, message: "", data: matches });
  assert.equal(insufficient.suggestion, "ask for more days");
  assert.equal(insufficient.matchesFound, 2);
  assert.equal(insufficient.minRequired, 3);
});

test("what an error does not say is empty or null", () => {
  for (const data of [undefined, null, 7, "text", [], {}]) {
    assert.deepEqual(new rag.InvalidParams({ code: -32602, message: "", data }).errors, []);
    assert.equal(new rag.InsufficientMatches({ code: -32001, message: "", data }).suggestion, "");
    assert.equal(new rag.RateLimited({ code: -32011, message: "", data }).retryAfterMs, null);
    assert.equal(new rag.Overloaded({ code: -32012, message: "", data }).retryAfterMs, null);
  }
});

test("a server that refuses the whole connection answers each of its calls", async (t) => {
  const server = await fakeServer(t, () => undefined, {
    onConnect: (peer) => {
      peer.refuse(null, -32012, "too many connections", { retry_after_ms: 1000 });
      peer.hangUp();
    },
  });
  const client = clientOf(t, server.address, { connections: 1, ...NO_RETRIES });
  for (const error of await Promise.all([1, 2].map((value) => errorOf(echoed(client, value))))) {
    assert.ok(error instanceof rag.Overloaded);
    assert.equal(error.code, -32012);
    assert.equal(error.retryAfterMs, 1000);
  }
});

test("a request that is too large is refused, and the calls beside it are sent again", async (t) => {
  const server = await fakeServer(t, (request, peer) => {
    if (JSON.stringify(request).length < 10_000) return void setTimeout(echo, 50, request, peer);
    peer.refuse(null, -32600, "Invalid Request: a document of more than 1 MiB");
    peer.hangUp();
  });
  const client = clientOf(t, server.address, { connections: 1 });
  const small = echoed(client, 1);
  const large = errorOf(client.call("test.echo", { value: "x".repeat(20_000) }, { repeatable: true }));
  assert.ok((await large) instanceof rag.InvalidRequest);
  assert.equal(await small, 1);
});

test("a token is sent once on each connection, before its calls", async (t) => {
  const server = await fakeServer(t, (request, peer) => {
    if (request.method === "rpc.authenticate") peer.reply(request.id, { authenticated: true, key: null, scopes: [] });
    else setTimeout(echo, 5, request, peer);
  });
  const client = clientOf(t, server.address, { token: "secret", connections: 2 });
  await Promise.all([1, 2, 3, 4].map((value) => echoed(client, value)));
  const tokens = server.requests.filter((request) => request.method === "rpc.authenticate");
  assert.deepEqual(tokens.map((request) => request.params), [{ token: "secret" }, { token: "secret" }]);
  assert.equal(server.requests[0]?.method, "rpc.authenticate");
});

test("a token that is refused is told to each call, and not sent again by itself", async (t) => {
  const server = await fakeServer(t, (request, peer) => peer.refuse(request.id, -32010, "unknown key"));
  const client = clientOf(t, server.address, { token: "wrong", connections: 1 });
  for (const error of await Promise.all([1, 2].map((value) => errorOf(echoed(client, value))))) {
    assert.ok(error instanceof rag.Unauthorized);
    assert.equal(error.code, -32010);
  }
  assert.equal(server.requests.length, 1);
  await assert.rejects(echoed(client, 3), rag.Unauthorized);
});

test("a result of another version is refused, with what it lacks", async (t) => {
  const server = await fakeServer(t, (request, peer) => peer.reply(request.id, { matches: [], metadata: {} }));
  const client = clientOf(t, server.address);
  const error = await errorOf(client.queryPatterns({ symbol: "BTCUSDT", timestamp: 1_774_008_000_000 }));
  assert.ok(error instanceof rag.UnexpectedResultError);
  assert.match(error.message, /^rag\.query_patterns: .* it has no evidence; use the client of the server's version$/);
  assert.equal(server.requests.length, 1);
});
