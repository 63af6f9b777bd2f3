// Evidence quality: how this server's own forecasts turned out. Misses come first.

import { colour, seconds, utc } from "./charts.js";
import { change, el, empty, problem, replaceContent, table } from "./dom.js";
import { count, counted, minute, number, percent, signed } from "./format.js";
import { server } from "./server.js";

const DAYS = [7, 30, 90], HEIGHT = 220, REFRESH = 60_000;
const TARGET = { coverage_80: 0.8, coverage_50: 0.5 };
const STROKES = ["fan", "path", "up", "down"];
const DAYS_AXIS = { values: (_, ticks) => ticks.map((tick) => new Date(tick * 1000).toISOString().slice(5, 10)), space: 60 };
const REFERENCES = { base_rate: "the base rate", rescaled: "the base rate rescaled by the last day", volatility: "the volatility model alone", random: "random neighbours" };

export class QualityView {
  constructor(root) {
    this.root = root;
    this.days = 30;
    this.plots = [];
    this.over = new AbortController();
    addEventListener("theme", () => this.found && this.show(), { signal: this.over.signal });
    addEventListener("resize", () => this.plots.forEach(({ plot, holder }) => plot.setSize({ width: holder.clientWidth, height: HEIGHT })), { signal: this.over.signal });
    this.timer = setInterval(() => document.hidden || this.load(), REFRESH);
  }

  close() {
    this.closed = true;
    this.over.abort();
    clearInterval(this.timer);
    this.forget();
  }

  forget() {
    this.plots.forEach(({ plot }) => plot.destroy());
    this.plots = [];
  }

  async load() {
    try {
      const found = await server.call("rag.forecast_quality", { days: this.days });
      if (this.closed) return;
      this.found = found;
      this.show();
    } catch (error) {
      if (this.closed) return;
      this.forget();
      this.root.replaceChildren(el("h2", {}, "Evidence quality"), error.isUnknownMethod
        ? empty("This server keeps no journal of its forecasts, so nothing can be said about how they turned out.")
        : problem(error, () => this.load()));
    }
  }

  show() {
    const { found } = this;
    this.forget();
    const head = [el("h2", {}, "Evidence quality"), this.choice(), el("p", { class: "quiet" }, described(found))];
    const notes = found.recorded ? [] : [el("p", { class: "note" }, "No journal is kept, so this is what was forecast since the server started. The setting forecasts.journal keeps one.")];
    if (found.catching_up) notes.push(el("p", { class: "note" }, "The server still reads its journal; the numbers are not complete."));
    if (!found.horizons.some(({ scored }) => scored)) {
      replaceContent(this.root, ...head, ...notes, empty(found.waiting
        ? `${counted(found.waiting, "forecast waits", "forecasts wait")} for an outcome. The first can be scored 15 minutes after it was made.`
        : "No forecast about the present has been served yet. Each query about now becomes one, and is scored when its time has passed."));
      return;
    }
    const calibrated = found.horizons.some((horizon) => horizon.calibrated_scored);
    const rolling = el("div", { class: "three" }), reliability = el("div", { class: "three" }), skill = el("div", { class: "three" });
    replaceContent(this.root, ...head, ...notes, misses(found.misses), summary(found),
      el("h2", {}, `How often the outcome was inside the ranges, over ${found.window_days} days up to each day`), legend([["fan", "8 of 10, and where its true value lies"], ["path", "5 of 10"], ...(calibrated ? [["up", "8 of 10, calibrated"]] : []), ["quiet", "as it should be"]]), rolling,
      el("h2", {}, "When it said a rise had this chance, how often did the price rise?"), legend([["fan", "said (across), and rose (up)"], ["quiet", "exactly right"]]), reliability,
      el("h2", {}, "Skill: how much smaller its errors were than those of the references"), legend(references(found.skill).map((name, i) => [STROKES[i], `against ${named(name)}`])), skill);
    for (const entry of found.rolling) this.coverage(rolling, entry);
    for (const entry of found.reliability) this.reliability(reliability, entry);
    for (const horizon of new Set(found.skill.map((entry) => entry.horizon)))
      this.skill(skill, horizon, found.skill.filter((entry) => entry.horizon === horizon));
  }

  choice() {
    return el("div", { class: "bar", role: "group", "aria-label": "Days shown" }, DAYS.map((days) => el("button", {
      type: "button", "aria-pressed": String(days === this.days), onclick: () => { this.days = days; this.load(); },
    }, `${days} days`)));
  }

  plot(parent, title, said, options, data) {
    const holder = el("div", { role: "img", "aria-label": `${title}. ${said}` });
    parent.append(el("figure", { class: "plot" }, el("figcaption", {}, el("strong", {}, title), ` ${said}`), holder));
    const axis = { stroke: colour("quiet"), grid: { stroke: colour("grid") }, ticks: { stroke: colour("grid") } };
    const plot = new window.uPlot({
      width: holder.clientWidth || 320, height: HEIGHT, cursor: { drag: { x: false, y: false } }, legend: { show: false },
      ...options, axes: [{ ...axis, ...options.axes?.[0] }, { ...axis, size: 58, ...options.axes?.[1] }],
    }, data, holder);
    this.plots.push({ plot, holder });
  }

  coverage(parent, { horizon, time, coverage_80: shares, coverage_80_low: low, coverage_80_high: high, coverage_50: half, calibrated_coverage_80: calibrated }) {
    const line = (label, stroke, more = {}) => ({ label, stroke: colour(stroke), width: 2, points: { show: time.length < 15 }, ...more });
    const thin = { width: 1, dash: [3, 3], points: { show: false } };
    const flat = (name) => time.map(() => TARGET[name]);
    const has = calibrated?.some((share) => share !== null);
    this.plot(parent, horizon, `Newest: ${percent(last(shares))} inside the 80 % range, ${percent(last(half))} inside the 50 % range.`, {
      scales: { y: { range: [0, 1] } }, axes: [DAYS_AXIS, { values: (_, ticks) => ticks.map((tick) => percent(tick)) }], tzDate: utc,
      series: [{}, line("8 of 10", "fan"), line("low", "fan", thin), line("high", "fan", thin), line("5 of 10", "path"),
        ...(has ? [line("calibrated", "up")] : []),
        line("80 %", "quiet", thin), line("50 %", "quiet", thin)],
    }, [time.map(seconds), shares, low, high, half, ...(has ? [calibrated] : []), flat("coverage_80"), flat("coverage_50")]);
  }

  reliability(parent, { horizon, p_up: said, observed, low, high, count: counts }) {
    const dots = (label, stroke, show = true) => ({ label, stroke: colour(stroke), width: show ? 2 : 1, dash: show ? undefined : [3, 3], points: { show, size: 8 } });
    this.plot(parent, horizon, `${count(counts.reduce((sum, n) => sum + n, 0))} forecasts; on the dashed line they are exactly right.`, {
      scales: { x: { time: false, range: [0, 1] }, y: { range: [0, 1] } },
      axes: [{ values: (_, ticks) => ticks.map((tick) => percent(tick)) }, { values: (_, ticks) => ticks.map((tick) => percent(tick)) }],
      series: [{}, dots("rose", "fan"), dots("low", "fan", false), dots("high", "fan", false), dots("exact", "quiet", false)],
    }, [[0, ...said, 1], ...[observed, low, high].map((shares) => [null, ...shares, null]), [0, ...said, 1]]);
  }

  skill(parent, horizon, entries) {
    const shown = entries.filter(({ time }) => time.length);
    if (!shown.length) return;
    const most = Math.max(...shown.map(({ scored }) => scored)), names = references(this.found.skill);
    const said = shown.map((entry) => against(entry, most)).join(" ");
    const lines = shown.map(({ reference }) => ({ label: reference.replace("_", " "), stroke: colour(STROKES[names.indexOf(reference)]), width: 2, points: { show: shown[0].time.length < 15 } }));
    this.plot(parent, horizon, said, {
      tzDate: utc, axes: [DAYS_AXIS, { values: (_, ticks) => ticks.map((tick) => percent(tick, 1)) }],
      series: [{}, ...lines],
    }, [shown[0].time.map(seconds), ...shown.map(({ rolling }) => rolling)]);
  }
}

// uPlot has its own legend, which lists every helping line, too.
const legend = (entries) => el("ul", { class: "legend lines" }, entries.map(([stroke, text]) => el("li", { class: stroke }, text)));
const last = (values) => values.findLast((value) => value !== null);
const interval = ({ value, low, high }) => value === null ? "–" : low === null ? percent(value, 1) : `${percent(value, 1)} (${(100 * low).toFixed(0)}–${(100 * high).toFixed(0)})`;

function described({ horizons, waiting, unscored, since, until, interval_level: level }) {
  const scored = horizons.reduce((sum, horizon) => sum + horizon.scored, 0);
  const lost = unscored.no_outcome + unscored.memory;
  return `${counted(scored, "outcome", "outcomes")} of forecasts of ${minute(since)} to ${minute(until)}, one of each symbol, quarter-hour and horizon; ${counted(waiting, "forecast still waits", "forecasts still wait")} for an outcome` +
    (lost ? `, ${count(lost)} could not be scored` : "") + `. Ranges in brackets hold the true value ${percent(level)} of the time; a day counts as one observation.`;
}

function misses(list) {
  if (!list.length) return el("section", {}, el("h2", {}, "Misses"), empty("No outcome was outside its 80 % range. Two in ten should be, so look again when there are more."));
  return el("section", { class: "misses" }, el("h2", {}, "Misses"), table(`The newest ${count(list.length)} outcomes outside the 80 % range; two in ten belong there`,
    ["forecast of (UTC)", "symbol", "next", "range, %", "outcome, %", "P(up)"],
    list.map((miss) => [
      el("td", {}, el("a", { href: `#now?symbol=${encodeURIComponent(miss.symbol)}&at=${new Date(miss.as_of).toISOString().slice(0, 16)}Z` }, minute(miss.as_of))),
      miss.symbol, miss.horizon, `${signed(miss.low)} … ${signed(miss.high)}`, change(signed(miss.outcome), miss.outcome), percent(miss.p_up)]), { label: "Misses" }));
}

function summary({ horizons }) {
  return el("section", {}, el("h2", {}, "By horizon"), table("The share of outcomes inside the ranges that were served", ["next", "scored", "days", "inside 80 %", "calibrated 80 %", "inside 50 %", "mean error (CRPS), %", "rises"],
    horizons.map((entry) => [entry.horizon, count(entry.scored), count(entry.days), interval(entry.coverage_80), interval(entry.calibrated_coverage_80),
      interval(entry.coverage_50), number(entry.crps, 3), interval(entry.rises)]), { label: "By horizon" }));
}

// Those that forecasts are compared with, in the order of their colours.
const references = (skill) => [...new Set(skill.map(({ reference }) => reference))];
const named = (reference) => REFERENCES[reference] ?? reference;

function against({ reference, scored, skill: { value, low, high } }, most) {
  if (value === null) return `Against ${named(reference)}: nothing is scored yet.`;
  const reach = low === null ? "" : ` (${signed(100 * low, 1)} to ${signed(100 * high, 1)})`;
  const part = scored < most ? `, over the ${count(scored)} of ${count(most)} forecasts that have it` : "";
  return `Against ${named(reference)}: ${signed(100 * value, 1)} %${reach}${part}.`;
}
