// What is new comes by WebSocket. A lost connection is made again, at most every 15 s.

import { server } from "./server.js";

const FIRST_MS = 500, LONGEST_MS = 15_000, PATIENCE_MS = 10_000;

/** Events: `evidence` (detail: the notification), `connected`, `lost` (detail: ms until the next try). */
export class Live extends EventTarget {
  socket = null;
  wanted = null;
  subscription = null;
  delay = FIRST_MS;
  timer = null;
  id = 0;
  waiting = new Map();

  start() {
    clearTimeout(this.timer);
    const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`);
    this.socket = socket;
    // A host that drops packets would otherwise leave the page waiting for minutes.
    const patience = setTimeout(() => socket.close(), PATIENCE_MS);
    socket.onopen = async () => {
      clearTimeout(patience);
      try {
        if (server.settings?.keys_required && server.key) await this.call("rpc.authenticate", { token: server.key });
        this.delay = FIRST_MS;
        this.dispatchEvent(new Event("connected"));
        await this.subscribe();
      } catch { /* The server closes the connection, or says why at the next call. */ }
    };
    socket.onmessage = ({ data }) => this.receive(JSON.parse(data));
    socket.onclose = () => {
      clearTimeout(patience);
      if (socket === this.socket) this.lost();
    };
  }

  lost() {
    this.subscription = null;
    for (const { reject } of this.waiting.values()) reject(new Error("the connection was lost"));
    this.waiting.clear();
    this.dispatchEvent(new CustomEvent("lost", { detail: this.delay }));
    this.timer = setTimeout(() => this.start(), this.delay);
    this.delay = Math.min(2 * this.delay, LONGEST_MS);
  }

  restart() {
    const socket = this.socket;
    this.socket = null;
    socket?.close();
    this.start();
  }

  /** The evidence of one symbol, or of none. */
  async want(symbol, config) {
    this.wanted = symbol ? { symbol, query_config: config } : null;
    try { await this.subscribe(); } catch { /* The next connection subscribes. */ }
  }

  async subscribe() {
    if (this.socket?.readyState !== WebSocket.OPEN) return;
    const former = this.subscription;
    this.subscription = null;
    if (former) await this.call("rag.unsubscribe", { subscription: former });
    if (!this.wanted) return;
    const { subscription } = await this.call("rag.subscribe", this.wanted);
    this.subscription = subscription;
  }

  call(method, params) {
    const id = ++this.id;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      setTimeout(() => { this.waiting.delete(id); reject(new Error("no answer in time")); }, PATIENCE_MS);
      this.socket.send(JSON.stringify({ jsonrpc: "2.0", id, method, params }));
    });
  }

  receive(message) {
    if (message.method === "rag.evidence") {
      if (message.params.subscription === this.subscription)
        this.dispatchEvent(new CustomEvent("evidence", { detail: message.params }));
      return;
    }
    const waiting = this.waiting.get(message.id);
    this.waiting.delete(message.id);
    if (message.error) waiting?.reject(new Error(message.error.message));
    else waiting?.resolve(message.result);
  }
}
