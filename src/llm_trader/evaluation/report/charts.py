"""Charts as Plotly's data and layout, in plain values; an unknown number is a gap."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import accumulate
from typing import Any, Final

from llm_trader.evaluation.report.formats import Number, has_bounds, is_known, scaled, unique
from llm_trader.evaluation.results import (
    VERDICT_REFERENCE,
    Curve,
    Direction,
    Histogram,
    Probability,
    RegimeSkill,
    Skill,
)
from llm_trader.retrieval.intervals import Interval

Chart = dict[str, Any]
Trace = dict[str, Any]

# Okabe and Ito's colours, which stay distinct for the colour-blind; dashes and symbols stay
# distinct in black and white.
_COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56b4e9", "#333333")
_DASHES: Final = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "solid")
_SYMBOLS: Final = ("circle", "square", "diamond", "triangle-up", "x", "cross", "star")
_DOTTED: Final = {"color": "#777777", "dash": "dot", "width": 1}


def skill_chart(skills: Sequence[Skill]) -> Chart:
    """Skill in % for each symbol and horizon, against each reference."""
    traces = []
    for position, reference in enumerate(unique(skill.reference for skill in skills)):
        results = [skill for skill in skills if skill.reference == reference]
        estimates = _estimates(reference, position, [result.skill for result in results])
        traces.append(estimates | _markers(results))
    axes = {"xaxis": _axis(type="multicategory"), "yaxis": _axis("skill, %", zeroline=True)}
    return _chart(traces, height=380, scattermode="group", **axes)


def reliability_chart(probabilities: Sequence[Probability]) -> Chart:
    """How often one event happened by its forecast probability, and the counts below."""
    span = _span(probabilities)
    ideal = {"x": span, "y": span, "mode": "lines", "name": "ideal", "hoverinfo": "skip"}
    traces: list[Trace] = [ideal | {"line": _DOTTED}]
    for position, result in enumerate(probabilities):
        bins = [bin_ for bin_ in result.bins if bin_.count]
        counts, style = [bin_.count for bin_ in bins], _style(result.symbol, position)
        forecasts = {"name": style["name"], "x": [scaled(bin_.forecast) for bin_ in bins]}
        dots = {"y": [scaled(bin_.observed) for bin_ in bins], "mode": "lines+markers"}
        hover = "forecast %{x:.1f} %, happened %{y:.1f} % of %{customdata}"
        traces.append(style | forecasts | dots | {"customdata": counts, "hovertemplate": hover})
        bars = {"type": "bar", "y": counts, "yaxis": "y2", "showlegend": False}
        traces.append(forecasts | bars | {"marker": {"color": style["line"]["color"]}})
    return _chart(
        traces,
        height=440,
        xaxis=_axis("forecast probability, %", anchor="y2", range=span),
        yaxis=_axis("happened, %", domain=[0.34, 1], range=span),
        yaxis2=_axis("forecasts", domain=[0, 0.24]),
    )


def _span(probabilities: Sequence[Probability]) -> list[float]:
    """The part of 0 to 100 % in use, for most forecasts are close to the base rate."""
    bins = [bin_ for result in probabilities for bin_ in result.bins if bin_.count]
    shares = [100 * s for bin_ in bins for s in (bin_.forecast, bin_.observed) if is_known(s)]
    low, high = min(shares, default=0.0), max(shares, default=100.0)
    margin = 2 + 0.1 * (high - low)  # room for the outermost bars
    return [max(0.0, low - margin), min(100.0, high + margin)]


def equity_chart(curves: Sequence[Curve]) -> Chart:
    """Equity of each arm on one symbol, and below it the drawdown from its peak."""
    traces: list[Trace] = []
    for position, curve in enumerate(curves):
        line = _style(curve.name, position) | {"x": curve.time_ms, "mode": "lines"}
        drawdown = {"y": drawdown_pct(curve.value), "yaxis": "y2", "showlegend": False}
        traces += [line | {"y": curve.value}, line | drawdown]
    return _chart(
        traces,
        height=460,
        hovermode="x unified",
        xaxis=_axis(type="date", anchor="y2"),
        yaxis=_axis("equity", domain=[0.36, 1]),
        yaxis2=_axis("drawdown, %", domain=[0, 0.28], rangemode="tozero"),
    )


def drawdown_pct(values: Sequence[Number]) -> list[Number]:
    """How far each value is below the highest so far, in %."""
    peaks = accumulate((value if is_known(value) else -1.0 for value in values), max)
    return [
        100 * (value / peak - 1) if is_known(value) and peak > 0 else None
        for value, peak in zip(values, peaks, strict=True)
    ]


def regime_chart(regimes: Sequence[RegimeSkill]) -> Chart:
    """Skill in % in each regime of one division: a panel for each horizon."""
    horizons = unique(regime.horizon for regime in regimes)
    panels, axes = _panels([f"{horizon}, %" for horizon in horizons])
    values = [escape(value) for value in unique(regime.value for regime in regimes)]
    axes["xaxis"] |= {"type": "category", "categoryarray": values}
    traces: list[Trace] = []
    for horizon, panel in zip(horizons, panels, strict=True):
        for position, symbol in enumerate(unique(regime.symbol for regime in regimes)):
            results = [r for r in regimes if (r.horizon, r.symbol) == (horizon, symbol)]
            estimates = _estimates(symbol, position, [result.skill for result in results])
            bars = {"type": "bar", "x": [escape(result.value) for result in results]}
            queries = {"customdata": [result.queries for result in results]}
            traces.append(estimates | bars | queries | _on(panel, symbol))
    return _chart(traces, height=140 + 150 * len(horizons), barmode="group", **axes)


def ablation_chart(skills: Sequence[Skill], directions: Sequence[Direction]) -> Chart:
    """Skill of each kind of neighbours over two references, and its share of right signs."""
    panels, axes = _panels(["over plain, %", "over volatility model, %", "right sign, %"])
    traces: list[Trace] = []
    for position, variant in enumerate(unique(skill.variant for skill in skills)):
        rows: list[list[tuple[Skill | Direction, Interval]]] = [
            [(s, s.skill) for s in skills if (s.variant, s.reference) == (variant, reference)]
            for reference in ("base rate", VERDICT_REFERENCE)
        ]
        rows.append([(hits, hits.accuracy) for hits in directions if hits.variant == variant])
        for panel, row in zip(panels, rows, strict=True):
            estimates = _estimates(variant, position, [interval for _, interval in row])
            traces.append(estimates | _markers([r for r, _ in row]) | _on(panel, variant))
    axes["xaxis"]["type"] = "multicategory"
    # Left to itself, the axis starts at 0 where an interval is unknown.
    ends = [e for hits in directions for e in (hits.accuracy.low, hits.accuracy.high)]
    ends += [0.5, *(hits.accuracy.value for hits in directions)]
    shares = [100 * end for end in ends if is_known(end)]
    axes["yaxis3"]["range"] = [min(shares) - 2, max(shares) + 2]
    coin = [_level(panels[-1], 50)]
    return _chart(traces, height=640, scattermode="group", shapes=coin, **axes)


def similarity_chart(histograms: Sequence[Histogram]) -> Chart:
    """How many queries had neighbours of which mean similarity."""
    traces: list[Trace] = []
    for position, histogram in enumerate(histograms):
        # Outlines: bars of several symbols would hide one another.
        style = _style(histogram.symbol, position)
        style["line"] = {**style["line"], "shape": "hv"}
        counts = [*histogram.counts, *histogram.counts[-1:]]
        traces.append(style | {"x": histogram.edges, "y": counts, "mode": "lines"})
    axes = {"xaxis": _axis("mean similarity of the neighbours"), "yaxis": _axis("queries")}
    return _chart(traces, height=320, **axes)


def daily_chart(curves: Sequence[Curve], title: str, scale: float, target: Number) -> Chart:
    """Curves of one kind, scaled: a panel for each name, a line for each symbol."""
    names, symbols = unique(c.name for c in curves), unique(c.symbol for c in curves)
    panels, axes = _panels([title] if len(names) == 1 else [f"{name}, %" for name in names])
    axes["xaxis"]["type"] = "date"
    traces: list[Trace] = []
    for curve in curves:
        values = [scaled(value, scale) for value in curve.value]
        line = {"x": curve.time_ms, "y": values, "mode": "lines"}
        style = _style(curve.symbol, symbols.index(curve.symbol))
        traces.append(style | line | _on(panels[names.index(curve.name)], curve.symbol))
    levels = [] if target is None else [_level(panel, target) for panel in panels]
    height = 300 if len(names) == 1 else 100 + 150 * len(names)
    return _chart(traces, height=height, hovermode="x unified", shapes=levels, **axes)


def _panels(titles: Sequence[str]) -> tuple[list[str], Chart]:
    """The y axes of panels one above the other, and the axes of the layout."""
    names = ["y" if not row else f"y{row + 1}" for row in range(len(titles))]
    axes: Chart = {"xaxis": _axis(anchor=names[-1])}
    for row, (name, title) in enumerate(zip(names, titles, strict=True)):
        top = 1 - row / len(titles)
        domain = [max(0.0, top - (0.84 if len(titles) > 1 else 1.0) / len(titles)), top]
        zero = title.endswith("%")
        axes[f"yaxis{name[1:]}"] = _axis(escape(title), domain=domain, zeroline=zero)
    return names, axes


def _on(panel: str, group: str) -> Trace:
    """On a panel; the legend has each group once, from the first panel."""
    return {"yaxis": panel, "legendgroup": escape(group), "showlegend": panel == "y"}


def _level(panel: str, value: float) -> Chart:
    place = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "yref": panel}
    return place | {"y0": value, "y1": value, "line": _DOTTED}


def _markers(results: Sequence[Skill | Direction]) -> Trace:
    """Markers over symbols, and over horizons within each."""
    groups = [[escape(r.symbol) for r in results], [escape(r.horizon) for r in results]]
    return {"type": "scatter", "mode": "markers", "x": groups}


def _estimates(name: str, position: int, intervals: Sequence[Interval | None]) -> Trace:
    """Shares in %, with their intervals as error bars."""
    style = _style(name, position)
    bounded = [interval if has_bounds(interval) else None for interval in intervals]
    error: Chart = {
        "type": "data",
        "visible": any(bounded),
        "symmetric": False,
        "thickness": 1.2,
        "width": 3,
        "color": "#444444",
        "array": [_distance(i.value, i.high) if i else None for i in bounded],
        "arrayminus": [_distance(i.low, i.value) if i else None for i in bounded],
    }
    values = [scaled(interval.value) if interval else None for interval in intervals]
    marker = {"marker": {**style["marker"], "size": 8}, "offsetgroup": str(position)}
    return {"name": style["name"], "y": values, "error_y": error, **marker}


def _distance(low: Number, high: Number) -> Number:
    return None if low is None or high is None else scaled(high - low)


def _style(name: str, position: int) -> Trace:
    """Escaped, as Plotly reads a few tags in text."""
    colour, dash, symbol = (s[position % len(s)] for s in (_COLOURS, _DASHES, _SYMBOLS))
    return {
        "name": escape(name),
        "line": {"color": colour, "dash": dash, "width": 1.8},
        "marker": {"color": colour, "symbol": symbol},
    }


def _axis(title: str = "", **options: Any) -> Chart:
    look = {"gridcolor": "#e3e3e3", "zeroline": False, "zerolinecolor": "#555555"}
    return {"title": {"text": title}, "fixedrange": True, "automargin": True, **look, **options}


def _chart(traces: list[Trace], *, height: int, **options: Any) -> Chart:
    layout = {
        "height": height,
        "margin": {"l": 50, "r": 12, "t": 34, "b": 16},
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": "#222222"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "showlegend": True,
        "dragmode": False,
    }
    return {"data": traces, "layout": {**layout, **options}}
