// Calls of the server: each has an end, keeps to the server's limits, and says what went wrong.

const PATIENCE_MS = 15_000;
// A page takes less than the server allows, so that another one beside it has its share.
const SHARE = 0.5;
const RATE_LIMITED = -32011, OVERLOADED = -32012, UNAUTHORIZED = -32010, NO_METHOD = -32601;
const KEY = "llm-trader-key";

export class ServerError extends Error {
  constructor(message, code = 0, data = null) {
    super(message);
    this.code = code;
    this.data = data;
  }
  get isAway() { return this.code === 0; }
  get isUnknownMethod() { return this.code === NO_METHOD; }
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

class Pace {
  configure({ rate_limit_per_s: rate, rate_burst: burst }) {
    this.rate = rate * SHARE;
    this.most = Math.max(1, Math.floor(burst * SHARE));
    this.left = this.most;
    this.since = performance.now();
  }
  get largest() { return this.rate ? this.most : 50; }
  async take(calls) {
    if (!this.rate) return;
    const now = performance.now();
    this.left = Math.min(this.most, this.left + (now - this.since) / 1000 * this.rate);
    this.since = now;
    this.left -= calls;
    if (this.left < 0) await pause(-this.left / this.rate * 1000);
  }
}

class Server extends EventTarget {
  pace = new Pace();
  settings = null;
  id = 0;

  get key() { return sessionStorage.getItem(KEY); }
  set key(value) { value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY); }

  /** What must be known before anything is asked. */
  async start() {
    this.settings = await (await this.fetch("/page/settings")).json();
    this.pace.configure(this.settings);
    return this.settings;
  }

  async fetch(path, options = {}) {
    const headers = { ...options.headers };
    if (this.key) headers.authorization = `Bearer ${this.key}`;
    let response;
    try {
      response = await fetch(path, { ...options, headers, signal: AbortSignal.timeout(PATIENCE_MS), credentials: "omit" });
    } catch (error) {
      throw new ServerError(error.name === "TimeoutError"
        ? `The server did not answer within ${PATIENCE_MS / 1000} s; it may be busy.`
        : "The server does not answer; it may be starting again.");
    }
    if (response.status === 401) {
      this.dispatchEvent(new Event("key-needed"));
      throw new ServerError("The server asks for a valid key.", UNAUTHORIZED);
    }
    return response;
  }

  async call(method, params) {
    const [reply] = await this.batch([[method, params]]);
    if (reply instanceof Error) throw reply;
    return reply;
  }

  /** Results in the order of the calls; those that failed are errors. */
  async batch(calls) {
    const results = [];
    for (let first = 0; first < calls.length; first += this.pace.largest)
      results.push(...await this.part(calls.slice(first, first + this.pace.largest)));
    return results;
  }

  async part(calls, attempt = 1) {
    await this.pace.take(calls.length);
    const documents = calls.map(([method, params]) => ({ jsonrpc: "2.0", id: ++this.id, method, ...(params ? { params } : {}) }));
    const response = await this.fetch("/rpc", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(documents.length === 1 ? documents[0] : documents),
    });
    let replies;
    try {
      replies = [await response.json()].flat();
    } catch {
      throw new ServerError(`The server answered with the status ${response.status} and no JSON.`);
    }
    const byId = new Map(replies.map((reply) => [reply.id, reply]));
    const refused = replies.map((reply) => reply.error).find((error) => [RATE_LIMITED, OVERLOADED].includes(error?.code));
    if (refused && attempt < 4) {
      await pause(Math.min(refused.data?.retry_after_ms ?? 1000 * attempt, 10_000));
      return this.part(calls, attempt + 1);
    }
    return documents.map(({ id }) => {
      const reply = byId.get(id) ?? replies[0];
      if (reply.result !== undefined) return reply.result;
      const { message = "an unknown error", code, data } = reply.error ?? {};
      if (code === UNAUTHORIZED) this.dispatchEvent(new Event("key-needed"));
      return new ServerError(described(message, data), code, data);
    });
  }
}

function described(message, data) {
  const suggestion = data?.suggestion && !message.includes(data.suggestion) ? `: ${data.suggestion}` : "";
  return `${message.charAt(0).toUpperCase()}${message.slice(1)}${suggestion}.`.replace(/\.\.$/, ".");
}

export const server = new Server();

/** Calls about one moment. What asks for anything later is a mistake of the page, and is not sent. */
export class Moment {
  constructor(symbol, asOf) {
    this.symbol = symbol;
    this.asOf = asOf;
  }
  params(more) {
    const params = { symbol: this.symbol, ...more };
    for (const time of [params.timestamp, params.end, ...(params.others ?? [])])
      if (time > this.asOf) throw new Error("The page tried to ask about a time after the chosen one; please report this.");
    return params;
  }
  call(method, more) { return server.call(method, this.params(more)); }
  batch(calls) { return server.batch(calls.map(([method, more]) => [method, this.params(more)])); }
}
