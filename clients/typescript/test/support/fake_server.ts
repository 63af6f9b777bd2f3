/** A server that answers as a test says, over real sockets. */

import { once } from "node:events";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import type { TestContext } from "node:test";

export interface Request {
  readonly id: number;
  readonly method: string;
  readonly params: Record<string, unknown>;
}

/** The server's side of a connection. */
export class Peer {
  /** The number of the connection, from 1. */
  readonly number: number;
  readonly socket: Socket;

  constructor(number: number, socket: Socket) {
    this.number = number;
    this.socket = socket;
  }

  reply(id: number, result: unknown): void {
    this.write({ jsonrpc: "2.0", id, result });
  }

  refuse(id: number | null, code: number, message = "refused", data: unknown = null): void {
    this.write({ jsonrpc: "2.0", id, error: { code, message, data } });
  }

  write(document: unknown): void {
    this.raw(`${JSON.stringify(document)}\n`);
  }

  raw(text: string | Uint8Array): void {
    if (!this.socket.destroyed) this.socket.write(text);
  }

  reset(): void {
    resetSocket(this.socket);
  }

  /** Sends what was written, then ends. */
  hangUp(): void {
    this.socket.end();
  }
}

export type Answer = (request: Request, peer: Peer) => unknown;

export class FakeServer {
  readonly requests: Request[] = [];
  readonly #sockets = new Set<Socket>();
  readonly #server: Server;
  readonly #isDeaf: boolean;
  connections = 0;

  /** A deaf server reads what comes and understands nothing of it. */
  constructor(answer: Answer, onConnect: (peer: Peer) => void, isDeaf = false) {
    this.#isDeaf = isDeaf;
    this.#server = createServer((socket) => {
      this.connections += 1;
      this.#sockets.add(socket);
      const peer = new Peer(this.connections, socket);
      socket.on("error", () => undefined);
      socket.on("close", () => this.#sockets.delete(socket));
      onConnect(peer);
      let begun = "";
      socket.setEncoding("utf8");
      socket.on("data", (text: string) => {
        if (this.#isDeaf) return;
        const lines = (begun + text).split("\n");
        begun = lines.pop() ?? "";
        for (const line of lines) {
          const request = JSON.parse(line) as Request;
          this.requests.push(request);
          answer(request, peer);
        }
      });
    });
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get address(): string {
    return `tcp://127.0.0.1:${this.port}`;
  }

  /** The number of connections that are open. */
  get open(): number {
    return this.#sockets.size;
  }

  async listen(port: number): Promise<void> {
    this.#server.listen(port, "127.0.0.1");
    await once(this.#server, "listening");
  }

  /** Ends it, with a reset of every connection. */
  async stop(): Promise<void> {
    for (const socket of this.#sockets) resetSocket(socket);
    if (!this.#server.listening) return;
    this.#server.close();
    await once(this.#server, "close");
  }
}

// A socket that is being shut down cannot be reset: Node.js would keep it for ever, and loop at its exit.
function resetSocket(socket: Socket): void {
  if (socket.writableEnded) socket.destroy();
  else socket.resetAndDestroy();
}

export async function fakeServer(
  t: TestContext,
  answer: Answer,
  given: { port?: number; onConnect?: (peer: Peer) => void; isDeaf?: boolean } = {},
): Promise<FakeServer> {
  const { port = 0, onConnect = () => undefined, isDeaf = false } = given;
  const server = new FakeServer(answer, onConnect, isDeaf);
  await server.listen(port);
  t.after(() => server.stop());
  return server;
}

/** Echoes the parameter `value`. */
export const echo: Answer = (request, peer) => peer.reply(request.id, request.params["value"]);

export const never: Answer = () => undefined;

export async function until(condition: () => boolean): Promise<void> {
  const deadline = performance.now() + 10_000;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error("the condition was not met in 10 s");
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}
