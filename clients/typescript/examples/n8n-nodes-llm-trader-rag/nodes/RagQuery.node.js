// Asks the RAG server about each incoming item. Items with evidence leave by the first output, the
// others by the second one with the reason, so that a workflow branches to the right prompt.
const { RagClient, RagError, queryOrBaseline } = require("@llm-trader/rag-client");

const PROPERTIES = [
  {
    displayName: "Symbol",
    name: "symbol",
    type: "string",
    default: "={{ $json.symbol }}",
    required: true,
    description: "Such as BTCUSDT",
  },
  {
    displayName: "Timestamp",
    name: "timestamp",
    type: "number",
    default: "={{ $json.timestamp }}",
    required: true,
    description: "Time of the state, UTC milliseconds",
  },
  {
    displayName: "Current State",
    name: "currentState",
    type: "json",
    default: "",
    description: "The market's state as JSON; when it is empty the server takes the state of its store",
  },
  {
    displayName: "Query Config",
    name: "queryConfig",
    type: "json",
    default: "{}",
    description: "Settings of the query by their names on the wire, such as {\"top_k\": 5}",
  },
  {
    displayName: "Timeout (Ms)",
    name: "timeoutMs",
    type: "number",
    default: 3000,
    description: "After this time the item leaves by the output Baseline",
  },
  {
    displayName: "On Verdict None",
    name: "verdictNone",
    type: "options",
    options: [
      { name: "Baseline", value: "baseline" },
      { name: "Evidence", value: "rag" },
    ],
    default: "baseline",
    description: "Which output an answer takes that shows nothing beyond chance",
  },
];

class RagQuery {
  constructor() {
    this.description = {
      displayName: "LLM Trader RAG Query",
      name: "ragQuery",
      group: ["transform"],
      version: 1,
      description: "What followed when the market looked like this before, and how far to trust that",
      defaults: { name: "RAG Query" },
      inputs: ["main"],
      outputs: ["main", "main"],
      outputNames: ["Evidence", "Baseline"],
      credentials: [{ name: "llmTraderRagApi", required: true }],
      properties: PROPERTIES,
    };
  }

  async execute() {
    const items = this.getInputData();
    const { address, token, ca } = await this.getCredentials("llmTraderRagApi");
    const client = new RagClient(address, { token: token || undefined, tls: ca ? { ca } : undefined });
    try {
      const answers = await Promise.all(items.map((item, index) => answered(this, client, item, index)));
      return [answers.filter(({ json }) => json.arm === "rag"), answers.filter(({ json }) => json.arm !== "rag")];
    } finally {
      client.close();
    }
  }
}

/** The item with `arm`, and `answer` or `because` beside what it had. */
async function answered(context, client, item, index) {
  const given = (name) => context.getNodeParameter(name, index);
  const pairedItem = { item: index };
  try {
    const state = parsed("Current State", given("currentState"));
    const query = {
      symbol: given("symbol"),
      timestamp: given("timestamp"),
      query_config: parsed("Query Config", given("queryConfig")) ?? {},
      ...(state === undefined ? {} : { current_state: state }),
    };
    const options = { timeoutMs: given("timeoutMs"), verdictNone: given("verdictNone") };
    const { error, ...arm } = await queryOrBaseline(client, query, options);
    return { json: { ...item.json, ...arm, error: error?.message ?? null }, pairedItem };
  } catch (error) {
    if (!context.continueOnFail()) throw error;
    const because = `use the baseline prompt because the question is wrong: ${error.message}`;
    const reason = error instanceof RagError ? error.kind : "error";
    return { json: { ...item.json, arm: "baseline", reason, because, error: error.message }, pairedItem };
  }
}

/** JSON of a field of the form, which n8n gives as text or as an object. */
function parsed(name, value) {
  if (value === "" || value == null) return undefined;
  if (typeof value !== "string") return value;
  try {
    return JSON.parse(value);
  } catch (error) {
    throw new Error(`${name} is no JSON: ${error.message}`);
  }
}

module.exports = { RagQuery };
