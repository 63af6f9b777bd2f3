// Data: which series there are, how fresh and how complete they are.

import { el, empty, problem, replaceContent, rowWithNote, table } from "./dom.js";
import { ago, count, counted, minute, number } from "./format.js";
import { server } from "./server.js";

const REFRESH = 60_000;
const CHECK_COLUMNS = ["check", "state"], GAP_COLUMNS = ["series", "what", "from", "to"];

export class SeriesView {
  constructor(root) {
    this.root = root;
    this.report = el("section", { "aria-label": "Series" });
    this.timer = setInterval(() => document.hidden || this.load(), REFRESH);
  }
  close() {
    this.closed = true;
    clearInterval(this.timer);
  }

  async load() {
    try {
      const [stats, ready] = await Promise.all([server.call("rag.stats"), server.fetch("/page/readiness").then((response) => response.json())]);
      if (this.closed) return;
      const open = this.open ??= stats.freshness.find(({ store_end: end }) => end !== null)?.symbol;
      replaceContent(this.root, readiness(ready), freshness(stats, open, (symbol) => { this.open = symbol; this.load(); }), this.report, about(stats));
      if (open) await this.series(open, stats);
    } catch (error) {
      if (!this.closed) this.root.replaceChildren(problem(error, () => this.load()));
    }
  }

  async series(symbol, stats) {
    const { report } = this, elsewhere = () => this.closed || symbol !== this.open;
    if (this.reported !== symbol) report.replaceChildren(el("h2", {}, `Series of ${symbol}`), el("p", { class: "waiting" }, "The server looks through the series."));
    this.reported = symbol;
    let found;
    try {
      found = await server.call("rag.series_report", { symbol });
    } catch (error) {
      if (!elsewhere()) report.replaceChildren(el("h2", {}, `Series of ${symbol}`), problem(error, () => this.series(symbol, stats)));
      return;
    }
    if (elsewhere()) return;
    const ages = new Map(stats.freshness.find((fresh) => fresh.symbol === symbol)?.series.map((age) => [age.series, age.age_seconds]));
    const gaps = found.series.flatMap(({ series, newest_gaps: list }) => list.map((gap) => [series, gap, "missing"]));
    const refused = found.series.flatMap(({ series, newest_refused: list }) => list.map((gap) => [series, gap, "refused"]));
    replaceContent(report, el("h2", {}, `Series of ${symbol}`),
      table(null, ["series", "first", "last", "age", "gaps", "missing", "refused"], found.series.map((series) => [
        series.series, minute(series.first), minute(series.last), ago(ages.get(series.series)),
        count(series.gaps), count(series.missing), count(series.refused)]), { label: `Series of ${symbol}` }),
      el("h3", {}, "Gaps and refused rows"),
      gaps.length + refused.length
        ? table("The newest, up to 20 of each series", GAP_COLUMNS, [...gaps, ...refused].flatMap(([series, gap, what]) => rowWithNote([series, what, minute(gap.start), minute(gap.end)], gap.reason, GAP_COLUMNS)))
        : empty("No series has a gap or a refused row."),
      el("h3", {}, "Jumps"),
      found.unaccepted_jumps
        ? table(`${counted(found.unaccepted_jumps, "jump", "jumps")} of the price; no window or outcome crosses one until llm-trader data accept-jump accepts it`, ["at", "candles", "price", "before", "after", "factor"],
          found.jumps.map((jump) => [minute(jump.time), jump.timeframe, jump.price, number(jump.before, 4), number(jump.after, 4), number(jump.ratio)]))
        : empty("No price jumps by more than a factor of 3, but those that somebody accepted."));
  }
}

function readiness({ ready, checks }) {
  const list = Object.entries(checks ?? {}).flatMap(([name, { ok, reason }]) => rowWithNote([name.replaceAll("_", " "), ok ? "ok" : "not ok"], reason, CHECK_COLUMNS));
  return el("div", {}, el("h2", {}, ready ? "The server is ready" : "The server is not ready"),
    list.length ? table(null, CHECK_COLUMNS, list, { label: "Checks" }) : null);
}

function freshness({ freshness: list }, open, choose) {
  if (!list.length) return empty("There is no symbol yet. ", el("code", {}, "llm-trader data import"), " or ", el("code", {}, "data collect"), " brings data, and ", el("code", {}, "rag-ingest"), " makes states of it.");
  return el("div", {}, el("h2", {}, "Symbols"), table("Choose one to see its series", ["symbol", "newest candle", "newest state", "age", "index ends", "index behind"],
    list.map((fresh) => el("tr", { class: `pick${fresh.symbol === open ? " chosen" : ""}`, onclick: () => choose(fresh.symbol) },
      el("td", {}, el("button", { type: "button", class: "plain", "aria-expanded": String(fresh.symbol === open) }, fresh.symbol)),
      [minute(fresh.store_end), minute(fresh.state_as_of), ago(fresh.state_age_seconds), minute(fresh.index_end),
        fresh.index_behind_seconds === null ? "–" : fresh.index_behind_seconds ? ago(fresh.index_behind_seconds).replace(" old", "") : "up to date"].map((text) => el("td", {}, text)))), { label: "Symbols" }));
}

function about({ version, index, market_store: store, queries_answered: answered, queries_refused: refused, workers }) {
  return el("p", { class: "quiet" }, `Version ${version}; store ${store ?? "none"}; index ${index.location} (${index.backend}, ${index.collection.feature_version}); ` +
    `${counted(answered, "query", "queries")} answered and ${count(refused)} refused by ${counted(workers, "process", "processes")}.`);
}
