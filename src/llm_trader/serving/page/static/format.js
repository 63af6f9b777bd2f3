// Numbers and times in words. Unknown is a dash, never a zero.

export const MINUTE = 60_000, HOUR = 60 * MINUTE, DAY = 24 * HOUR;
export const HORIZON_HOURS = { "15m": 0.25, "1h": 1, "4h": 4, "24h": 24 };
const QUOTES = ["USDT", "USDC", "FDUSD", "BUSD", "USD", "EUR", "BTC", "ETH"];
const known = (value) => typeof value === "number" && Number.isFinite(value);

export const number = (value, digits = 2) => known(value) ? value.toFixed(digits) : "–";
export const signed = (value, digits = 2) =>
  known(value) ? `${sign(value, digits)}${Math.abs(value).toFixed(digits)}` : "–";
const sign = (value, digits) => Math.abs(value) < 0.5 * 10 ** -digits ? "" : value < 0 ? "−" : "+";
export const percent = (share, digits = 0) => known(share) ? `${(100 * share).toFixed(digits)} %` : "–";
export const count = (value) => known(value) ? value.toLocaleString("en-US") : "–";
/** 1 forecast, 2 forecasts */
export const counted = (value, one, many) => `${count(value)} ${value === 1 ? one : many}`;
export const range = (ends) => ends ? `${signed(ends[0])} … ${signed(ends[1])}` : "–";

/** Six digits, such as 34,810.2. */
export function price(value) {
  if (!known(value)) return "–";
  const digits = priceDigits(value);
  return value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

export const priceDigits = (value) =>
  value > 0 ? Math.min(Math.max(5 - Math.floor(Math.log10(value)), 0), 12) : 2;

export function quote(symbol) {
  const found = QUOTES.find((name) => symbol.endsWith(name));
  return found ? ` ${found}` : "";
}

/** 2026-03-31 14:15 */
export const minute = (ms) => known(ms) ? new Date(ms).toISOString().slice(0, 16).replace("T", " ") : "–";

export function ago(seconds) {
  if (!known(seconds)) return "of unknown age";
  if (seconds < 90) return `${Math.max(0, Math.round(seconds))} s old`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min old`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h old`;
  return `${count(Math.round(seconds / 86400))} days old`;
}
