/** What a client does to the program that it is part of. */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { test } from "node:test";
import { echo, fakeServer, never } from "./support/fake_server.js";

/** The exit code and the output of a program. */
async function run(code: string, ...given: string[]): Promise<[number, string]> {
  const program = spawn(process.execPath, ["--input-type=module", "-e", code, ...given], { cwd: import.meta.dirname });
  let output = "";
  for (const stream of [program.stdout, program.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => (output += text));
  }
  const [exitCode] = (await once(program, "close")) as [number];
  return [exitCode, output];
}

test("a program ends by itself although its client is idle and not closed", { timeout: 20_000 }, async (t) => {
  const server = await fakeServer(t, echo);
  const code = `
    import { RagClient } from "@llm-trader/rag-client";
    const client = new RagClient(process.argv[1]);
    console.log(await client.call("test.echo", { value: 1 }), await client.call("test.echo", { value: 2 }));`;
  assert.deepEqual(await run(code, server.address), [0, "1 2\n"]);
});

test("a program does not end while a call is under way", { timeout: 20_000 }, async (t) => {
  const server = await fakeServer(t, (request, peer) => setTimeout(echo, 300, request, peer));
  const code = `
    import { RagClient } from "@llm-trader/rag-client";
    const client = new RagClient(process.argv[1]);
    client.call("test.echo", { value: 1 }).then(() => client.call("test.echo", { value: 2 })).then(console.log);`;
  assert.deepEqual(await run(code, server.address), [0, "2\n"]);
});

test("no error goes by unhandled when every call of a connection was given up", { timeout: 20_000 }, async (t) => {
  const server = await fakeServer(t, never, { onConnect: (peer) => setTimeout(() => peer.reset(), 60) });
  const code = `
    import { RagClient } from "@llm-trader/rag-client";
    const client = new RagClient(process.argv[1], { token: "secret" });
    const calls = [5, 10, 20].map((timeoutMs) => client.ping({ timeoutMs }));
    calls.push(client.ping({ signal: AbortSignal.timeout(5) }));
    console.log((await Promise.allSettled(calls)).map((call) => call.status).join());
    await new Promise((resolve) => setTimeout(resolve, 150));`;
  assert.deepEqual(await run(code, server.address), [0, "rejected,rejected,rejected,rejected\n"]);
});
