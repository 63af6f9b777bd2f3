// The moment that Now shows: the latest data, or a past time. It stands in the address.

import { DAY, HOUR, minute } from "./format.js";
import { el } from "./dom.js";
import { STEP } from "./forecast.js";

export function readMoment() {
  const query = new URLSearchParams(location.hash.split("?")[1] ?? "");
  const at = Date.parse(query.get("at") ?? "");
  return { symbol: query.get("symbol"), at: Number.isFinite(at) ? at - at % STEP : null };
}

export function writeMoment({ symbol, at }) {
  const query = new URLSearchParams({ symbol, ...(at === null ? {} : { at: new Date(at).toISOString().slice(0, 16) + "Z" }) });
  const hash = `#now?${query}`;
  if (location.hash !== hash) history.replaceState(null, "", hash);
}

/** The picker of symbol and time. `choose` is called with what a person picks; null is the latest. */
export function picker({ symbols, symbol, at, end }, choose) {
  const select = el("select", { id: "symbol", onchange: () => choose({ symbol: select.value, at }) },
    symbols.map((name) => el("option", { value: name, selected: name === symbol }, name)));
  const input = el("input", {
    id: "at", type: "datetime-local", step: "900", max: local(end), value: local(at ?? end),
    onchange: () => { const time = Date.parse(`${input.value}Z`); if (Number.isFinite(time)) pick(time); },
  });
  const pick = (time) => {
    const grid = time - time % STEP;
    choose({ symbol: select.value, at: grid >= end ? null : grid });
  };
  const step = (ms, text, name) => el("button", {
    type: "button", "aria-label": name, title: name, onclick: () => pick((at ?? end) + ms),
    disabled: ms > 0 && at === null,
  }, text);
  const element = el("div", { class: "bar", role: "group", "aria-label": "Symbol and time" },
    el("label", { for: "symbol" }, "Symbol"), select,
    el("label", { for: "at" }, "As of (UTC)"), step(-DAY, "«", "A day back"), step(-HOUR, "‹", "An hour back"), input,
    step(HOUR, "›", "An hour ahead"), step(DAY, "»", "A day ahead"),
    el("button", { type: "button", id: "latest", "aria-pressed": String(at === null), onclick: () => choose({ symbol: select.value, at: null }) }, "Latest"));
  return { element, move: (ms) => pick((at ?? end) + ms), latest: () => choose({ symbol: select.value, at: null }) };
}

const local = (ms) => minute(ms).replace(" ", "T");
