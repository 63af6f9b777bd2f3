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

/** `rate` a second, and `most` at once after a rest; no limit where the rate is 0. */
class Allowance {
  constructor(rate, most) { Object.assign(this, { rate, most, left: most, since: performance.now() }); }
  /** Takes so much, and tells how many ms pass until it is there. */
  take(amount) {
    if (!this.rate) return 0;
    const now = performance.now();
    this.left = Math.min(this.most, this.left + (now - this.since) / 1000 * this.rate) - amount;
    this.since = now;
    return Math.max(0, -this.left / this.rate * 1000);
  }
}

class Pace {
  configure({ rate_limit_per_s: rate, rate_burst: burst, work_limit_ms_per_s: work, work_burst_ms: workBurst }) {
    this.requests = new Allowance(rate * SHARE, Math.max(1, Math.floor(burst * SHARE)));
    this.work = new Allowance(work * SHARE, workBurst * SHARE);
  }
  // The server looks at the working time before each call, so one goes at a time where that is limited.
  get largest() { return this.work.rate ? 1 : this.requests.rate ? this.requests.most : 50; }
  start(calls) { return pause(Math.max(this.requests.take(calls), this.work.take(0))); }
  // It has worked no longer than the page has waited.
  end(waitedMs) { this.work.take(waitedMs); }
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

  async post(documents) {
    const sentAt = performance.now();
    try {
      const response = await this.fetch("/rpc", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(documents.length === 1 ? documents[0] : documents),
      });
      return [await response.json().catch(() => {
        throw new ServerError(`The server answered with the status ${response.status} and no JSON.`);
      })].flat();
    } finally {
      this.pace.end(performance.now() - sentAt);
    }
  }

  async part(calls, attempt = 1) {
    await this.pace.start(calls.length);
    const documents = calls.map(([method, params]) => ({ jsonrpc: "2.0", id: ++this.id, method, ...(params ? { params } : {}) }));
    const replies = await this.post(documents);
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
