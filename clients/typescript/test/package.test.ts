/** The package as others install it: its files, both kinds of modules, its types, and the examples. */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { promisify } from "node:util";
import { fakeServer, never } from "./support/fake_server.js";
import { PACKAGE } from "./support/paths.js";

const run = promisify(execFile);
const answer = { matches: [], statistics: {}, metadata: {}, evidence: { verdict: "weak", reason: "why" } };

interface Item {
  readonly json: Record<string, unknown>;
}

/** As much of n8n as a node sees. */
function n8n(address: string, items: Item[], parameters: Record<string, unknown>, continues = false): object {
  const defaults = { currentState: "", queryConfig: "{}", timeoutMs: 1000, verdictNone: "baseline" };
  return {
    getInputData: () => items,
    getCredentials: async () => ({ address, token: "", ca: "" }),
    getNodeParameter: (name: string, index: number) => ({ ...defaults, ...items[index]?.json, ...parameters })[name],
    continueOnFail: () => continues,
  };
}

describe("the packed package", { timeout: 120_000 }, () => {
  const folder = mkdtempSync(join(tmpdir(), "rag-client-package-"));
  const installed = join(folder, "node_modules", "@llm-trader", "rag-client");
  const write = (name: string, text: string): string => {
    writeFileSync(join(folder, name), text);
    return join(folder, name);
  };
  let files: string[];

  before(async () => {
    const npm = process.env["npm_execpath"] ?? "npm";
    const [program, first] = npm.endsWith(".js") ? [process.execPath, [npm]] : [npm, []];
    const given = [...first, "pack", "--json", "--ignore-scripts", "--pack-destination", folder];
    const { stdout } = await run(program, given, { cwd: PACKAGE });
    const [packed] = JSON.parse(stdout) as { filename: string; files: { path: string }[] }[];
    files = (packed?.files ?? []).map((file) => file.path);
    mkdirSync(installed, { recursive: true });
    const tarball = (packed?.filename ?? "").replace("@", "").replace("/", "-");
    await run("tar", ["-xzf", join(folder, tarball), "-C", installed, "--strip-components=1"]);
  });

  after(() => rmSync(folder, { recursive: true, force: true }));

  test("it holds what is needed to use it, and nothing else", () => {
    const folders = new Set(files.map((file) => file.split("/").slice(0, -1).join("/")));
    assert.deepEqual([...folders].sort(), [
      "",
      "dist/cjs",
      "dist/cjs/prompt",
      "dist/esm",
      "dist/esm/prompt",
      "examples",
      "examples/n8n-nodes-llm-trader-rag",
      "examples/n8n-nodes-llm-trader-rag/credentials",
      "examples/n8n-nodes-llm-trader-rag/nodes",
    ]);
    assert.deepEqual(files.filter((file) => !file.includes("/")).sort(), ["LICENSE", "README.md", "package.json"]);
    const manifest = JSON.parse(readFileSync(join(installed, "package.json"), "utf8")) as Record<string, unknown>;
    assert.equal(manifest["dependencies"], undefined);
  });

  test("it is imported as an ES module and required as CommonJS, with the same names", async () => {
    const show = "console.log(Object.keys(rag).sort().join(), typeof rag.RagClient, new rag.RagClient().connections)";
    const esm = await run(process.execPath, [write("a.mjs", `import * as rag from "@llm-trader/rag-client"; ${show}`)]);
    const cjs = await run(process.execPath, [write("a.cjs", `const rag = require("@llm-trader/rag-client"); ${show}`)]);
    assert.equal(esm.stdout, cjs.stdout);
    assert.match(esm.stdout, /ConnectionLostError.* function 0\n$/);
  });

  test("its types are strict for both kinds of modules, and have no any", async () => {
    const code = `
      const client = new rag.RagClient("tcp://127.0.0.1:7879", { token: "k", tls: { ca: "pem" }, timeoutMs: 1 });
      export async function price(): Promise<number | null> {
        const arm = await rag.queryOrBaseline(client, { symbol: "BTCUSDT", timestamp: 1 });
        if (arm.arm === "baseline") { const because: string = arm.because; throw new Error(because); }
        const { close } = await client.call("rag.get_candles", { symbol: "B", start: 1, end: 2, timeframe: "3m" });
        // @ts-expect-error a parameter is missing
        void client.call("rag.get_candles", { symbol: "B" });
        // @ts-expect-error no such setting
        void client.queryPatterns({ symbol: "B", timestamp: 1, query_config: { topk: 5 } });
        // @ts-expect-error the result of an unknown method is unknown, which is not any
        const wrong: number = await client.call("some.method", {});
        return close.length + wrong + (arm.answer.matches[0]?.outcomes.outcome_4h ?? 0);
      }
      export const kindOf = (error: unknown): string =>
        error instanceof rag.RpcError ? String(error.code satisfies number) : "";`;
    write("a.mts", `import * as rag from "@llm-trader/rag-client"; ${code}`);
    write("a.cts", `import rag = require("@llm-trader/rag-client"); ${code}`);
    // All that it needs of its surroundings; Node.js' types and those of browsers both have it.
    write("signal.d.ts", "interface AbortSignal { readonly aborted: boolean }");
    const compilerOptions = { noEmit: true, strict: true, module: "nodenext", target: "es2022", lib: ["es2022"], types: [] };
    write("tsconfig.json", JSON.stringify({ compilerOptions, files: ["a.mts", "a.cts", "signal.d.ts"] }));
    const tsc = createRequire(import.meta.url).resolve("typescript/package.json").replace("package.json", "bin/tsc");
    await run(process.execPath, [tsc, "-p", folder]).catch((error: { stdout: string }) => assert.fail(error.stdout));
    for (const format of ["esm", "cjs"]) {
      const built = readdirSync(join(installed, "dist", format), { recursive: true, encoding: "utf8" });
      for (const name of built.filter((file) => file.endsWith(".d.ts"))) {
        const text = readFileSync(join(installed, "dist", format, name), "utf8").replace(/\/\*.*?\*\//gs, "");
        assert.doesNotMatch(text, /[:<|,(=]\s*any\b/, name);
      }
    }
  });

  test("the example node for n8n sends items with evidence one way and the others another way", async (t) => {
    const server = await fakeServer(t, (request, peer) => {
      if (request.params["symbol"] === "BTCUSDT") peer.reply(request.id, answer);
      else if (request.params["symbol"] === "btc") peer.refuse(request.id, -32602, "symbol is wrong");
      else never(request, peer);
    });
    const example = join(installed, "examples", "n8n-nodes-llm-trader-rag");
    const home = join(folder, "n8n");
    cpSync(example, home, { recursive: true });
    const { RagQuery } = createRequire(join(home, "package.json"))("./nodes/RagQuery.node.js") as {
      RagQuery: new () => { description: { outputNames: string[] }; execute(): Promise<Item[][]> };
    };
    const node = new RagQuery();
    const items = ["BTCUSDT", "SLOWUSDT"].map((symbol) => ({ json: { symbol, timestamp: 1_774_008_000_000, kept: 1 } }));
    const execute = (...given: Parameters<typeof n8n>): Promise<Item[][]> => node.execute.call(n8n(...given) as typeof node);

    const [evidence, baseline] = await execute(server.address, items, { currentState: '{"price": 1}' });
    assert.deepEqual(node.description.outputNames, ["Evidence", "Baseline"]);
    assert.deepEqual(evidence?.map(({ json }) => [json["symbol"], json["kept"], json["answer"]]), [["BTCUSDT", 1, answer]]);
    assert.deepEqual(baseline?.map(({ json }) => [json["symbol"], json["reason"]]), [["SLOWUSDT", "slow"]]);
    assert.deepEqual(server.requests[0]?.params["current_state"], { price: 1 });

    const wrong = [{ json: { symbol: "btc", timestamp: 1 } }];
    await assert.rejects(execute(server.address, wrong, {}), /symbol is wrong/);
    const [, failed] = await execute(server.address, wrong, {}, true);
    assert.equal(failed?.[0]?.json["reason"], "rpc_invalid_params");
    await assert.rejects(execute(server.address, items, { queryConfig: "{" }), /Query Config is no JSON/);
  });

  test("the example nodes and credentials that n8n looks for are there", () => {
    const example = createRequire(join(installed, "examples", "n8n-nodes-llm-trader-rag", "package.json"));
    const manifest = example("./package.json") as { n8n: { nodes: string[]; credentials: string[] } };
    for (const path of [...manifest.n8n.nodes, ...manifest.n8n.credentials]) {
      const name = path.replace(/^.*\//, "").split(".")[0] ?? "";
      assert.equal(typeof (example(`./${path}`) as Record<string, unknown>)[name], "function");
    }
  });
});
