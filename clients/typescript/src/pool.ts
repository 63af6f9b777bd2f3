/** A few connections that calls share, many at once on each. */

import { Connection } from "./connection.js";
import type { Endpoint } from "./endpoint.js";
import { ClientClosedError, ConnectionLostError, NoReplyError } from "./errors.js";

// As many as the server works on at once for one connection; what waits here can still be withdrawn.
const CALLS_PER_CONNECTION = 32;

interface Ticket {
  readonly admit: (connection: Connection) => void;
  readonly refuse: (error: unknown) => void;
}

export class Pool {
  readonly #endpoint: Endpoint;
  readonly #most: number;
  readonly #connectTimeoutMs: number;
  readonly #queue = new Set<Ticket>();
  #open: Connection[] = [];
  #isClosed = false;

  constructor(endpoint: Endpoint, most: number, connectTimeoutMs: number) {
    this.#endpoint = endpoint;
    this.#most = most;
    this.#connectTimeoutMs = connectTimeoutMs;
  }

  get connections(): number {
    return this.#open.filter((connection) => connection.isReady && connection.isUsable).length;
  }

  /** Runs `use` on a connection with room for a call; rejects with the reason of `signal`. */
  async withConnection<T>(signal: AbortSignal, use: (connection: Connection) => Promise<T>): Promise<T> {
    const connection = await this.#take(signal);
    try {
      return await use(connection);
    } finally {
      connection.calls -= 1;
      if (connection.calls === 0 && !connection.isReady) {
        connection.close(new ConnectionLostError("nobody waits for this connection any more"));
      }
      this.#admitWaiting();
    }
  }

  close(): void {
    const error = new ClientClosedError();
    this.#isClosed = true;
    for (const connection of [...this.#open]) connection.close(error);
    for (const ticket of [...this.#queue]) ticket.refuse(error);
  }

  async #take(signal: AbortSignal): Promise<Connection> {
    signal.throwIfAborted();
    if (this.#isClosed) throw new ClientClosedError();
    const connection = this.#queue.size === 0 ? this.#leastBusy() : null;
    if (connection === null) return this.#wait(signal);
    connection.calls += 1;
    return connection;
  }

  #wait(signal: AbortSignal): Promise<Connection> {
    return new Promise((resolve, reject) => {
      const leave = (): void => {
        this.#queue.delete(ticket);
        signal.removeEventListener("abort", giveUp);
      };
      const giveUp = (): void => {
        const reason: unknown = signal.reason;
        const isLate = reason instanceof NoReplyError;
        ticket.refuse(isLate ? new NoReplyError(`${reason.message}; all connections of this client are in use`) : reason);
      };
      const ticket: Ticket = {
        admit: (connection) => {
          leave();
          connection.calls += 1;
          resolve(connection);
        },
        refuse: (error) => {
          leave();
          reject(error);
        },
      };
      this.#queue.add(ticket);
      signal.addEventListener("abort", giveUp, { once: true });
    });
  }

  #admitWaiting(): void {
    for (const ticket of this.#queue) {
      const connection = this.#isClosed ? null : this.#leastBusy();
      if (connection === null) return;
      ticket.admit(connection);
    }
  }

  /** The one with the fewest calls; another one while all have some; null while all are full. */
  #leastBusy(): Connection | null {
    let least: Connection | null = null;
    const usable = this.#open.filter((connection) => connection.isUsable);
    for (const connection of usable) {
      if (least === null || connection.calls < least.calls) least = connection;
    }
    if (least === null || (least.calls > 0 && usable.length < this.#most)) return this.#connect();
    return least.calls < CALLS_PER_CONNECTION ? least : null;
  }

  #connect(): Connection {
    const connection: Connection = new Connection(this.#endpoint, this.#connectTimeoutMs, () => {
      this.#open = this.#open.filter((other) => !other.isLost);
      this.#admitWaiting();
    });
    this.#open.push(connection);
    return connection;
  }
}
