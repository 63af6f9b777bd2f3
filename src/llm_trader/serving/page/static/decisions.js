// Decisions: what was decided, on which evidence, by whom, at what cost.

import { AccountSection } from "./account.js";
import { el, empty, facts, problem, table } from "./dom.js";
import { count, minute, number, percent, price, signed } from "./format.js";
import { server } from "./server.js";

const REFRESH = 30_000, LISTED = 100;

export class DecisionsView {
  constructor(root) {
    this.list = el("section", { "aria-label": "Decisions" });
    this.account = new AccountSection();
    this.root = root;
    root.replaceChildren(this.list, this.account.root);
    this.timer = setInterval(() => document.hidden || this.load(), REFRESH);
  }
  close() {
    this.closed = true;
    this.account.close();
    clearInterval(this.timer);
  }

  async load() {
    await Promise.all([this.loadDecisions(), this.account.load()]);
  }

  async loadDecisions() {
    try {
      const found = await server.call("rag.list_decisions", { limit: LISTED });
      if (this.closed) return;
      const newest = found.decisions[0]?.id;
      if (this.newest === newest && this.detail) return;
      this.newest = newest;
      this.detail = el("section", { "aria-label": "The chosen decision" });
      this.list.replaceChildren(el("h2", {}, "Decisions"), ...(found.decisions.length ? [this.summary(found), this.detail] : [
        empty("No decisions are recorded here (", el("code", {}, found.folder), "); ", el("code", {}, "llm-trader decide"), " records them."),
      ]));
      if (this.open) await this.show(this.open);
    } catch (error) {
      if (!this.closed) this.list.replaceChildren(problem(error, () => { this.detail = null; this.loadDecisions(); }));
    }
  }

  summary({ total, decisions }) {
    const holds = decisions.filter(({ decision }) => decision.action === "HOLD");
    const because = (reason) => holds.filter(({ decision }) => decision.hold_reason === reason).length;
    const paid = decisions.reduce((sum, { costs }) => sum + costs.paid_usd, 0);
    return el("div", {},
      el("p", {}, `Of the newest ${count(decisions.length)} of ${count(total)}: ${decisions.length - holds.length} trades, ${holds.length} HOLDs `,
        `(${because("model")} chosen, ${because("error")} because of errors, ${because("guard")} by the guard), ${number(paid, 4)} USD paid.`),
      table("Newest first; choose one to see all of it", ["as of (UTC)", "symbol", "decision", "confidence", "model", "arm", "cost in USD", "why"],
        decisions.map((entry) => el("tr", { class: "pick", "data-id": String(entry.id), onclick: () => this.show(entry.id) },
          el("td", {}, el("button", { type: "button", class: "plain" }, minute(entry.as_of_ms))),
          el("td", {}, entry.symbol), el("td", {}, action(entry.decision)), el("td", {}, percent(entry.decision.confidence)),
          el("td", {}, entry.model ?? entry.decider), el("td", {}, entry.arm_used), el("td", {}, number(entry.costs.paid_usd, 4)),
          el("td", { class: "wrap" }, shortened(entry.decision.reasoning)))), { label: "Decisions" }));
  }

  async show(id) {
    this.open = id;
    for (const row of this.root.querySelectorAll("tr[data-id]")) row.classList.toggle("chosen", row.dataset.id === String(id));
    try {
      const { decision } = await server.call("rag.get_decision", { id });
      if (!this.closed) this.detail.replaceChildren(...whole(decision));
    } catch (error) {
      if (!this.closed) this.detail.replaceChildren(problem(error, () => this.show(id)));
    }
  }
}

const shortened = (text) => text.length > 160 ? `${text.slice(0, 157)}…` : text;
const action = ({ action: name, hold_reason: reason }) =>
  el("span", { class: `tag ${name}` }, reason && reason !== "model" ? `${name} (${reason})` : name);

function whole(record) {
  const { decision, answer, costs } = record, { evidence } = answer ?? {};
  return [
    el("h2", {}, `Decision ${record.id}: ${record.symbol} as of ${minute(record.as_of_ms)} `, action(decision)),
    el("div", { class: "two" },
      el("div", {}, el("h3", {}, "Rationale"), el("pre", { tabindex: "0" }, decision.reasoning),
        el("h3", {}, "Evidence used"),
        evidence ? el("p", {}, el("strong", {}, evidence.verdict), `: ${evidence.reason}. ${answer.matches.length} matches were shown, ${evidence.episodes} episodes summed up.`)
          : el("p", {}, record.retrieval_error ? `None: ${record.retrieval_error}` : "None: this prompt had no evidence.")),
      facts([
        ["Decided at", minute(record.created_at_ms)], ["Price", price(record.snapshot.price)],
        ["Stop", decision.stop_pct === null ? null : `${signed(decision.stop_pct)} %`], ["Target", decision.target_pct === null ? null : `${signed(decision.target_pct)} %`],
        ["Size", decision.size_pct === null ? null : `${number(decision.size_pct)} % of the equity`],
        ["Confidence", percent(decision.confidence)], ["By", `${record.model ?? record.decider} (${record.provider ?? "no model"})`],
        ["Prompt", record.arm_used + (record.arm === record.arm_used ? "" : ` instead of ${record.arm}`)],
        ["Guard", decision.hold_reason === "guard" ? decision.reasoning : "did not object"],
        ["Expiry", record.expiry?.reason ?? "not executed from here"],
        ["Cost", `${number(costs.cost_usd ?? 0, 4)} USD, of which paid ${number(costs.paid_usd ?? 0, 4)}`],
        ["Tokens", `${count(costs.input_tokens ?? 0)} in, ${count(costs.output_tokens ?? 0)} out`],
        ["Latency", `${count(Math.round(costs.latency_ms ?? 0))} ms`], ["Origin", record.origin],
      ])),
  ];
}

