/** The client: typed calls over a few shared connections. */

import type { Connection } from "./connection.js";
import { LONGEST_TIMEOUT_MS, runCourse } from "./course.js";
import { parseEndpoint } from "./endpoint.js";
import { ConnectionLostError, errorOf, InvalidInputError, NoReplyError } from "./errors.js";
import { Pool } from "./pool.js";
import { checkResult } from "./results.js";
import type { RetryPolicy } from "./retries.js";
import type { TlsOptions } from "./tls_options.js";
import type {
  BriefResult,
  CandlesParams,
  CandlesResult,
  CohortOpenParams,
  CohortRankParams,
  CohortRankResult,
  CohortRefineParams,
  CohortResult,
  CompareStatesParams,
  CompareStatesResult,
  DecisionResult,
  DecisionsResult,
  EvaluationsResult,
  ForecastQuality,
  ForecastQualityParams,
  FundingResult,
  GetSnapshotParams,
  GetSnapshotResult,
  ListDecisionsParams,
  Methods,
  OpenInterestResult,
  PaperAccountParams,
  PaperAccountResult,
  PatternQuery,
  Pong,
  QueryBatchResult,
  QueryConfigParams,
  QueryPatternsParams,
  QueryPatternsResult,
  Reloaded,
  SeriesParams,
  SeriesReportResult,
  StatsResult,
} from "./wire.js";

const DEFAULT_ADDRESS = "tcp://127.0.0.1:7879";
const LONGEST_SERVER_TIMEOUT_MS = 600_000;

export interface RagClientOptions {
  /** API key; sent once on each connection by `rpc.authenticate`. */
  token?: string | undefined;
  /** Certificates for TLS; with them a `tcp://` address speaks TLS as well. */
  tls?: TlsOptions | undefined;
  /** Bounds a call with all its attempts, and each connecting; default 10,000. */
  timeoutMs?: number | undefined;
  /** The most connections that are open at once; default 4. */
  connections?: number | undefined;
  /** Default 5 attempts. */
  retries?: RetryPolicy | undefined;
}

export interface CallOptions {
  /** Bounds the call with all its attempts; by default that of the client. */
  timeoutMs?: number | undefined;
  /** Aborting it rejects the call with the signal's reason. */
  signal?: AbortSignal | undefined;
}

export interface OtherCallOptions extends CallOptions {
  /** A call that changes nothing at the server may be sent again after a lost connection; default false. */
  repeatable?: boolean | undefined;
}

/** Parameters of a method; any object for a method that the schemas do not have. */
export type ParamsOf<M extends string> = M extends keyof Methods ? Methods[M]["params"] : object;
/** Result of a method; unknown for a method that the schemas do not have. */
export type ResultOf<M extends string> = M extends keyof Methods ? Methods[M]["result"] : unknown;

/** What is asked about one state. Without `current_state` the server takes the state of its store. */
export type Query = Omit<QueryPatternsParams, "timeout_ms" | "query_config"> & { query_config?: QueryConfig };
/** Settings of a query, by their names on the wire. `queryBriefly` is the detail `brief`. */
export type QueryConfig = Omit<QueryConfigParams, "detail"> & { detail?: "normal" | "full" };
/** Which rows of a series; a page has at most `limit`, 1,000 by default. */
export type SeriesPage = Omit<SeriesParams, "timeout_ms">;
export type BriefQuery = Omit<Query, "query_config"> & { query_config?: Omit<QueryConfig, "detail"> };

export class RagClient {
  readonly #pool: Pool;
  readonly #timeoutMs: number;
  readonly #retries: RetryPolicy;

  /** Connects when it first has to. Throws `InvalidInputError` for an address or an option that is none. */
  constructor(address: string = DEFAULT_ADDRESS, options: RagClientOptions = {}) {
    const { token = null, tls = null, timeoutMs = 10_000, connections = 4, retries = { attempts: 5 } } = options;
    this.#timeoutMs = checkTimeout(timeoutMs);
    this.#retries = { attempts: checkCount("retries.attempts", retries.attempts) };
    const endpoint = parseEndpoint(address, token, tls);
    this.#pool = new Pool(endpoint, checkCount("connections", connections), this.#timeoutMs);
  }

  /** The number of open connections. */
  get connections(): number {
    return this.#pool.connections;
  }

  /** Shows that the server answers, and which version it is. */
  ping(options: CallOptions = {}): Promise<Pong> {
    return this.#send("rpc.ping", {}, true, options);
  }

  /** What the server holds. */
  stats(options: CallOptions = {}): Promise<StatsResult> {
    return this.#send("rag.stats", {}, true, options);
  }

  /** How good the forecasts were that the server gave about the present, of all symbols or one. */
  forecastQuality(
    which: Omit<ForecastQualityParams, "timeout_ms"> = {},
    options: CallOptions = {},
  ): Promise<ForecastQuality> {
    return this.#send("rag.forecast_quality", which, true, options);
  }

  /** The market's state at a time, from the server's market store. */
  getSnapshot(moment: Omit<GetSnapshotParams, "timeout_ms">, options: CallOptions = {}): Promise<GetSnapshotResult> {
    return this.#send("rag.get_snapshot", moment, true, options);
  }

  /** A page of candles such as `5m`; the next one begins at its `next_start`. */
  getCandles(page: Omit<CandlesParams, "timeout_ms">, options: CallOptions = {}): Promise<CandlesResult> {
    return this.#send("rag.get_candles", page, true, options);
  }

  /** A page of settled funding rates; the next one begins at its `next_start`. */
  getFunding(page: SeriesPage, options: CallOptions = {}): Promise<FundingResult> {
    return this.#send("rag.get_funding", page, true, options);
  }

  /** A page of open interest; the next one begins at its `next_start`. */
  getOpenInterest(page: SeriesPage, options: CallOptions = {}): Promise<OpenInterestResult> {
    return this.#send("rag.get_open_interest", page, true, options);
  }

  /** A group of past states like one state, to look closer at what followed them. */
  cohortOpen(moment: Omit<CohortOpenParams, "timeout_ms">, options: CallOptions = {}): Promise<CohortResult> {
    return this.#send("rag.cohort_open", moment, true, options);
  }

  /** The part of a cohort that meets further conditions; its verdict allows for all looks. */
  cohortRefine(part: Omit<CohortRefineParams, "timeout_ms">, options: CallOptions = {}): Promise<CohortResult> {
    return this.#send("rag.cohort_refine", part, true, options);
  }

  /** Which further condition changes most what followed the states of a cohort. */
  cohortRank(which: Omit<CohortRankParams, "timeout_ms">, options: CallOptions = {}): Promise<CohortRankResult> {
    return this.#send("rag.cohort_rank", which, true, options);
  }

  /** Which features make past states, such as those of matches, like the state at a time. */
  compareStates(states: Omit<CompareStatesParams, "timeout_ms">, options: CallOptions = {}): Promise<CompareStatesResult> {
    return this.#send("rag.compare_states", states, true, options);
  }

  /** How complete a symbol's series are: extent, gaps, refused rows and jumps. */
  seriesReport(symbol: string, options: CallOptions = {}): Promise<SeriesReportResult> {
    return this.#send("rag.series_report", { symbol }, true, options);
  }

  /** The newest decisions on record, newest first. */
  listDecisions(chosen: Omit<ListDecisionsParams, "timeout_ms"> = {}, options: CallOptions = {}): Promise<DecisionsResult> {
    return this.#send("rag.list_decisions", chosen, true, options);
  }

  /** A decision on record, with its state, evidence and costs. */
  getDecision(id: number, options: CallOptions = {}): Promise<DecisionResult> {
    return this.#send("rag.get_decision", { id }, true, options);
  }

  /** The workflow's paper account: positions, the newest orders, and equity against holding. */
  paperAccount(chosen: Omit<PaperAccountParams, "timeout_ms"> = {}, options: CallOptions = {}): Promise<PaperAccountResult> {
    return this.#send("rag.paper_account", chosen, true, options);
  }

  /** The evaluations in the server's folder of reports, newest first. */
  listEvaluations(options: CallOptions = {}): Promise<EvaluationsResult> {
    return this.#send("rag.list_evaluations", {}, true, options);
  }

  /** The server's own description of its methods and errors, an OpenRPC document. */
  discover(options: CallOptions = {}): Promise<Record<string, unknown>> {
    return this.#send("rpc.discover", {}, true, options);
  }

  /** The most similar past states, what followed them, and how far to trust that. */
  queryPatterns(query: Query, options: CallOptions = {}): Promise<QueryPatternsResult> {
    return this.#send("rag.query_patterns", query, true, options) as Promise<QueryPatternsResult>;
  }

  /** The same as `queryPatterns` in under 2 KB. */
  queryBriefly(query: BriefQuery, options: CallOptions = {}): Promise<BriefResult> {
    const params = { ...query, query_config: { ...query.query_config, detail: "brief" as const } };
    return this.#send("rag.query_patterns", params, true, options) as Promise<BriefResult>;
  }

  /** Up to 1,000 queries; those of one symbol share work. */
  queryBatch(queries: PatternQuery[], config: QueryConfig = {}, options: CallOptions = {}): Promise<QueryBatchResult> {
    return this.#send("rag.query_batch", { queries, query_config: config }, true, options);
  }

  /** Makes the server read its settings again; needs a key with the scope `admin`. */
  reloadSettings(options: CallOptions = {}): Promise<Reloaded> {
    return this.#send("admin.reload", {}, false, options);
  }

  /** Any method, also one that the schemas do not have. */
  call<M extends string>(method: M, params: ParamsOf<M>, options: OtherCallOptions = {}): Promise<ResultOf<M>> {
    return this.#send(method, params, options.repeatable ?? false, options);
  }

  /** Ends all connections; calls under way reject with `ClientClosedError`, as later ones do. */
  close(): void {
    this.#pool.close();
  }

  async #send<M extends string>(
    method: M,
    params: ParamsOf<M>,
    repeatable: boolean,
    options: CallOptions,
  ): Promise<ResultOf<M>> {
    if (Array.isArray(params)) throw new InvalidInputError(`${method}: give the parameters by name, as an object`);
    const timeoutMs = options.timeoutMs === undefined ? this.#timeoutMs : checkTimeout(options.timeoutMs);
    const course = { method, timeoutMs, retries: this.#retries, repeatable, signal: options.signal };
    return runCourse(course, async (leftMs, signal) => {
      const untilMs = performance.now() + leftMs;
      const outcome = await this.#pool.withConnection(signal, async (connection) => {
        await connected(connection, signal);
        return connection.exchange(method, paramsWithin(params, untilMs - performance.now()), signal);
      });
      if (outcome.error !== null) throw errorOf(outcome.error);
      return checkResult(method, outcome.result) as ResultOf<M>;
    });
  }
}

/** Waits until calls may be sent, no longer than `signal` allows. */
async function connected(connection: Connection, signal: AbortSignal): Promise<void> {
  if (connection.isReady) return;
  let stop = (): void => undefined;
  const stopped = new Promise<never>((_, reject) => {
    stop = () => {
      const reason: unknown = signal.reason;
      const isLate = reason instanceof NoReplyError;
      reject(isLate ? new ConnectionLostError(`no answer from ${connection.address}; ${reason.message}`) : reason);
    };
    signal.addEventListener("abort", stop, { once: true });
  });
  try {
    await Promise.race([connection.ready, stopped]);
  } finally {
    signal.removeEventListener("abort", stop);
  }
}

/** The parameters, and when the server shall give up: a little earlier, so that its word for it still arrives. */
function paramsWithin(params: object, leftMs: number): object {
  const timeoutMs = Math.round(Math.max(leftMs - 50, leftMs * 0.8));
  return { ...params, timeout_ms: Math.min(Math.max(timeoutMs, 1), LONGEST_SERVER_TIMEOUT_MS) };
}

function checkTimeout(timeoutMs: number): number {
  if (!(timeoutMs > 0)) throw new InvalidInputError(`timeoutMs is ${timeoutMs}; give milliseconds above 0`);
  return Math.min(timeoutMs, LONGEST_TIMEOUT_MS);
}

function checkCount(name: string, value: number): number {
  if (!Number.isInteger(value) || value < 1) {
    throw new InvalidInputError(`${name} is ${value}; give a whole number of at least 1`);
  }
  return value;
}
