/** What a server may send: pieces, garbage, too much, and half of a reply. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { ConnectionLostError, RagError } from "@llm-trader/rag-client";
import { clientOf, echoed, errorOf } from "./support/clients.js";
import { type Answer, echo, fakeServer, type Peer, type Request } from "./support/fake_server.js";
import { seededRandom } from "./support/random.js";

const ONCE = { retries: { attempts: 1 } };

/** What the first connection sends instead of a reply; later ones echo. */
function firstSends(send: (request: Request, peer: Peer) => void): Answer {
  return (request, peer) => (peer.number === 1 ? send(request, peer) : echo(request, peer));
}

const GARBAGE: readonly [string, string | Uint8Array, RegExp][] = [
  ["another protocol", "SSH-2.0-OpenSSH_9.6\r\n", /this is no JSON: "SSH-2\.0-OpenSSH_9\.6/],
  ["half of a document", '{"jsonrpc":"2.0","id":1,\n', /this is no JSON/],
  ["an array", "[]\n", /this is no reply of JSON-RPC: "\[\]"/],
  ["a number", "7\n", /this is no reply of JSON-RPC/],
  ["null", "null\n", /this is no reply of JSON-RPC/],
  ["neither result nor error", '{"jsonrpc":"2.0","id":1}\n', /this is no reply of JSON-RPC/],
  ["an id that no call has", '{"jsonrpc":"2.0","id":"one","result":1}\n', /this is no reply of JSON-RPC/],
  ["an error without a code", '{"jsonrpc":"2.0","id":1,"error":{"message":"x"}}\n', /this is no reply of JSON-RPC/],
  ["bytes that are no text", Uint8Array.of(0x22, 0xff, 0xfe, 0x22, 0x0a), /not valid/],
  ["a long line of garbage", `${"x".repeat(100_000)}\n`, /this is no JSON: "x{80}…"/],
];

for (const [name, bytes, message] of GARBAGE) {
  test(`garbage ends the connection, says what came, and a call is sent again: ${name}`, async (t) => {
    const server = await fakeServer(t, firstSends((_, peer) => peer.raw(bytes)));
    const error = await errorOf(echoed(clientOf(t, server.address, ONCE), 1));
    assert.ok(error instanceof ConnectionLostError);
    assert.match(error.message, /^the connection failed: /);
    assert.match(error.message, message);

    const again = await fakeServer(t, firstSends((_, peer) => peer.raw(bytes)));
    assert.equal(await echoed(clientOf(t, again.address), 1), 1);
  });
}

test("replies before garbage are taken", async (t) => {
  const held: Request[] = [];
  const server = await fakeServer(t, (request, peer) => {
    held.push(request);
    if (held.length < 3) return;
    const [first, second] = held as [Request, Request];
    peer.raw([first, second].map(({ id }) => `{"jsonrpc":"2.0","id":${id},"result":${id}}\n`).join("") + "garbage\n");
  });
  const client = clientOf(t, server.address, { connections: 1, ...ONCE });
  const [first, second, third] = await Promise.allSettled([1, 2, 3].map((value) => echoed(client, value)));
  assert.deepEqual([first?.status, second?.status, third?.status], ["fulfilled", "fulfilled", "rejected"]);
});

test("blank lines, notifications and replies that nobody waits for are passed over", async (t) => {
  const server = await fakeServer(t, (request, peer) => {
    peer.raw("\n  \r\n");
    peer.write({ jsonrpc: "2.0", method: "rag.evidence", params: { subscription: "s1" } });
    peer.reply(9999, "nobody's");
    peer.raw(`{"jsonrpc":"2.0","id":${request.id},"result":"ours"}\r\n`);
    peer.reply(request.id, "a second time");
  });
  const client = clientOf(t, server.address);
  assert.equal(await echoed(client, 1), "ours");
  assert.equal(await echoed(client, 1), "ours");
  assert.equal(server.connections, 1);
});

test("a reply may come in single bytes", async (t) => {
  const text = "Überraschung: 市场 📈";
  const server = await fakeServer(t, (request, peer) => {
    const bytes = Buffer.from(`{"jsonrpc":"2.0","id":${request.id},"result":"${text}"}\n`);
    const send = (at: number): void => {
      if (at >= bytes.length) return;
      peer.raw(bytes.subarray(at, at + 1));
      setImmediate(send, at + 1);
    };
    send(0);
  });
  assert.equal(await echoed(clientOf(t, server.address), 1), text);
});

test("a server that closes in the middle of a reply has not answered", async (t) => {
  const half: Answer = firstSends((request, peer) => {
    peer.raw(`{"jsonrpc":"2.0","id":${request.id},"result":{"matches":[{"simil`);
    peer.hangUp();
  });
  const server = await fakeServer(t, half);
  const error = await errorOf(echoed(clientOf(t, server.address, ONCE), 1));
  assert.ok(error instanceof ConnectionLostError);
  assert.equal(error.message, "the server closed the connection");
  assert.equal(await echoed(clientOf(t, (await fakeServer(t, half)).address), 1), 1);
});

test("a reply of many megabytes is taken", async (t) => {
  const size = 20 * 2 ** 20;
  const server = await fakeServer(t, (request, peer) => peer.reply(request.id, "x".repeat(size)));
  const result = (await echoed(clientOf(t, server.address), 1)) as string;
  assert.equal(result.length, size);
});

test("a line without an end is given up at 64 MiB", async (t) => {
  const piece = Buffer.alloc(2 ** 20, "x");
  let sent = 0;
  const server = await fakeServer(t, (_, { socket }) => {
    const more = (): void => {
      while (!socket.destroyed && sent < 200) {
        sent += 1;
        if (!socket.write(piece)) break;
      }
    };
    socket.on("drain", more);
    more();
  });
  const error = await errorOf(echoed(clientOf(t, server.address, ONCE), 1));
  assert.ok(error instanceof ConnectionLostError);
  assert.equal(error.message, "the connection failed: a reply of more than 64 MiB");
  assert.ok(sent < 100, `${sent} MiB were taken`);
});

test("random bytes end in an error of this client, whatever they are", async (t) => {
  const random = seededRandom(12345);
  const server = await fakeServer(t, (_, peer) => {
    peer.raw(Uint8Array.from({ length: 1 + random() * 400 }, () => random() * 256));
    peer.raw("\n");
    peer.hangUp();
  });
  const client = clientOf(t, server.address, ONCE);
  for (let round = 0; round < 200; round += 1) {
    assert.ok((await errorOf(echoed(client, round))) instanceof RagError);
  }
});
