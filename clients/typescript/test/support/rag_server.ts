/** The real `rag-rpc-server` on a simulated market, as a process. */

import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";
import { REPOSITORY } from "./paths.js";

/** When the simulated market ends. */
export const END_MS = Date.UTC(2025, 2, 2);
const DAYS = 60;

/** Where the Python programs are. */
const PROGRAMS = process.env["RAG_PROGRAMS"] ?? join(REPOSITORY, ".venv", "bin");

// Settings of whoever runs the tests do not belong here.
const ENVIRONMENT = Object.fromEntries(
  Object.entries({ ...process.env, OPENBLAS_NUM_THREADS: "1" }).filter(
    ([name]) => !name.startsWith("LLM_TRADER_"),
  ),
);

export class Market {
  readonly folder = mkdtempSync(join(tmpdir(), "rag-client-"));

  get paths(): string[] {
    return ["--store", join(this.folder, "market"), "--index", join(this.folder, "index")];
  }

  static async simulated(): Promise<Market> {
    if (!existsSync(join(PROGRAMS, "rag-rpc-server"))) {
      throw new Error(`no rag-rpc-server in ${PROGRAMS}; call make test-ts, or name its folder in RAG_PROGRAMS`);
    }
    const market = new Market();
    const [store, path] = market.paths as [string, string];
    await market.run("llm-trader", "data", "simulate", store, path, "--days", String(DAYS), "--symbols", "BTCUSDT");
    await market.run("rag-ingest", ...market.paths, "--start", String(DAYS));
    return market;
  }

  /** What a program prints. */
  async run(program: string, ...given: string[]): Promise<string> {
    const options = { cwd: this.folder, env: ENVIRONMENT };
    const { stdout } = await promisify(execFile)(join(PROGRAMS, program), given, options);
    return stdout;
  }

  /** What a Python program prints that is given `input`. */
  async python(code: string, input: string): Promise<string> {
    const program = spawn(join(PROGRAMS, "python"), ["-c", code], { env: ENVIRONMENT, stdio: ["pipe", "pipe", "inherit"] });
    program.stdin.end(input);
    let output = "";
    program.stdout.setEncoding("utf8").on("data", (text: string) => (output += text));
    await once(program, "close");
    return output;
  }

  serve(...flags: string[]): Promise<RagServer> {
    const given = ["--no-http", ...this.paths, ...flags];
    const env = { ...ENVIRONMENT, LLM_TRADER_LOGGING__FORMAT: "json" };
    const stdio: ["ignore", "ignore", "pipe"] = ["ignore", "ignore", "pipe"];
    return RagServer.started(spawn(join(PROGRAMS, "rag-rpc-server"), given, { cwd: this.folder, env, stdio }));
  }

  remove(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

export class RagServer {
  readonly port: number;
  readonly #process: ChildProcess;

  private constructor(server: ChildProcess, port: number) {
    this.#process = server;
    this.port = port;
  }

  static async started(server: ChildProcess): Promise<RagServer> {
    const said: string[] = [];
    const port = await new Promise<number>((resolve, reject) => {
      if (server.stderr === null) throw new Error("the log is not piped");
      const lines = createInterface(server.stderr);
      lines.on("line", (line) => {
        said.push(line);
        if (line.includes('"rpc_listening"')) resolve((JSON.parse(line) as { port: number }).port);
      });
      lines.on("close", () => reject(new Error(`the server did not start: ${said.join("\n")}`)));
    });
    return new RagServer(server, port);
  }

  get address(): string {
    return `tcp://127.0.0.1:${this.port}`;
  }

  signal(name: NodeJS.Signals): void {
    this.#process.kill(name);
  }

  /** Ends it as a crash would. */
  async kill(): Promise<void> {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    this.#process.kill("SIGKILL");
    await once(this.#process, "exit");
  }
}
