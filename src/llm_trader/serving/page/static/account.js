// The workflow's paper account: what it has, its equity against holding, and its orders.

import { colour, seconds, utc } from "./charts.js";
import { change, el, empty, facts, problem, rowWithNote, table } from "./dom.js";
import { count, counted, minute, number, price, signed } from "./format.js";
import { server } from "./server.js";

const HEIGHT = 240, LISTED = 50;
const AXIS = { values: (_, ticks) => ticks.map((tick) => minute(tick * 1000).slice(5)), space: 100 };

export class AccountSection {
  constructor() {
    this.root = el("section", { "aria-label": "Paper account" });
    this.over = new AbortController();
    addEventListener("theme", () => this.found && this.show(), { signal: this.over.signal });
    addEventListener("resize", () => this.plot?.setSize({ width: this.holder.clientWidth, height: HEIGHT }), { signal: this.over.signal });
  }

  close() {
    this.closed = true;
    this.over.abort();
    this.plot?.destroy();
  }

  async load() {
    try {
      const found = await server.call("rag.paper_account", { limit: LISTED });
      if (this.closed) return;
      const told = JSON.stringify(found);
      if (told === this.told) return;
      this.told = told;
      this.found = found;
      this.show();
    } catch (error) {
      this.told = null;
      if (!this.closed) this.root.replaceChildren(el("h2", {}, "Paper account"), problem(error, () => this.load()));
    }
  }

  show() {
    const { found } = this;
    this.plot?.destroy();
    this.plot = null;
    this.root.replaceChildren(el("h2", {}, "Paper account"));
    if (!found.recorded) {
      this.root.append(empty("No workflow has traded on paper here (", el("code", {}, found.ledger), "); ",
        el("code", {}, "llm-trader workflow serve"), " runs one."));
      return;
    }
    const { curve, currency } = found, equity = last(curve?.equity), held = last(curve?.holding);
    const gain = (value) => value === null ? "–" : `${number(value)} ${currency} (${signed(100 * (value / found.deposited - 1))} %)`;
    this.root.append(facts([
      ["Equity", gain(equity)], ["Had it only held", gain(held)], ["Paid in", `${number(found.deposited)} ${currency}`],
      ["Costs", `${number(found.fees)} ${currency} of fees, ${number(found.slippage)} of slippage`],
      ["Funding", `${number(Math.abs(found.funding))} ${currency} ${found.funding < 0 ? "received" : "paid"}`],
    ]));
    if (curve?.time.length > 1) this.draw(curve, currency);
    this.root.append(positions(found), orders(found), fills(found));
  }

  draw({ time, equity, holding, symbols }, currency) {
    const named = symbols.length ? `holding ${symbols.join(" and ")} instead` : "holding cash instead";
    this.holder = el("div", { role: "img", "aria-label": `Equity of the paper account, and of ${named}, in ${currency}` });
    this.root.append(
      el("ul", { class: "legend lines" }, el("li", { class: "fan" }, "equity of the account"), el("li", { class: "path" }, `${named}, without costs`)),
      el("figure", { class: "plot" }, this.holder));
    const axis = { stroke: colour("quiet"), grid: { stroke: colour("grid") }, ticks: { stroke: colour("grid") } };
    const line = (label, stroke) => ({ label, stroke: colour(stroke), width: 2, points: { show: false } });
    this.plot = new window.uPlot({
      width: this.holder.clientWidth || 320, height: HEIGHT, cursor: { drag: { x: false, y: false } }, legend: { show: false },
      tzDate: utc, axes: [{ ...axis, ...AXIS }, { ...axis, size: 72 }],
      series: [{}, line("equity", "fan"), line("holding", "path")],
    }, [time.map(seconds), equity, holding], this.holder);
  }
}

const last = (values) => values?.findLast((value) => value !== null) ?? null;

function positions({ positions: list, currency }) {
  if (!list.length) return empty("No position is open.");
  return table("Open positions", ["symbol", "quantity", "opened (UTC)", "at", "now", `profit, ${currency}`, "stop", "target"],
    list.map((held) => [held.symbol, signed(held.quantity, 4), minute(held.opened_at), price(held.entry_price), price(held.price),
      change(signed(held.unrealized), held.unrealized), price(held.stop_price), price(held.target_price)]), { label: "Open positions" });
}

function orders({ orders: list, total_orders: total }) {
  if (!list.length) return empty("Nothing was ordered yet.");
  const columns = ["decided (UTC)", "symbol", "order", "quantity", "state", "price"];
  return table(`The newest ${count(list.length)} of ${counted(total, "order", "orders")}`, columns,
    list.flatMap((order) => rowWithNote([minute(order.created_at), order.symbol, `${order.side} to ${order.kind}`, number(order.quantity, 4),
      order.state, price(order.average_price)], order.reason, columns)), { label: "Orders" });
}

function fills({ fills: list, currency }) {
  if (!list.length) return "";
  return table(`The newest ${counted(list.length, "fill", "fills")}`, ["at (UTC)", "symbol", "side", "quantity", "price", "by", `profit, ${currency}`, `costs, ${currency}`],
    list.map((fill) => [minute(fill.time), fill.symbol, fill.side, number(fill.quantity, 4), price(fill.price), fill.reason,
      change(signed(fill.realized), fill.realized), number(fill.costs)]), { label: "Fills" });
}
