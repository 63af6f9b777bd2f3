// Decisions: what was decided, on which evidence, by whom, at what cost.

import { AccountSection } from "./account.js";
import { el, empty, facts, problem, replaceContent, rowWithNote, table } from "./dom.js";
import { count, counted, minute, number, percent, price, signed } from "./format.js";
import { server } from "./server.js";

const REFRESH = 30_000, LISTED = 100;

export class DecisionsView {
  constructor(root) {
    this.list = el("section", { "aria-label": "Decisions" }, el("p", { class: "waiting" }, "The server reads the record of decisions."));
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
      // Guards add their verdict to a decision that is already listed.
      const told = JSON.stringify(found);
      if (told === this.told) return;
      this.told = told;
      this.detail = el("section", { "aria-label": "The chosen decision" });
      replaceContent(this.list, el("h2", {}, "Decisions"), ...(found.decisions.length ? [this.summary(found), this.detail] : [
        empty("No decisions are recorded here (", el("code", {}, found.folder), "); ", el("code", {}, "llm-trader decide"), " records them."),
      ]));
      if (this.open) await this.show(this.open);
    } catch (error) {
      this.told = null;
      if (!this.closed) this.list.replaceChildren(problem(error, () => this.loadDecisions()));
    }
  }

  summary({ total, decisions }) {
    const holds = decisions.filter(({ decision }) => decision.action === "HOLD");
    const because = (reason) => holds.filter(({ decision }) => decision.hold_reason === reason).length;
    const refused = decisions.filter(({ vetoes }) => vetoes.length).length;
    const columns = ["as of (UTC)", "symbol", "decision", "confidence", "model", "arm", "cost in USD"];
    const paid = decisions.reduce((sum, { costs }) => sum + costs.paid_usd, 0);
    return el("div", {},
      el("p", {}, `Of the newest ${count(decisions.length)} of ${count(total)}: ${counted(decisions.length - holds.length, "trade", "trades")}${refused ? `, ${count(refused)} of them refused by guards` : ""}, ${counted(holds.length, "HOLD", "HOLDs")} `,
        `(${because("model")} chosen, ${because("error")} because of errors, ${because("guard")} by the guard), ${number(paid, 4)} USD paid.`),
      table("Newest first, each with its reason below; choose one to see all of it", columns,
        decisions.flatMap((entry) => rowWithNote(el("tr", { class: "pick", "data-id": String(entry.id), onclick: () => this.choose(entry.id) },
          el("td", {}, el("button", { type: "button", class: "plain" }, minute(entry.as_of_ms))),
          el("td", {}, entry.symbol), el("td", {}, action(entry)), el("td", {}, percent(entry.decision.confidence)),
          el("td", {}, entry.model ?? entry.decider), el("td", {}, entry.arm_used), el("td", {}, number(entry.costs.paid_usd, 4))),
        shortened(entry.decision.reasoning), columns)), { label: "Decisions" }));
  }

  async choose(id) {
    await this.show(id);
    this.detail.scrollIntoView({ block: "nearest" });
  }

  async show(id) {
    this.open = id;
    for (const row of this.root.querySelectorAll("tr[data-id]")) row.classList.toggle("chosen", row.dataset.id === String(id));
    try {
      const { decision } = await server.call("rag.get_decision", { id });
      if (!this.closed) replaceContent(this.detail, ...whole(decision));
    } catch (error) {
      if (!this.closed) this.detail.replaceChildren(problem(error, () => this.show(id)));
    }
  }
}

const shortened = (text) => text.length > 160 ? `${text.slice(0, 157)}…` : text;
const action = ({ decision: { action: name, hold_reason: reason }, vetoes }) => {
  const kind = vetoes.length ? "refused" : reason === "model" ? null : reason;
  return el("span", { class: `tag ${name}` }, kind ? `${name} (${kind})` : name);
};

/** What the guards of a workflow said. They have nothing to say about a HOLD. */
export function guardVerdict({ decision, arm, vetoes, labels }) {
  if (vetoes.length) return `refused it: ${vetoes.map(({ rule, message }) => `${rule}: ${message}`).join("; ")}`;
  if (decision.hold_reason === "guard") return decision.reasoning;
  if (labels.run === undefined) return "was not asked, as no workflow made this decision";
  if (labels.mode === "ab" && labels.executes !== arm) return "was not asked, as this arm is not executed";
  return decision.action === "HOLD" ? "had nothing to refuse" : "no veto is on record";
}

function whole(record) {
  const { decision, answer, costs } = record, { evidence } = answer ?? {};
  return [
    el("h2", {}, `Decision ${record.id}: ${record.symbol} as of ${minute(record.as_of_ms)} `, action(record)),
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
        ["Guard", guardVerdict(record)],
        ["Expiry", record.expiry?.reason ?? "not executed from here"],
        ["Cost", `${number(costs.cost_usd ?? 0, 4)} USD, of which paid ${number(costs.paid_usd ?? 0, 4)}`],
        ["Tokens", `${count(costs.input_tokens ?? 0)} in, ${count(costs.output_tokens ?? 0)} out`],
        ["Latency", `${count(Math.round(costs.latency_ms ?? 0))} ms`], ["Origin", record.origin],
      ])),
  ];
}

