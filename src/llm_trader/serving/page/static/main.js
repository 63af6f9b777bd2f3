// Starts the page: key, connection, theme, and the view that the address names.

import { SeriesView } from "./data.js";
import { DecisionsView } from "./decisions.js";
import { el, problem } from "./dom.js";
import { EvaluationsView } from "./evaluations.js";
import { ago } from "./format.js";
import { Live } from "./live.js";
import { NowView } from "./now.js";
import { QualityView } from "./quality.js";
import { server } from "./server.js";

const VIEWS = { now: NowView, quality: QualityView, data: SeriesView, decisions: DecisionsView, evaluations: EvaluationsView };
const READY_EVERY = 20_000;
const root = document.getElementById("view"), status = document.getElementById("status");
const keyForm = document.getElementById("key"), keyValue = document.getElementById("key-value");
const live = new Live();
let view = null, connected = false, ready = null, age = null, wasAway = false;

function say() {
  const limit = (server.settings?.max_data_age_minutes ?? 30) * 60;
  const [state, text] = !connected ? ["away", "The server is away; the page tries again"]
    : age !== null && age > limit ? ["stale", `Stale: the newest candle is ${ago(age)}`]
    : ready === false ? ["stale", "The server is not ready; see Data"]
    : ["live", age === null ? "Connected" : `Live; the newest candle is ${ago(age)}`];
  if (status.textContent !== text) status.textContent = text;
  status.dataset.state = state;
}

async function askReadiness() {
  if (document.hidden || !connected) return;
  try {
    ready = (await (await server.fetch("/page/readiness")).json()).ready;
  } catch { /* The connection says so itself. */ }
  say();
}

function show() {
  const name = location.hash.slice(1).split("?")[0] || "now";
  const kind = VIEWS[name] ? name : "now";
  view?.close();
  root.replaceChildren(el("p", { class: "waiting" }, "The page asks the server for its data."));
  for (const link of document.querySelectorAll("nav a"))
    link.getAttribute("href") === `#${kind}` ? link.setAttribute("aria-current", "page") : link.removeAttribute("aria-current");
  document.title = `${document.querySelector("nav a[aria-current]").textContent} · LLM Trader RAG`;
  age = null;
  say();
  view = new VIEWS[kind](root, live);
  view.load();
}

function askForKey() {
  if (!keyForm.hidden) return;
  keyForm.hidden = false;
  document.getElementById("key-problem").textContent = server.key ? "The server does not accept this key, or the key lacks the scope that this view needs." : "";
  keyValue.value = "";
  keyValue.focus();
}

keyForm.addEventListener("submit", (event) => {
  event.preventDefault();
  server.key = keyValue.value.trim();
  keyForm.hidden = true;
  live.restart();
  show();
});

function applyTheme(theme) {
  document.documentElement.dataset.theme = theme;
  document.getElementById("theme").textContent = theme === "dark" ? "Light" : "Dark";
  dispatchEvent(new Event("theme"));
}

function startTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const chosen = () => localStorage.getItem("llm-trader-theme") ?? (dark.matches ? "dark" : "light");
  applyTheme(chosen());
  dark.addEventListener("change", () => applyTheme(chosen()));
  document.getElementById("theme").addEventListener("click", () => {
    localStorage.setItem("llm-trader-theme", document.documentElement.dataset.theme === "dark" ? "light" : "dark");
    applyTheme(chosen());
  });
}

live.addEventListener("connected", () => {
  connected = true;
  say();
  askReadiness();
  // What was asked while the server was away failed.
  if (wasAway) show();
  wasAway = false;
});
live.addEventListener("lost", () => { connected = false; wasAway = true; say(); });
server.addEventListener("key-needed", askForKey);
addEventListener("data-age", ({ detail }) => { age = detail; say(); });
addEventListener("hashchange", show);
document.addEventListener("visibilitychange", askReadiness);
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea")) return;
  const link = document.querySelectorAll("nav a")[Number(event.key) - 1];
  if (link) link.click();
  else view?.key?.(event.key);
});
setInterval(askReadiness, READY_EVERY);

async function start() {
  try {
    await server.start();
  } catch (error) {
    root.replaceChildren(problem(error, start));
    setTimeout(() => { if (!server.settings) start(); }, 3000);
    return;
  }
  live.start();
  if (server.settings.keys_required && !server.key) {
    root.replaceChildren(el("p", { class: "empty" }, "The page shows its data once it has a key."));
    askForKey();
  } else show();
}

startTheme();
start();
