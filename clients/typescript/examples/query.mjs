// Asks a running server about the newest state of a symbol: node examples/query.mjs [BTCUSDT] [tcp://127.0.0.1:7879]
import { RagClient, queryOrBaseline } from "@llm-trader/rag-client";

const [symbol = "BTCUSDT", address = "tcp://127.0.0.1:7879"] = process.argv.slice(2);
const client = new RagClient(address, { token: process.env.RAG_TOKEN });

const stats = await client.stats();
const newest = stats.freshness.find((row) => row.symbol === symbol)?.state_as_of;
if (newest == null) throw new Error(`the server has no data of ${symbol}`);

const arm = await queryOrBaseline(client, { symbol, timestamp: newest }, { timeoutMs: 3000 });
if (arm.arm === "baseline") {
  console.log(arm.because);
} else {
  const { evidence, matches } = arm.answer;
  console.log(`${evidence.verdict}: ${evidence.reason}`);
  for (const { date, similarity, outcomes } of matches) {
    console.log(`${date}  ${similarity.toFixed(3)}  4h later: ${outcomes.outcome_4h?.toFixed(2) ?? "unknown"} %`);
  }
}
