// Charts of candles by lightweight-charts, with the fan drawn behind them.

import {
  CandlestickSeries, ColorType, CrosshairMode, LineSeries, LineStyle, createChart,
} from "./vendor/lightweight-charts.mjs";
import { priceDigits } from "./format.js";

export const seconds = (ms) => Math.round(ms / 1000);
// uPlot shows local times of the dates that it is given.
export const utc = (at) => { const date = new Date(at * 1000); return new Date(date.getTime() + date.getTimezoneOffset() * 60_000); };

export function colour(name, alpha) {
  const value = getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  return alpha === undefined ? (/^\d/.test(value) ? `rgb(${value})` : value) : `rgba(${value}, ${alpha})`;
}

function looks() {
  return {
    layout: { background: { type: ColorType.Solid, color: colour("ground") }, textColor: colour("quiet"), attributionLogo: true, fontFamily: "system-ui, sans-serif" },
    grid: { vertLines: { color: colour("grid") }, horzLines: { color: colour("grid") } },
    rightPriceScale: { borderColor: colour("line") },
    timeScale: { borderColor: colour("line") },
  };
}

export function candleColours(faint = false) {
  const [up, down] = [colour("up"), colour("down")];
  const shown = (hex) => faint ? `${hex}99` : hex;
  return { upColor: shown(up), downColor: shown(down), wickUpColor: shown(up), wickDownColor: shown(down), borderVisible: false };
}

/** A chart that follows the size of its element and the theme until `remove`. */
export class CandleChart {
  constructor(element, around) {
    this.chart = createChart(element, {
      autoSize: true, crosshair: { mode: CrosshairMode.Normal },
      localization: { timeFormatter: (time) => new Date(time * 1000).toISOString().slice(0, 16).replace("T", " ") },
      ...looks(),
    });
    this.chart.timeScale().applyOptions({ timeVisible: true, secondsVisible: false, rightOffset: 1, minBarSpacing: 0.3 });
    const digits = Math.min(priceDigits(around), 8);
    this.format = { type: "price", precision: digits, minMove: 10 ** -digits };
    this.candles = this.chart.addSeries(CandlestickSeries, { ...candleColours(), priceFormat: this.format, lastValueVisible: true, priceLineVisible: false });
    this.painted = new AbortController();
    addEventListener("theme", () => this.paint(), { signal: this.painted.signal });
  }
  paint() {
    this.chart.applyOptions(looks());
    this.candles.applyOptions(candleColours());
  }
  line(options) {
    return this.chart.addSeries(LineSeries, {
      priceFormat: this.format, lastValueVisible: false, priceLineVisible: false, crosshairMarkerVisible: false, lineWidth: 1, ...options,
    });
  }
  show(fromMs, toMs) { this.chart.timeScale().setVisibleRange({ from: seconds(fromMs), to: seconds(toMs) }); }
  remove() {
    this.painted.abort();
    this.chart.remove();
  }
}

export const rows = (candles) => candles.map(({ start, ...prices }) => ({ time: seconds(start), ...prices }));

/** Bands between two curves of prices, and a vertical line where they begin. */
export class Fan {
  constructor(chart) {
    this.chart = chart;
    this.bands = [];
    this.lines = [];
    this.times = [];
  }
  set(times, bands, lines) {
    Object.assign(this, { times, bands, lines });
    this.update?.();
  }
  attached({ series, requestUpdate }) {
    this.series = series;
    this.update = requestUpdate;
  }
  detached() { this.update = null; }
  updateAllViews() { /* Coordinates are asked for at each drawing. */ }
  paneViews() { return [{ zOrder: () => "bottom", renderer: () => ({ draw: (target) => this.draw(target) }) }]; }
  autoscaleInfo() {
    const values = [...this.bands.flatMap(({ low, high }) => [...low, ...high])].filter(Number.isFinite);
    return values.length ? { priceRange: { minValue: Math.min(...values), maxValue: Math.max(...values) } } : null;
  }
  draw(target) {
    target.useBitmapCoordinateSpace(({ context, horizontalPixelRatio: wide, verticalPixelRatio: tall, bitmapSize }) => {
      const scale = this.chart.timeScale();
      const xs = this.times.map((time) => scale.timeToCoordinate(time));
      const at = (values) => values.map((value, i) => [xs[i], this.series.priceToCoordinate(value)])
        .filter(([x, y]) => x !== null && y !== null).map(([x, y]) => [x * wide, y * tall]);
      for (const { low, high, fill } of this.bands) {
        const outline = [...at(high), ...at(low).reverse()];
        if (outline.length < 3) continue;
        trace(context, outline);
        context.closePath();
        context.fillStyle = colour(...fill);
        context.fill();
      }
      for (const { values, stroke, dash = [], width = 1 } of this.lines) {
        trace(context, at(values));
        context.strokeStyle = colour(stroke);
        context.lineWidth = width * tall;
        context.setLineDash(dash.map((part) => part * wide));
        context.stroke();
        context.setLineDash([]);
      }
      if (xs[0] !== null && xs[0] !== undefined) {
        trace(context, [[xs[0] * wide, 0], [xs[0] * wide, bitmapSize.height]]);
        context.strokeStyle = colour("quiet");
        context.lineWidth = wide;
        context.setLineDash([2 * wide, 3 * wide]);
        context.stroke();
        context.setLineDash([]);
      }
    });
  }
}

function trace(context, points) {
  context.beginPath();
  points.forEach(([x, y], i) => i ? context.lineTo(x, y) : context.moveTo(x, y));
}

export { LineStyle };
