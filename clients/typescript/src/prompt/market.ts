/**
 * The state of the market in a prompt. Nothing but its first lines tells the symbol or the price.
 *
 * All other amounts are relative: levels are in % from the price now, MACD and ATR in % of it, volume
 * and open interest beside their means.
 */

import type { MarketSnapshot } from "../wire.js";
import { fixed, isKnown, type MaybeNumber, percent, priceDecimals, quoted, signed, UNKNOWN } from "./numbers.js";

const MASKED_SYMBOL = "ASSET";
const MASKED_PRICE = 100;
// Longer than any symbol of an exchange, shorter than a sentence.
const MOST_SYMBOL_CHARACTERS = 24;
const SERIES_LENGTH = 10;

/** Writes amounts of quote currency relative to a price; `n/a` where that is unknown. */
export class RelativeTo {
  readonly #price: number | null;

  constructor(price: MaybeNumber) {
    this.#price = isKnown(price) && price > 0 ? price : null;
  }

  /** Such as an EMA, in % from the price. */
  level(value: MaybeNumber): string {
    if (this.#price === null || !isKnown(value)) return UNKNOWN;
    return signed((value / this.#price - 1) * 100, 2);
  }

  /** Such as a MACD, in % of the price, with a sign. */
  difference(value: MaybeNumber): string {
    return signed(this.#portion(value), 3);
  }

  /** Such as an ATR, in % of the price, without a sign. */
  size(value: MaybeNumber): string {
    return fixed(this.#portion(value), 2);
  }

  #portion(value: MaybeNumber): number | null {
    return this.#price === null || !isKnown(value) ? null : (value / this.#price) * 100;
  }
}

/** The lines of the section, with a heading. */
export function marketLines(s: MarketSnapshot, masked: boolean): string[] {
  const now = new RelativeTo(s.price);
  const symbol = masked ? MASKED_SYMBOL : s.symbol;
  const price = masked ? MASKED_PRICE : s.price;
  const level = (value: MaybeNumber): string => now.level(value);
  const difference = (value: MaybeNumber): string => now.difference(value);
  return [
    `MARKET of the perpetual future ${quoted(symbol, MOST_SYMBOL_CHARACTERS)}, price ${fixed(price, priceDecimals(price))}`,
    "Prices and EMA are in % from the price now, MACD and ATR in % of it.",
    `change 1h ${change(s.price_change_1h)}, 4h ${change(s.price_change_4h)}, 24h ${change(s.price_change_24h)}`,
    `realised volatility 1h ${volatility(s.realized_volatility_1h)}, ` +
      `4h ${volatility(s.realized_volatility_4h)}, 24h ${volatility(s.realized_volatility_24h)}`,
    `volume of the last hour ${fixed(s.volume_ratio, 2)} times the mean of 24h; hour of day ${fixed(s.hour_of_day, 1)} UTC`,
    `intraday candles: RSI(7) ${fixed(s.rsi_7, 1)}, RSI(14) ${fixed(s.rsi_14, 1)}, ` +
      `MACD ${difference(s.macd)}, EMA(20) ${level(s.ema_20)}`,
    `4h candles: RSI(14) ${fixed(s.rsi_14_4h, 1)}, MACD ${difference(s.macd_4h)}, ` +
      `EMA(20) ${level(s.ema_20_4h)}, EMA(50) ${level(s.ema_50_4h)}, ` +
      `ATR(3) ${now.size(s.atr_3_4h)}, ATR(14) ${now.size(s.atr_14_4h)}, ` +
      `volume ${fixed(ratio(s.current_volume_4h, s.avg_volume_4h), 2)} times its mean`,
    `open interest ${change(s.oi_delta_pct)} from its mean of 24h; ` +
      `funding ${funding(s.funding_rate)} each ${fixed(s.funding_interval_hours, 0)} hours`,
    "The last 10 candles, oldest first:",
    `price ${series(s.mid_prices, level)}`,
    `EMA(20) ${series(s.ema_20_values, level)}`,
    `MACD ${series(s.macd_values, difference)}`,
    `RSI(7) ${series(s.rsi_7_values, rsi)}`,
    `RSI(14) ${series(s.rsi_14_values, rsi)}`,
    `4h MACD ${series(s.macd_4h_values, difference)}`,
    `4h RSI(14) ${series(s.rsi_14_4h_values, rsi)}`,
  ];
}

/** The newest ten points; fewer where there are fewer. */
function series(points: readonly MaybeNumber[] | null | undefined, written: (point: MaybeNumber) => string): string {
  return points?.length ? points.slice(-SERIES_LENGTH).map(written).join(" ") : UNKNOWN;
}

function change(valuePct: MaybeNumber): string {
  return percent(signed(valuePct, 2));
}

function volatility(valuePct: MaybeNumber): string {
  return percent(fixed(valuePct, 2));
}

function rsi(value: MaybeNumber): string {
  return fixed(value, 0);
}

function ratio(value: MaybeNumber, mean: MaybeNumber): number | null {
  return isKnown(value) && isKnown(mean) && mean > 0 ? value / mean : null;
}

function funding(rate: MaybeNumber): string {
  return percent(signed(isKnown(rate) ? 100 * rate : null, 4));
}
