// The prompt of the newest state of a symbol: node examples/query.mjs [BTCUSDT] [tcp://127.0.0.1:7879]
import { queryOrBaseline, RagClient, renderPrompt } from "@llm-trader/rag-client";

const [symbol = "BTCUSDT", address = "tcp://127.0.0.1:7879"] = process.argv.slice(2);
const client = new RagClient(address, { token: process.env.RAG_TOKEN });

const { freshness } = await client.stats();
const timestamp = freshness.find((row) => row.symbol === symbol)?.state_as_of;
if (timestamp == null) throw new Error(`the server has no data of ${symbol}`);

const { snapshot } = await client.getSnapshot({ symbol, timestamp });
const arm = await queryOrBaseline(client, { symbol, timestamp }, { timeoutMs: 3000, verdictNone: "rag" });
console.error(arm.arm === "baseline" ? arm.because : `${arm.answer.evidence.verdict}: ${arm.answer.evidence.reason}`);
const prompt = renderPrompt(arm.arm, snapshot, arm.answer);
console.log(`${prompt.system}\n\n${prompt.user}`);
