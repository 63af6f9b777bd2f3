// The evaluations in the server's folder of reports.

import { el, empty, problem } from "./dom.js";
import { minute } from "./format.js";
import { server } from "./server.js";

export class EvaluationsView {
  constructor(root) { this.root = root; }
  close() { this.closed = true; }

  async load() {
    try {
      const { folder, evaluations } = await server.call("rag.list_evaluations");
      if (this.closed) return;
      this.root.replaceChildren(el("h2", {}, "Evaluations"), ...(evaluations.length ? evaluations.map(card) : [
        empty("No evaluations lie in ", el("code", {}, folder), "; ", el("code", {}, "llm-trader evaluate"), " writes one there."),
      ]));
    } catch (error) {
      if (!this.closed) this.root.replaceChildren(problem(error, () => this.load()));
    }
  }
}

function card({ name, command, created_at: created, symbols, start, end, readings, has_report: hasReport, problem: trouble }) {
  const day = (text) => text?.slice(0, 10) ?? "–";
  return el("article", { class: "card" },
    el("h3", {}, name === "." ? "reports" : name, " ", command ? el("span", { class: "tag" }, command) : null),
    el("p", { class: "quiet" }, trouble ? "" : `${minute(Date.parse(created))}; ${symbols.join(", ")}, ${day(start)} to ${day(end)}`),
    trouble ? el("p", { class: "note" }, `Its metrics.json cannot be read: ${trouble}`) : el("ul", {}, readings.slice(0, 6).map((reading) => el("li", {}, reading))),
    hasReport ? reportLink(name) : el("p", { class: "quiet" }, "It has no report.html."));
}

function reportLink(name) {
  const path = `/reports/${name === "." ? "" : name.split("/").map(encodeURIComponent).join("/")}`;
  if (!server.settings.keys_required)
    return el("p", {}, el("a", { href: path, target: "_blank", rel: "noopener" }, "Open the report"));
  // A link carries no key, so the page fetches the file and hands it over.
  const state = el("span", { role: "status" });
  const button = el("button", { type: "button", onclick: async () => {
    button.disabled = true;
    state.textContent = " The report is on its way.";
    try {
      const response = await server.fetch(path);
      if (!response.ok) throw new Error(`The server answered with the status ${response.status}.`);
      const address = URL.createObjectURL(await response.blob());
      el("a", { href: address, download: `${name.replaceAll("/", "-")}.html` }).click();
      setTimeout(() => URL.revokeObjectURL(address), 10_000);
      state.textContent = " Saved by the browser.";
    } catch (error) {
      state.textContent = ` ${error.message}`;
    }
    button.disabled = false;
  } }, "Save the report");
  return el("p", {}, button, state);
}
