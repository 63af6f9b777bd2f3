// The moment that Now shows: the latest data, or a past time. It stands in the address.

import { DAY, HOUR, minute } from "./format.js";
import { el } from "./dom.js";
import { STEP } from "./forecast.js";

// A person who types a time changes it with every digit.
const TYPING_MS = 700;

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

/**
 * The picker of symbol and time. `choose` is called with what a person picks; null is the latest.
 * It stays in the page while answers come and go, as somebody may be typing in it.
 */
export function picker(choose) {
  let at = null, end = 0, typing = null;
  // The next step counts from here, also where the answer is still on its way.
  const go = (time) => {
    at = time;
    choose({ symbol: select.value, at });
  };
  const pick = (time) => {
    const grid = time - time % STEP;
    go(grid >= end ? null : grid);
  };
  const select = el("select", { id: "symbol", onchange: () => go(at) });
  const input = el("input", {
    id: "at", type: "datetime-local", step: "900",
    onchange: () => {
      clearTimeout(typing);
      typing = setTimeout(() => {
        typing = null;
        const time = Date.parse(`${input.value}Z`);
        if (Number.isFinite(time)) pick(time);
      }, TYPING_MS);
    },
  });
  const latest = el("button", { type: "button", id: "latest", onclick: () => go(null) }, "Latest");
  const move = (ms) => pick((at ?? end) + ms);
  const step = (ms, text, name) => el("button", { type: "button", "aria-label": name, title: name, onclick: () => move(ms) }, text);
  const ahead = [step(HOUR, "›", "An hour ahead"), step(DAY, "»", "A day ahead")];
  const element = el("div", { class: "bar", role: "group", "aria-label": "Symbol and time", hidden: true },
    el("label", { for: "symbol" }, "Symbol"), select,
    el("label", { for: "at" }, "As of (UTC)"), step(-DAY, "«", "A day back"), step(-HOUR, "‹", "An hour back"), input, ...ahead, latest);
  return {
    element,
    move,
    latest: () => latest.click(),
    show({ symbols, symbol, at: chosen, end: newest }) {
      [at, end] = [chosen, newest];
      if ([...select.options].map(({ value }) => value).join() !== symbols.join())
        select.replaceChildren(...symbols.map((name) => el("option", { value: name }, name)));
      select.value = symbol;
      input.max = local(end);
      const shown = local(at ?? end);
      if (typing === null && input.value !== shown) input.value = shown;
      for (const button of ahead) button.disabled = at === null;
      latest.setAttribute("aria-pressed", String(at === null));
      element.hidden = false;
    },
  };
}

const local = (ms) => minute(ms).replace(" ", "T");
