// Where the server is, and the key that opens it.
class LlmTraderRagApi {
  constructor() {
    this.name = "llmTraderRagApi";
    this.displayName = "LLM Trader RAG API";
    this.properties = [
      {
        displayName: "Address",
        name: "address",
        type: "string",
        default: "tcp://127.0.0.1:7879",
        description: "tcp://host:port, or tls://host:port for TLS",
      },
      {
        displayName: "API Key",
        name: "token",
        type: "string",
        typeOptions: { password: true },
        default: "",
        description: "Made by `llm-trader keys create`; empty where the server asks for none",
      },
      {
        displayName: "Certificate Authority",
        name: "ca",
        type: "string",
        typeOptions: { rows: 4 },
        default: "",
        description: "PEM text, where no public authority signed the server's certificate",
      },
    ];
  }
}

module.exports = { LlmTraderRagApi };
