// Evidence quality: how this server's own forecasts turned out.

import { el, empty, problem } from "./dom.js";
import { server } from "./server.js";

export class QualityView {
  constructor(root) { this.root = root; }
  close() { this.closed = true; }

  async load() {
    try {
      const found = await server.call("rag.forecast_scores");
      if (this.closed) return;
      this.root.replaceChildren(el("h2", {}, "Evidence quality"), el("pre", {}, JSON.stringify(found, null, 1)));
    } catch (error) {
      if (this.closed) return;
      this.root.replaceChildren(el("h2", {}, "Evidence quality"), error.isUnknownMethod
        ? empty("This server keeps no journal of its forecasts, so nothing can be said yet about how they turned out.")
        : problem(error, () => this.load()));
    }
  }
}
