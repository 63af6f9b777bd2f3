/**
 * A client of the query server for Node.js: `RagClient`.
 *
 * 1. `client`      each call with the types of its parameters and its result (`wire`, generated)
 * 2. `course`      the deadline and the attempts of a call (`retries`)
 * 3. `pool`, `connection`   a few sockets, many calls at once on each (`lines`, `replies`)
 * 4. `errors`      what can go wrong, as classes; `results` refuses results of another version
 * 5. `baseline`    evidence, or "use the baseline prompt because …"
 * 6. `prompt/`     the prompt of a decision, the same text as the server's package writes
 */

export {
  type BaselineArm,
  type BaselineOptions,
  baselineReason,
  type BaselineReason,
  type EvidenceArm,
  type PromptArm,
  queryOrBaseline,
} from "./baseline.js";
export {
  type BriefQuery,
  type CallOptions,
  type OtherCallOptions,
  type ParamsOf,
  type Query,
  type QueryConfig,
  RagClient,
  type RagClientOptions,
  type ResultOf,
  type SeriesPage,
} from "./client.js";
export * from "./errors.js";
export type { Retrieved } from "./prompt/evidence.js";
export { type Prompt, promptDigest, type PromptOptions, renderPrompt, TEMPLATE_VERSION } from "./prompt/render.js";
export type { RetryPolicy } from "./retries.js";
export type { TlsOptions } from "./tls_options.js";
export * from "./wire.js";
