/** One socket with many calls at once; replies find their calls by id, in whatever order they come. */

import { connect as connectTcp, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import type { Endpoint } from "./endpoint.js";
import { ConnectionLostError, errorOf, InvalidRequest, NoReplyError, type RagError, type RpcError } from "./errors.js";
import { LineSplitter } from "./lines.js";
import { encodeRequest, type Outcome, readReply } from "./replies.js";

// A reply of the most matches and horizons has under 100 KB, one of 1,000 queries some 20 MB.
const MAX_REPLY_BYTES = 64 * 2 ** 20;
// A server whose host has vanished is noticed in about a minute and a half.
const KEEP_ALIVE_MS = 30_000;

interface WaitingCall {
  readonly requestChars: number;
  /** How much had been received when the request was sent. */
  readonly receivedBefore: number;
  readonly settle: (outcome: Outcome | RagError) => void;
}

export class Connection {
  /** Resolves when calls may be sent: connected, and authenticated where there is a token. */
  readonly ready: Promise<void>;
  readonly address: string;
  /** Calls that the pool has given to this connection. */
  calls = 0;

  readonly #socket: Socket;
  readonly #lines = new LineSplitter(MAX_REPLY_BYTES);
  readonly #waiting = new Map<number, WaitingCall>();
  readonly #onUnusable: () => void;
  #nextId = 1;
  #received = 0;
  #isConnected = false;
  #isReady = false;
  #refusal: RpcError | null = null;
  #lost: RagError | null = null;
  #isSilent = false;
  #rejectConnecting: (error: RagError) => void = () => undefined;

  constructor(endpoint: Endpoint, connectTimeoutMs: number, onUnusable: () => void) {
    this.address = `${endpoint.host}:${endpoint.port}`;
    this.#onUnusable = onUnusable;
    this.#socket = openSocket(endpoint);
    this.#socket.setNoDelay(true);
    this.#socket.setKeepAlive(true, KEEP_ALIVE_MS);
    this.#socket.on("data", (data: Buffer) => this.#hear(data));
    this.#socket.on("error", (error: NodeJS.ErrnoException) => {
      this.#lose(this.#isConnected ? failed(error) : cannotConnect(endpoint, error));
    });
    for (const event of ["end", "close"]) {
      this.#socket.on(event, () => this.#lose(new ConnectionLostError("the server closed the connection")));
    }
    this.ready = this.#open(endpoint, connectTimeoutMs);
    this.ready.catch(() => undefined); // whoever waits for it is told
  }

  get isUsable(): boolean {
    return this.#lost === null && !this.#isSilent;
  }

  get isLost(): boolean {
    return this.#lost !== null;
  }

  get isReady(): boolean {
    return this.#isReady;
  }

  /** The outcome of a call, also an error reply. Rejects with the reason of `signal`, or why the connection was lost. */
  async exchange(method: string, params: object, signal: AbortSignal): Promise<Outcome> {
    signal.throwIfAborted();
    if (this.#lost !== null) throw this.#lost;
    const id = this.#nextId++;
    const request = encodeRequest(id, method, params);
    return new Promise((resolve, reject) => {
      const forget = (): void => {
        signal.removeEventListener("abort", giveUp);
        this.#waiting.delete(id);
        if (this.#waiting.size === 0) this.#rest();
      };
      const giveUp = (): void => {
        const reason: unknown = signal.reason;
        // Other calls may have been answered meanwhile: then the connection is well, and this call is slow.
        if (reason instanceof NoReplyError && this.#received === call.receivedBefore) this.#distrust();
        forget();
        reject(reason);
      };
      const settle = (outcome: Outcome | RagError): void => {
        forget();
        if (outcome instanceof Error) reject(outcome);
        else resolve(outcome);
      };
      const call: WaitingCall = { requestChars: request.length, receivedBefore: this.#received, settle };
      this.#waiting.set(id, call);
      signal.addEventListener("abort", giveUp, { once: true });
      this.#socket.ref();
      this.#socket.write(request);
    });
  }

  close(reason: RagError): void {
    this.#lose(reason);
  }

  async #open(endpoint: Endpoint, timeoutMs: number): Promise<void> {
    const late = new AbortController();
    const timer = setTimeout(() => {
      const error = new ConnectionLostError(`no answer from ${this.address} in ${timeoutMs / 1000} s`);
      this.#lose(error);
      late.abort(error);
    }, timeoutMs);
    try {
      await new Promise<void>((resolve, reject) => {
        this.#rejectConnecting = reject;
        this.#socket.once(endpoint.tls === null ? "connect" : "secureConnect", resolve);
      });
      this.#isConnected = true;
      if (endpoint.token !== null) await this.#authenticate(endpoint.token, late.signal);
      this.#isReady = true;
    } finally {
      clearTimeout(timer);
    }
  }

  async #authenticate(token: string, signal: AbortSignal): Promise<void> {
    const outcome = await this.exchange("rpc.authenticate", { token }, signal);
    if (outcome.error === null) return;
    const refused = errorOf(outcome.error);
    this.#lose(refused);
    throw refused;
  }

  #hear(data: Buffer): void {
    this.#received += data.length;
    try {
      this.#lines.feed(data, (line) => this.#take(line));
    } catch (error) {
      this.#lose(failed(error));
    }
  }

  #take(line: string): void {
    const reply = readReply(line);
    if (reply === null) return;
    if (reply.id !== null) this.#waiting.get(reply.id)?.settle(reply.outcome);
    else if (reply.outcome.error !== null) this.#refusal = errorOf(reply.outcome.error);
  }

  /** Nobody waits for anything: an idle connection does not keep the program running. */
  #rest(): void {
    if (this.#isSilent) this.#lose(new ConnectionLostError("the server was silent"));
    else if (this.#isReady) this.#socket.unref();
  }

  /** A call got no reply and nothing else came either, so later calls go elsewhere. */
  #distrust(): void {
    this.#isSilent = true;
    this.#onUnusable();
  }

  #lose(reason: RagError): void {
    if (this.#lost !== null) return;
    const calls = [...this.#waiting.values()];
    const error = (this.#lost = this.#refusal ?? reason);
    this.#socket.destroy();
    this.#rejectConnecting(error);
    const longest = Math.max(...calls.map((call) => call.requestChars));
    for (const call of calls) {
      // A request can be refused for its size before its id is known, which the others are not to blame for.
      const isMeant = !(error instanceof InvalidRequest) || call.requestChars === longest;
      call.settle(isMeant ? error : new ConnectionLostError("the server refused another call of this connection"));
    }
    this.#onUnusable();
  }
}

function openSocket(endpoint: Endpoint): Socket {
  const { host, port, tls } = endpoint;
  if (tls === null) return connectTcp({ host, port });
  return connectTls({ host, port, ...tls });
}

function failed(error: unknown): ConnectionLostError {
  const reason = error instanceof Error ? error.message : String(error);
  return new ConnectionLostError(`the connection failed: ${reason}`, { cause: error });
}

function cannotConnect({ host, port }: Endpoint, error: NodeJS.ErrnoException): ConnectionLostError {
  const first: unknown = error instanceof AggregateError ? error.errors[0] : error;
  const reason = first instanceof Error ? first.message : String(first);
  const message =
    error.code === "ECONNREFUSED"
      ? `nothing listens on ${host}:${port}; start it with: rag-rpc-server --host ${host} --port ${port}`
      : `cannot connect to ${host}:${port}: ${reason}`;
  return new ConnectionLostError(message, { cause: error });
}
