/** Clients that the test closes at its end. */

import type { TestContext } from "node:test";
import { RagClient, type RagClientOptions } from "@llm-trader/rag-client";

export function clientOf(t: TestContext, address: string, options: RagClientOptions = {}): RagClient {
  const client = new RagClient(address, options);
  t.after(() => client.close());
  return client;
}

/** The error that a promise rejects with. */
export async function errorOf(promise: Promise<unknown>): Promise<unknown> {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error("it did not reject");
}

/** An echoing call of the fake server. */
export function echoed(client: RagClient, value: number, timeoutMs?: number): Promise<unknown> {
  const options = timeoutMs === undefined ? {} : { timeoutMs };
  return client.call("test.echo", { value }, { repeatable: true, ...options });
}
