/** The client against the real server, on a simulated market. */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { promisify } from "node:util";
import * as rag from "@llm-trader/rag-client";
import { selfSigned } from "./support/certificate.js";
import { clientOf, errorOf } from "./support/clients.js";
import { PACKAGE } from "./support/paths.js";
import { seededRandom } from "./support/random.js";
import { END_MS, Market, type RagServer } from "./support/rag_server.js";

const HOUR_MS = 3_600_000;
const QUERY = { symbol: "BTCUSDT", timestamp: END_MS };

const PYTHON_DIGESTS = `
import sys, msgspec
from llm_trader.llm.prompt.render import render_prompt
from llm_trader.llm.prompt.retrieved import Retrieved
from llm_trader.snapshot.model import MarketSnapshot
for case in msgspec.json.decode(sys.stdin.buffer.read()):
    snapshot = msgspec.convert(case["snapshot"], MarketSnapshot)
    retrieved = msgspec.convert(case["result"], Retrieved)
    for arm in ("rag", "baseline"):
        print(render_prompt(arm, snapshot, retrieved).digest)
`;

/** A copy whose fractions are other ones of all sizes, ties of rounding among them; whole numbers and texts stay. */
function shaken<T>(value: T, random: () => number): T {
  return JSON.parse(JSON.stringify(value), (_, one: unknown) => {
    if (typeof one !== "number" || Number.isInteger(one)) return one;
    const pick = random();
    if (pick < 0.3) return one;
    if (pick < 0.6) return (Math.floor(random() * 2000) - 1000 + 0.5) / 1000;
    return (random() - 0.3) * 10 ** Math.floor(random() * 22 - 8);
  }) as T;
}

describe("with a server", { timeout: 120_000 }, () => {
  let market: Market;
  let server: RagServer;
  let client: rag.RagClient;

  before(async () => {
    market = await Market.simulated();
    server = await market.serve("--port", "0");
    client = new rag.RagClient(server.address);
  });

  after(async () => {
    client?.close();
    await server?.kill();
    market?.remove();
  });

  test("the server answers and says what it holds", async () => {
    assert.equal((await client.ping()).pong, true);
    const stats = await client.stats();
    const [symbol] = stats.index.symbols;
    assert.equal(symbol?.symbol, "BTCUSDT");
    assert.ok((symbol?.points ?? 0) > 1000);
    assert.equal(stats.freshness[0]?.store_end, END_MS);
  });

  test("a query has matches, statistics, evidence and metadata of their types", async () => {
    const answer = await client.queryPatterns({ ...QUERY, query_config: { top_k: 3, lookback_days: 30 } });
    assert.ok(answer.matches.length > 0 && answer.matches.length <= 3);
    const [match] = answer.matches;
    assert.equal(typeof match?.similarity, "number");
    assert.ok((match?.resolved_at ?? Infinity) <= END_MS);
    assert.ok(["informative", "weak", "none"].includes(answer.evidence.verdict));
    assert.equal(answer.metadata.as_of, END_MS);
  });

  test("a query may bring its own state", async () => {
    const { snapshot } = await client.getSnapshot(QUERY);
    const required = ["price", "rsi_7", "rsi_14", "macd", "ema_20", "ema_20_4h", "ema_50_4h", "funding_rate",
      "open_interest_latest", "open_interest_avg_24h"] as const;
    const given = Object.fromEntries(required.map((name) => [name, snapshot[name]]));
    const current_state = given as unknown as rag.CurrentState;
    const answer = await client.queryPatterns({ ...QUERY, current_state });
    assert.ok(answer.matches.length > 0);
  });

  test("a brief answer says the same in under 2 KB", async () => {
    const brief = await client.queryBriefly({ ...QUERY, query_config: { top_k: 3 } });
    const answer = await client.queryPatterns({ ...QUERY, query_config: { top_k: 3 } });
    assert.equal(brief.evidence.verdict, answer.evidence.verdict);
    assert.ok(JSON.stringify(brief).length < 2048);
  });

  test("a batch answers each query as a single one", async () => {
    const moments = [0, 24, 48].map((hours) => END_MS - hours * HOUR_MS);
    const queries = moments.map((timestamp) => ({ symbol: "BTCUSDT", timestamp }));
    const { answers } = await client.queryBatch(queries);
    const single = await Promise.all(queries.map((query) => client.queryPatterns(query)));
    const times = (matches: readonly { timestamp: number }[]): number[] => matches.map((match) => match.timestamp);
    assert.deepEqual(
      answers.map((answer) => times((answer.result as rag.QueryPatternsResult).matches)),
      single.map((answer) => times(answer.matches)),
    );
  });

  test("series come in pages that follow each other", async () => {
    const range = { symbol: "BTCUSDT", start: END_MS - HOUR_MS, end: END_MS };
    const first = await client.getCandles({ ...range, timeframe: "3m", limit: 15 });
    const second = await client.getCandles({ ...range, timeframe: "3m", start: first.next_start ?? 0 });
    const times = [...first.open_time, ...second.open_time];
    assert.deepEqual(times, Array.from({ length: 20 }, (_, number) => range.start + number * 180_000));
    assert.equal(second.next_start, null);
    assert.equal((await client.getFunding({ ...range, start: END_MS - 24 * HOUR_MS })).rate.length, 3);
    assert.ok((await client.getOpenInterest(range)).open_interest.length > 0);
  });

  test("a cohort is opened, ranked and refined, and its verdict allows for more looks", async () => {
    const opened = await client.cohortOpen(QUERY);
    assert.equal(opened.cohort, "BTCUSDT@2025-03-02T00:00:00Z");
    const { ranking } = await client.cohortRank({ cohort: opened.cohort });
    const [best] = ranking as [rag.RankedCondition];
    const conditions = [best.condition] as rag.CohortRefineParams["conditions"];
    const refined = await client.cohortRefine({ cohort: opened.cohort, conditions });
    assert.deepEqual(refined.conditions, conditions);
    assert.equal(refined.outcomes.states, best.states);
    assert.ok(refined.outcomes.looks > opened.outcomes.looks);
  });

  test("what the page shows can be asked for: alike features, series, quality, and records that are still empty", async () => {
    const { matches } = await client.queryPatterns(QUERY);
    const others = matches.map(({ timestamp }) => timestamp);
    const compared = await client.compareStates({ ...QUERY, others });
    assert.deepEqual(compared.states.map((state) => state.values.length), others.map(() => compared.features.length));
    const { series } = await client.seriesReport("BTCUSDT");
    assert.ok(series.some((one) => one.series === "candles_3m" && one.missing === 0));
    const quality = await client.forecastQuality({ symbol: "BTCUSDT", days: 7 });
    assert.deepEqual(quality.horizons?.map(({ horizon, scored }) => [horizon, scored]), [["15m", 0], ["1h", 0], ["4h", 0], ["24h", 0]]);
    assert.deepEqual(quality.misses, []);
    const { recorded, total, decisions } = await client.listDecisions({ limit: 3 });
    assert.deepEqual([recorded, total, decisions], [false, 0, []]);
    assert.ok((await errorOf(client.getDecision(1))) instanceof rag.InvalidParams);
    assert.equal((await client.paperAccount()).recorded, false);
    assert.deepEqual((await client.listEvaluations()).evaluations, []);
  });

  test("any method can be called by its name on the wire, and every one of a type of its own is there", async () => {
    const page = await client.call("rag.get_candles", { symbol: "BTCUSDT", start: END_MS - HOUR_MS, end: END_MS, timeframe: "3m" });
    assert.equal(page.open_time.length, 20);
    const { methods } = (await client.discover()) as { methods: { name: string }[] };
    const withFields = Object.keys(rag.RESULT_FIELDS);
    for (const { name } of methods) if (name !== "rpc.discover") assert.ok(withFields.includes(name), name);
    assert.deepEqual((await client.reloadSettings()).applied, []);
  });

  test("every code that the server can send has a class", async () => {
    const document = (await client.discover()) as unknown as { components: { errors: object } };
    assert.deepEqual(Object.keys(document.components.errors).sort(), Object.keys(rag.ERROR_TITLES).sort());
  });

  test("parameters that are refused come with every field and why", async () => {
    const wrong = { symbol: "btc", timestamp: 7 };
    const error = await errorOf(client.queryPatterns(wrong));
    assert.ok(error instanceof rag.InvalidParams);
    assert.equal(error.code, -32602);
    assert.deepEqual(error.errors.map(({ field }) => field).sort(), ["symbol", "timestamp"]);
  });

  test("an unknown symbol, an unknown method and too few matches have classes of their own", async () => {
    assert.ok((await errorOf(client.queryPatterns({ ...QUERY, symbol: "NOSUCHUSDT" }))) instanceof rag.SymbolNotFound);
    assert.ok((await errorOf(client.call("rag.nothing", {}))) instanceof rag.MethodNotFound);
    const few = await errorOf(client.queryPatterns({ ...QUERY, query_config: { min_similarity: 1 } }));
    assert.ok(few instanceof rag.InsufficientMatches);
    assert.equal(few.minRequired, 3);
    assert.notEqual(few.suggestion, "");
  });

  test("hundreds of calls at once are all answered", async (t) => {
    const busy = clientOf(t, server.address, { timeoutMs: 60_000, retries: { attempts: 50 } });
    const moments = Array.from({ length: 150 }, (_, number) => END_MS - number * 900_000);
    const answers = await Promise.all(moments.map((timestamp) => busy.queryBriefly({ ...QUERY, timestamp })));
    assert.deepEqual(answers.map((answer) => answer.metadata.as_of), moments);
  });

  test("the baseline prompt is advised when matches are too few, and when the server hangs", async () => {
    const few = await rag.queryOrBaseline(client, { ...QUERY, query_config: { min_similarity: 1 } });
    assert.ok(few.arm === "baseline" && few.reason === "insufficient_matches");
    assert.equal((await rag.queryOrBaseline(client, QUERY, { verdictNone: "rag" })).arm, "rag");

    server.signal("SIGSTOP");
    const slow = await rag.queryOrBaseline(client, QUERY, { timeoutMs: 200 });
    server.signal("SIGCONT");
    assert.ok(slow.arm === "baseline" && slow.reason === "slow");
    assert.equal((await client.ping()).pong, true);
  });

  test("calls go on when the server is killed under load and starts again", async (t) => {
    let killed = await market.serve("--port", "0");
    const { port } = killed;
    t.after(() => killed.kill());
    const patient = clientOf(t, killed.address, { timeoutMs: 60_000, retries: { attempts: 200 } });
    let answered = 0;
    const moments = Array.from({ length: 200 }, (_, number) => END_MS - number * 900_000);
    const answers = moments.map(async (timestamp) => {
      const answer = await patient.queryBriefly({ ...QUERY, timestamp });
      answered += 1;
      return answer.metadata.as_of;
    });
    while (answered < 20) await new Promise((resolve) => setTimeout(resolve, 5));
    await killed.kill();
    assert.ok(answered < moments.length);
    killed = await market.serve("--port", String(port));
    assert.deepEqual(await Promise.all(answers), moments);
  });

  test("prompts of random states and answers are those that Python writes, by their digests", async () => {
    const random = seededRandom(20261129);
    const answer = await client.queryPatterns({ ...QUERY, query_config: { top_k: 10 } });
    const { snapshot } = await client.getSnapshot(QUERY);
    const cases = Array.from({ length: 1000 }, () => ({
      snapshot: shaken(snapshot, random),
      result: shaken({ matches: answer.matches, evidence: answer.evidence }, random),
    }));
    const written = await market.python(PYTHON_DIGESTS, JSON.stringify(cases));
    const digests = cases.flatMap((given) =>
      (["rag", "baseline"] as const).map((arm) => rag.promptDigest(rag.renderPrompt(arm, given.snapshot, given.result))),
    );
    assert.equal(new Set(digests).size, 2000);
    assert.deepEqual(written.trim().split("\n"), digests);
  });

  test("the example prints the prompt of the newest state", async () => {
    const example = join(PACKAGE, "examples", "query.mjs");
    const { stdout, stderr } = await promisify(execFile)(process.execPath, [example, "BTCUSDT", server.address]);
    const { snapshot } = await client.getSnapshot(QUERY);
    const { system, user } = rag.renderPrompt("rag", snapshot, await client.queryPatterns(QUERY));
    assert.equal(stdout, `${system}\n\n${user}\n`);
    assert.match(stderr, /^(none|weak|informative): /);
  });

  test("a key opens a server that asks for one, over TLS, and others do not", async (t) => {
    const { certificate, key } = selfSigned();
    const [pem, keysFile] = [join(market.folder, "server.pem"), join(market.folder, "keys.toml")];
    writeFileSync(pem, certificate + key);
    const made = await market.run("llm-trader", "keys", "create", "desk", "--keys-file", keysFile, "--json");
    const { token } = JSON.parse(made) as { token: string };
    const secured = await market.serve("--port", "0", "--keys-file", keysFile, "--tls-certificate", pem);
    t.after(() => secured.kill());
    const address = `tls://127.0.0.1:${secured.port}`;
    const tls = { ca: certificate };

    assert.ok((await clientOf(t, address, { token, tls }).queryBriefly(QUERY)).evidence);
    assert.equal((await clientOf(t, `tls://localhost:${secured.port}`, { token, tls }).ping()).pong, true);
    assert.ok((await errorOf(clientOf(t, address, { token: "wrong", tls }).stats())) instanceof rag.Unauthorized);
    assert.ok((await errorOf(clientOf(t, address, { tls }).stats())) instanceof rag.Unauthorized);

    const once = { token, retries: { attempts: 1 } };
    const untrusted = await errorOf(clientOf(t, address, once).ping());
    assert.ok(untrusted instanceof rag.ConnectionLostError);
    assert.match(untrusted.message, /^cannot connect to 127\.0\.0\.1:\d+: self.signed certificate/);
    const misnamed = await errorOf(clientOf(t, address, { ...once, tls: { ...tls, servername: "other.host" } }).ping());
    assert.match(String(misnamed), /does not match certificate/);
    assert.ok((await errorOf(clientOf(t, secured.address, once).ping())) instanceof rag.ConnectionLostError);
  });
});
