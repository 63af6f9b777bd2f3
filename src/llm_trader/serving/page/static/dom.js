// Elements are made here and never from text, so that nothing the server says can become markup.

/** `el("td", {class: "up", onclick: f}, "text", child)` */
export function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

export function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/**
 * Replaces what an element holds. The focus stays on what does the same as before, and regions that
 * were scrolled sideways stay so.
 */
export function replaceContent(root, ...content) {
  const { activeElement: active } = document, regions = () => root.querySelectorAll(".scroll");
  const focused = active !== root && root.contains(active) ? nameOf(active) : null;
  const scrolled = new Map(Array.from(regions(), (region) => [nameOf(region), region.scrollLeft]));
  root.replaceChildren(...content);
  for (const region of regions()) region.scrollLeft = scrolled.get(nameOf(region)) ?? 0;
  if (focused !== null)
    [...root.querySelectorAll(FOCUSABLE)].find((element) => nameOf(element) === focused)?.focus({ preventScroll: true });
}

const FOCUSABLE = "a, button, input, select, summary, [tabindex]";
const nameOf = (element) => element.id || element.getAttribute("aria-label") || `${element.tagName} ${element.textContent}`;

/** A table that scrolls by itself on a narrow screen; `rows` are arrays of cells or elements `tr`. */
export function table(caption, columns, rows, options = {}) {
  return el("div", { class: "framed" }, caption ? el("p", { class: "caption" }, caption) : null,
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": options.label ?? caption }, el("table", {},
      el("thead", {}, el("tr", {}, columns.map((column) => el("th", { scope: "col" }, column)))),
      el("tbody", {}, rows.map(tableRow)))));
}

const tableRow = (cells) => cells instanceof HTMLElement ? cells : el("tr", {}, cells.map(cell));

/** A row and, on a line of its own below it, what is too long for a column; nothing where there is none. */
export function rowWithNote(cells, note, columns) {
  const row = tableRow(cells);
  return note ? [row, el("tr", { class: "below", onclick: () => row.click() }, el("td", { colspan: columns.length }, el("div", {}, note)))] : [row];
}

export const cell = (content) => content instanceof HTMLElement && content.tagName === "TD" ? content : el("td", {}, content);

/** A number with its sign, coloured by it; the sign says the same as the colour. */
export const change = (text, value) => el("td", { class: value > 0 ? "up" : value < 0 ? "down" : "quiet" }, text);

export const facts = (pairs) => el("dl", { class: "facts" },
  pairs.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value ?? "–")]));

export const empty = (...content) => el("p", { class: "empty" }, content);

/** A failure with what to do, and a button that tries again. */
export function problem(error, again) {
  const text = error instanceof Error ? error.message : String(error);
  return el("div", { class: "problem", role: "alert" }, text,
    again ? el("button", { type: "button", onclick: again }, "Try again") : null);
}

export function sparkline(values) {
  const width = 76, height = 26, pad = 2;
  const known = values.filter((value) => Number.isFinite(value));
  const low = Math.min(0, ...known), high = Math.max(0, ...known), span = high - low || 1;
  const y = (value) => (pad + (height - 2 * pad) * (high - value) / span).toFixed(1);
  const x = (index) => (index * width / Math.max(values.length - 1, 1)).toFixed(1);
  const points = values.map((value, index) => Number.isFinite(value) ? `${x(index)} ${y(value)}` : null);
  return svg("svg", { class: "spark", viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" },
    svg("line", { x1: 0, x2: width, y1: y(0), y2: y(0) }),
    svg("path", { d: `M${points.filter((point) => point).join("L")}` }));
}
