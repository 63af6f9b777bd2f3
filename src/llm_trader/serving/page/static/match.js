// One match: its own chart before and after, and which features made it alike.

import { CandleChart, Fan, rows, seconds } from "./charts.js";
import { el, problem } from "./dom.js";
import { lengthOf, quarterHours } from "./forecast.js";
import { DAY, minute, number, percent, signed } from "./format.js";
import { server } from "./server.js";

const LISTED = 8;

export function matchPanel(moment, match, compared, position) {
  const holder = el("div", { class: "chart small", role: "figure", "aria-label": `Candles of the day before and after ${minute(match.timestamp)}` });
  const problems = el("div");
  const element = el("div", {},
    el("h2", {}, `The match of ${minute(match.timestamp)}, similarity ${number(match.similarity, 3)}`),
    el("div", { class: "two" },
      el("div", {}, holder, problems, el("p", { class: "quiet" }, "The day before and the day after; the dotted line is the time of the match.")),
      el("div", {}, compared ? features(compared, compared.states[position]) : el("p", { class: "quiet" }, "The features could not be compared."))));
  let chart = null;
  return {
    element,
    remove() { chart?.remove(); chart = null; },
    async load() {
      const timeframe = server.settings.intraday, length = lengthOf(timeframe);
      const { timestamp } = match;
      try {
        const pages = await moment.batch([
          ["rag.get_candles", { timeframe, start: timestamp - DAY, end: timestamp }],
          ["rag.get_candles", { timeframe, start: timestamp, end: timestamp + DAY - timestamp % length }],
        ]);
        const failed = pages.find((page) => page instanceof Error);
        if (failed) throw failed;
        if (!element.isConnected) return;
        const candles = pages.flatMap((page) => quarterHours(page));
        if (!candles.length) throw new Error("The store no longer holds the candles of this time.");
        chart = new CandleChart(holder, candles[0].close);
        chart.candles.setData(rows(candles));
        const fan = new Fan(chart.chart);
        chart.candles.attachPrimitive(fan);
        fan.set([seconds(timestamp)], [], []);
        chart.chart.timeScale().fitContent();
      } catch (error) {
        problems.replaceChildren(problem(error, () => { problems.replaceChildren(); this.load(); }));
      }
    },
  };
}

function features(compared, state) {
  const all = compared.features
    .map((feature, i) => ({ ...feature, then: state.values[i], alike: state.similarities[i] }))
    .sort((a, b) => (b.alike ?? 2) - (a.alike ?? 2));
  const known = all.filter(({ alike }) => alike !== null), unknown = all.filter(({ alike }) => alike === null);
  const half = Math.min(LISTED, Math.floor(known.length / 2));
  const list = (title, entries) => el("table", { class: "features" },
    el("caption", {}, title),
    el("thead", {}, el("tr", {}, ["feature", "now", "then", "alike"].map((name) => el("th", { scope: "col" }, name)))),
    el("tbody", {}, entries.map(({ name, value, then, alike }) => el("tr", {},
      el("td", {}, words(name)), el("td", {}, signed(value, 1)), el("td", {}, signed(then, 1)),
      el("td", {}, el("meter", { min: "0", max: "1", low: "0.5", high: "0.9", optimum: "1", value: String(Math.max(alike, 0)), title: number(alike), "aria-label": `${words(name)} alike ${number(alike)}` }))))));
  return el("div", {},
    list("Most alike, in units of each feature's usual spread", known.slice(0, half)),
    list("Least alike", known.slice(-half).reverse()),
    unknown.length ? el("p", { class: "quiet" }, `Not compared, as one of both lacks them: ${unknown.map(({ name }) => words(name)).join(", ")} (${percent(unknown.reduce((sum, { share }) => sum + share, 0))} of the weight).`) : null);
}

const words = (name) => name.replaceAll("_", " ").replace(/\b(rsi|macd|ema|atr|oi)\b/g, (word) => word.toUpperCase());
