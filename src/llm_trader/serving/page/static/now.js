// Now: what followed when it looked like this, and how far to trust that.

import { CandleChart, Fan, LineStyle, colour, rows, seconds } from "./charts.js";
import { change, el, empty, facts, problem, replaceContent, sparkline, table } from "./dom.js";
import { STEP, curves, horizonOfVerdict, inExpectedMoves, lengthOf, pathAfter, quarterHours, rangeNow } from "./forecast.js";
import { DAY, HORIZON_HOURS, HOUR, count, minute, percent, price, quote, range, signed, number } from "./format.js";
import { matchPanel } from "./match.js";
import { picker, readMoment, writeMoment } from "./moment.js";
import { Moment, server } from "./server.js";

export const QUERY = { top_k: 8 };
const SHOWN_DAYS = 3, NARROW = 760, MOST_CANDLES = 1000;
const SILENT_REFRESH = 30_000;

export class NowView {
  constructor(root, live) {
    this.pick = picker((chosen) => this.choose(chosen));
    this.body = el("div", {}, el("p", { class: "waiting" }, "The server searches for similar states."));
    root.replaceChildren(this.pick.element, this.body);
    this.live = live;
    this.units = "scaled";
    this.unknown = [];
    this.over = new AbortController();
    this.onEvidence = ({ detail }) => this.push(detail);
    live.addEventListener("evidence", this.onEvidence);
    this.timer = setInterval(() => this.refresh(), SILENT_REFRESH);
  }

  close() {
    this.closed = true;
    clearInterval(this.timer);
    this.live.removeEventListener("evidence", this.onEvidence);
    this.live.want(null);
    this.drop();
  }

  drop() {
    this.panel?.remove();
    this.chart?.remove();
    this.chart = this.panel = this.drawn = null;
  }

  /** Asks for everything, but an answer that was `pushed`; each later call makes an earlier one that is not done give up. */
  async load(pushed = null) {
    const turn = this.turn = Symbol("turn");
    const stale = () => this.closed || turn !== this.turn;
    try {
      const stats = await server.call("rag.stats");
      if (stale()) return;
      const choice = this.choice(stats);
      if (!choice) return this.replace(this.nothing(stats));
      Object.assign(this, choice);
      this.pick.show({ ...choice, symbols: this.symbols });
      this.live.want(this.at === null ? this.symbol : null, QUERY);
      this.moment = new Moment(this.symbol, this.at ?? this.end);
      this.announceAge(stats);
      await this.ask(stale, pushed);
    } catch (error) {
      if (!stale()) this.fail(error);
    }
  }

  choice(stats) {
    const usable = stats.freshness.filter((fresh) => fresh.store_end !== null);
    const wanted = readMoment();
    const asked = usable.find(({ symbol }) => symbol === wanted.symbol), fresh = asked ?? usable[0];
    if (!fresh) return null;
    this.unknown = asked || !wanted.symbol ? [] : [el("p", { class: "note" }, `The store has no candles of ${wanted.symbol}; this is ${fresh.symbol}.`)];
    this.symbols = usable.map(({ symbol }) => symbol);
    const at = wanted.at === null || wanted.at >= fresh.store_end ? null : wanted.at;
    return { symbol: fresh.symbol, at, end: fresh.store_end, age: stats.freshness.find((f) => f === fresh).state_age_seconds };
  }

  nothing(stats) {
    return stats.market_store === null
      ? empty("This server has no market store, so it knows no candles. Start it with ", el("code", {}, "--store"), ".")
      : empty("The market store holds no candles yet. ", el("code", {}, "llm-trader data collect"), " or ", el("code", {}, "data import"), " brings them.");
  }

  choose({ symbol, at }) {
    if (this.closed) return;
    writeMoment({ symbol, at });
    this.load();
  }

  announceAge(stats) {
    const end = stats.freshness.find(({ symbol }) => symbol === this.symbol)?.series
      .filter(({ series }) => series === `candles_${server.settings.intraday}`)[0];
    dispatchEvent(new CustomEvent("data-age", { detail: end?.age_seconds ?? null }));
  }

  async ask(stale, pushed) {
    const length = lengthOf(server.settings.intraday), { asOf } = this.moment;
    const end = asOf - asOf % length;
    const wanted = Math.min(SHOWN_DAYS * DAY, MOST_CANDLES * length * 3);
    const pages = [];
    for (let start = end - wanted; start < end; start += MOST_CANDLES * length)
      pages.push(["rag.get_candles", { timeframe: server.settings.intraday, start, end: Math.min(end, start + MOST_CANDLES * length) }]);
    const query = ["rag.query_patterns", { timestamp: asOf, query_config: QUERY }];
    const [answer, ...candles] = pushed
      ? [pushed, ...await this.moment.batch(pages)] : await this.moment.batch([query, ...pages]);
    if (stale()) return;
    const failed = candles.find((page) => page instanceof Error);
    if (failed) throw failed;
    this.candles = joined(candles);
    this.answer = answer;
    this.paths = this.compared = null;
    if (answer instanceof Error) return this.fail(answer);
    this.draw();
    await this.follow(stale);
  }

  /** What followed the matches, and what made them alike: the chart does not wait for it. */
  async follow(stale) {
    const { matches } = this.answer;
    if (!matches.length) return;
    const timeframe = server.settings.intraday, length = lengthOf(timeframe);
    const [compared, ...pages] = await this.moment.batch([
      ["rag.compare_states", { timestamp: this.moment.asOf, others: matches.map(({ timestamp }) => timestamp) }],
      ...matches.map(({ timestamp }) => ["rag.get_candles", { timeframe, start: timestamp - length, end: timestamp + DAY }]),
    ]);
    if (stale()) return;
    this.compared = compared instanceof Error ? null : compared;
    this.paths = pages.map((page, i) => page instanceof Error ? [] : pathAfter(page, matches[i].timestamp, length));
    this.drawPaths();
    this.drawMatches();
    this.note(pages.find((page) => page instanceof Error) ?? (compared instanceof Error ? compared : null));
  }

  note(error) {
    if (error) this.extra?.replaceChildren(el("p", { class: "note" }, `Some of the matches could not be drawn: ${error.message}`));
  }

  replace(...content) {
    this.drop();
    replaceContent(this.body, ...this.unknown, ...content);
  }

  fail(error) {
    this.replace(problem(error, () => this.load()),
      error.code === -32001 ? empty("Abstaining is a normal answer: too little of the past looked like this moment.") : "");
  }

  /** The price at the time of the state, where every curve begins. */
  get start() {
    const { open_time: times, close } = this.candles, length = lengthOf(server.settings.intraday);
    const state = this.answer.metadata.state_as_of;
    const last = times.findLastIndex((time) => time + length <= state);
    return { time: state, price: last < 0 ? null : close[last] };
  }

  draw() {
    const { evidence, metadata } = this.answer, start = this.start;
    this.curves = Object.keys(evidence.horizons).length ? curves(evidence) : null;
    const holder = el("div", { class: "chart", role: "figure", "aria-label": `Candles of ${this.symbol} and what to expect in the next 24 hours; the tables below say the same` });
    this.outcome = el("div", { class: "bar" });
    this.extra = el("div");
    this.matches = el("section", { "aria-label": "Matches" }, el("p", { class: "waiting" }, "The paths of the matches are on their way."));
    this.detail = el("section", { "aria-label": "The chosen match" });
    const simulated = metadata.collection.startsWith("simulated/");
    this.replace(this.verdict(start), ...(simulated ? [el("p", { class: "note" }, "These data are simulated: nothing here is evidence about a real market.")] : []), ...metadata.warnings.map((text) => el("p", { class: "note" }, `${text}.`)),
      this.unitsBar(), holder, this.legend(), this.outcome, this.extra,
      el("div", { class: "two last-first" }, el("div", {}, this.matches), el("div", {}, this.outlook(), this.sources())), this.detail);
    this.drawChart(holder, start);
    this.offerOutcome();
    if (!this.answer.matches.length) this.drawMatches();
  }

  verdict({ price: now, time }) {
    const { evidence } = this.answer, words = { informative: "Informative", weak: "Weak", none: "No edge shown" };
    const start = `${this.symbol} at ${price(now)}${quote(this.symbol)} (${minute(time).slice(11)})`;
    let text = `${start} has no forecast.`;
    if (Object.keys(evidence.horizons).length) {
      const [name, horizon] = horizonOfVerdict(evidence), ends = rangeNow(horizon);
      if (ends && now) text = `${start} should move ±${number(horizon.expected_volatility_pct)} % in ${name}, ` +
        `8 times in 10 to between ${price(now * (1 + ends[0] / 100))} and ${price(now * (1 + ends[1] / 100))}.`;
    }
    const reason = evidence.reason.charAt(0).toUpperCase() + evidence.reason.slice(1);
    return el("div", { class: "verdict" },
      el("span", { class: `word ${evidence.verdict}` }, words[evidence.verdict] ?? evidence.verdict),
      el("p", {}, text), el("p", { class: "reason" }, `${reason}. ${evidence.calibrated ? "The range is calibrated." : "The range is not calibrated: no calibration is loaded or fits."}`));
  }

  unitsBar() {
    const button = (units, text) => el("button", {
      type: "button", "aria-pressed": String(this.units === units), onclick: ({ target }) => {
        this.units = units;
        for (const other of target.parentElement.querySelectorAll("button")) other.setAttribute("aria-pressed", String(other === target));
        this.drawPaths();
      },
    }, text);
    return el("div", { class: "bar", role: "group", "aria-label": "Units of the matches' paths" },
      el("span", { class: "quiet" }, "Matches' paths"), button("scaled", "in expected moves"), button("percent", "in %"));
  }

  legend() {
    const { calibrated } = this.answer.evidence;
    return el("ul", { class: "legend" },
      el("li", { class: "fan80" }, `8 of 10 outcomes${calibrated ? ", calibrated" : ""}`), el("li", { class: "fan50" }, "5 of 10"),
      el("li", { class: "median" }, "middle of the forecast"), el("li", { class: "move" }, "expected move"),
      el("li", { class: "base" }, "usual range (8 of 10)"), el("li", { class: "path" }, "paths after the matches"));
  }

  drawChart(holder, start) {
    const candles = quarterHours(this.candles), now = start.price;
    this.chart = new CandleChart(holder, now ?? candles.at(-1)?.close ?? 1);
    this.chart.candles.setData(rows(candles));
    this.times = Array.from({ length: 24 * HOUR / STEP + 1 }, (_, i) => seconds(start.time - start.time % STEP + i * STEP));
    const shown = this.curves, priced = (curve) => curve?.map((change) => now * (1 + change / 100)) ?? null;
    // A line without values gives the chart its time axis up to tomorrow.
    this.axis = this.chart.line({ color: colour("fan"), lineWidth: 2 });
    this.axis.setData(this.times.map((time, i) => shown?.middle && now ? { time, value: priced(shown.middle)[i] } : { time }));
    this.lines = [];
    if (now && shown) {
      const fan = new Fan(this.chart.chart), band = (low, high, ...fill) => low && high ? [{ low: priced(low), high: priced(high), fill }] : [];
      const line = (values, stroke, dash) => values ? [{ values, stroke, dash }] : [];
      this.chart.candles.attachPrimitive(fan);
      fan.set(this.times,
        [...band(shown.baseLow, shown.baseHigh, "base", 0.14), ...band(shown.low80, shown.high80, "fan", 0.2), ...band(shown.low50, shown.high50, "fan", 0.28)],
        [...line(priced(shown.baseLow), "base", [5, 4]), ...line(priced(shown.baseHigh), "base", [5, 4]),
          ...line(priced(shown.move), "fan", [1, 3]), ...line(priced(shown.move?.map((move) => -move)), "fan", [1, 3])]);
    }
    const back = innerWidth < NARROW ? DAY : (SHOWN_DAYS - 1) * DAY;
    this.chart.show(Math.max(start.time - back, candles[0]?.start ?? 0), start.time + DAY);
    this.drawn = { now, start };
  }

  drawPaths() {
    if (!this.chart || !this.paths || !this.drawn.now) return;
    for (const line of this.lines) this.chart.chart.removeSeries(line);
    const expected = this.compared?.expected_volatility_pct["24h"];
    this.lines = this.paths.map((path, i) => {
      const then = this.compared?.states[i].expected_volatility_pct["24h"];
      const shown = this.units === "scaled" ? inExpectedMoves(path, expected, then) : path;
      const line = this.chart.line({ color: this.pathColour(i), lineStyle: LineStyle.Solid, lineWidth: i === this.chosen ? 3 : 1 });
      line.setData(shown.map((value, step) => Number.isFinite(value)
        ? { time: this.times[step], value: this.drawn.now * (1 + value / 100) } : { time: this.times[step] }));
      return line;
    });
  }

  pathColour(i) { return `${colour("path")}${i === this.chosen ? "" : this.chosen === undefined ? "b0" : "60"}`; }

  outlook() {
    const { horizons, base_rate_points: points } = this.answer.evidence;
    if (!Object.keys(horizons).length) return empty("There is no outlook: too few episodes.");
    return table(`What to expect, beside what is usual (all ${count(points)} states of the window)`,
      ["next", "expected move", "8 of 10 now, %", "usually, %", "P(up)", "base"],
      Object.entries(horizons).map(([name, horizon]) => [
        name, `±${number(horizon.expected_volatility_pct)} %`, range(rangeNow(horizon)),
        range([horizon.p10.base_rate, horizon.p90.base_rate]), percent(horizon.forecast?.p_up ?? null), percent(horizon.p_up.base_rate),
      ]), { label: "What to expect" });
  }

  sources() {
    const { metadata, evidence } = this.answer;
    return el("details", {}, el("summary", {}, "What this answer is made of"), facts([
      ["As of", minute(metadata.as_of)], ["State of", minute(metadata.state_as_of)], ["Store ends", minute(metadata.store_end)],
      ["Index ends", minute(metadata.index_end)], ["States it could see", count(metadata.points_eligible)],
      ["Separate episodes", count(evidence.episodes)],
      ["Novelty", evidence.novelty ? `${number(evidence.novelty.percentile, 0)} % of past states had a nearer neighbour` : null],
      ["Filters", metadata.filters_applied.join(", ")], ["Features missing", metadata.features_missing.join(", ") || "none"],
      ["Volatility model", metadata.volatility_model], ["Collection", metadata.collection],
      ["Calibration", metadata.calibration?.digest ?? "none"], ["Request", metadata.request_id],
    ]));
  }

  drawMatches() {
    const { matches } = this.answer;
    if (!matches.length) return this.matches.replaceChildren(empty("No past state is similar enough to be shown."));
    const outcome = (match, name) => change(signed(match.outcomes[`outcome_${name}`]), match.outcomes[`outcome_${name}`]);
    this.matches.replaceChildren(table("Similar past states, nearest first, and the price change after them in %; choose one to see it",
      ["date (UTC)", "similarity", ...Object.keys(HORIZON_HOURS), "first touched", "24h after"],
      matches.map((match, i) => el("tr", { class: `pick${i === this.chosen ? " chosen" : ""}`, onclick: () => this.open(i) },
        el("td", {}, el("button", { type: "button", class: "plain", "aria-expanded": String(i === this.chosen) }, minute(match.timestamp))),
        el("td", {}, number(match.similarity, 3)), Object.keys(HORIZON_HOURS).map((name) => outcome(match, name)),
        el("td", {}, match.outcomes.first_barrier ?? "–"),
        el("td", {}, this.paths?.[i]?.length ? sparkline(this.paths[i]) : "–"))), { label: "Matches" }));
  }

  async open(i) {
    this.chosen = this.chosen === i ? undefined : i;
    this.panel?.remove();
    this.panel = null;
    this.drawPaths();
    this.drawMatches();
    this.matches.querySelectorAll("button.plain")[i]?.focus();
    this.detail.replaceChildren();
    if (this.chosen === undefined) return;
    this.panel = matchPanel(this.moment, this.answer.matches[i], this.compared, i);
    this.detail.append(this.panel.element);
    this.detail.scrollIntoView({ block: "nearest" });
    await this.panel.load();
  }

  /** Where the chosen time is past, what followed is shown when a person asks for it, not before. */
  offerOutcome() {
    const past = this.end - this.drawn.start.time;
    this.outcome.replaceChildren();
    if (this.at === null || past < STEP) return;
    this.outcome.append(el("button", { type: "button", id: "happened", onclick: ({ target }) => { target.disabled = true; this.happened(target); } }, "Show what really happened"));
  }

  async happened(button) {
    const { start, now } = this.drawn, timeframe = server.settings.intraday, { chart } = this;
    try {
      // The only call about a time after the chosen one.
      const page = await server.call("rag.get_candles", { symbol: this.symbol, timeframe, start: start.time, end: Math.min(start.time + DAY, this.end) });
      if (chart !== this.chart) return;
      this.chart.candles.setData(rows(quarterHours(joined([this.candles, page]))));
      const said = Object.entries(HORIZON_HOURS).map(([name, hours]) => {
        const at = page.open_time.indexOf(start.time + hours * HOUR - lengthOf(timeframe));
        const horizon = this.answer.evidence.horizons[name], ends = horizon && rangeNow(horizon);
        if (at < 0 || !ends) return null;
        const moved = (page.close[at] / now - 1) * 100;
        return `${name} ${signed(moved)} % (${moved < ends[0] || moved > ends[1] ? "outside" : "inside"} the range)`;
      }).filter((text) => text);
      button.replaceWith(el("p", { class: "note", role: "status" }, `What happened: ${said.join(", ") || "the store holds too little of it"}.`));
    } catch (error) {
      button.disabled = false;
      this.note(error);
    }
  }

  /** New evidence of the latest data, which the server has computed once for all. */
  push({ symbol, as_of: asOf, result, error }) {
    if (this.at !== null || symbol !== this.symbol || document.hidden) return;
    if (error) return this.fail(new Error(error.message));
    if (result) this.load(result);
  }

  /** Between two states only the age and the newest candles change. */
  async refresh() {
    if (document.hidden || this.at !== null || !this.chart) return;
    try {
      const stats = await server.call("rag.stats");
      if (this.closed || this.at !== null) return;
      this.announceAge(stats);
      const end = stats.freshness.find(({ symbol }) => symbol === this.symbol)?.store_end;
      if (!end || end <= this.end) return;
      const moment = new Moment(this.symbol, end), length = lengthOf(server.settings.intraday);
      const start = this.candles.open_time.at(-1) ?? end - DAY;
      const page = await moment.call("rag.get_candles", { timeframe: server.settings.intraday, start, end: end - end % length });
      if (this.closed || !this.chart) return;
      this.end = end;
      this.candles = joined([this.candles, page]);
      this.chart.candles.setData(rows(quarterHours(this.candles)));
    } catch { /* The status says that the server is away. */ }
  }

  /** The keys of the footer. */
  key(name) {
    const moves = { "[": -HOUR, "]": HOUR, "{": -DAY, "}": DAY };
    if (name in moves) this.pick?.move(moves[name]);
    else if (name === "l") this.pick?.latest();
  }
}

function joined(pages) {
  const columns = {};
  for (const name of ["open_time", "open", "high", "low", "close"]) columns[name] = [];
  for (const page of pages)
    page.open_time.forEach((time, i) => {
      if (time <= (columns.open_time.at(-1) ?? -1)) return;
      for (const name of Object.keys(columns)) columns[name].push(page[name][i]);
    });
  return columns;
}
