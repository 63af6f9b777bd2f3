"""Charts as Plotly's data and layout, in plain values; a number that is not known is a gap."""

from __future__ import annotations

from html import escape
from itertools import accumulate
from typing import Any, Final

from llm_trader.evaluation.markup import Chart
from llm_trader.evaluation.results import Bin, Curve, Histogram, Probability, Skill, Slice
from llm_trader.evaluation.significance import Interval
from llm_trader.evaluation.units import Number, known

# Okabe and Ito's colours, which stay apart for the colour-blind; dashes and signs stay apart in
# black and white.
_COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56b4e9", "#333333")
_DASHES: Final = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "solid")
_SIGNS: Final = ("circle", "square", "diamond", "triangle-up", "x", "cross", "star")
_GRID: Final = "#e3e3e3"

Trace = dict[str, Any]


def skills(found: list[Skill]) -> Chart:
    """Skill in % of each symbol and horizon, against each reference."""
    traces = []
    for nth, reference in enumerate(dict.fromkeys(one.reference for one in found)):
        against = [one for one in found if one.reference == reference]
        groups = [[_text(one.symbol) for one in against], [_text(one.horizon) for one in against]]
        marks = _points(reference, nth, [one.skill for one in against])
        traces.append(marks | {"type": "scatter", "mode": "markers", "x": groups})
    return _chart(
        traces,
        height=380,
        scattermode="group",
        xaxis=_axis(type="multicategory"),
        yaxis=_axis(title="skill, %", zeroline=True),
    )


def reliability(found: list[Probability]) -> Chart:
    """Of one event: how often it happened by forecast probability, and counts beneath."""
    span = _span([bin_ for one in found for bin_ in one.bins if bin_.count])
    ideal = {"x": span, "y": span, "mode": "lines", "name": "ideal", "hoverinfo": "skip"}
    traces: list[Trace] = [ideal | {"line": {"color": "#777777", "dash": "dot", "width": 1}}]
    for nth, one in enumerate(found):
        bins = [bin_ for bin_ in one.bins if bin_.count]
        forecast = [_percent(bin_.forecast) for bin_ in bins]
        observed = [_percent(bin_.observed) for bin_ in bins]
        counts = [bin_.count for bin_ in bins]
        name, line = _named(one.symbol), _line(nth)
        dots = {"x": forecast, "y": observed, "mode": "lines+markers", "customdata": counts}
        hover = {"hovertemplate": "forecast %{x:.1f} %, happened %{y:.1f} % of %{customdata}"}
        traces.append(name | line | dots | hover)
        bars = {"type": "bar", "x": forecast, "y": counts, "yaxis": "y2", "showlegend": False}
        traces.append(name | bars | {"marker": {"color": line["line"]["color"]}})
    return _chart(
        traces,
        height=440,
        xaxis=_axis(title="forecast probability, %", anchor="y2", range=span),
        yaxis=_axis(title="happened, %", domain=[0.34, 1], range=span),
        yaxis2=_axis(title="forecasts", domain=[0, 0.24]),
    )


def _span(bins: list[Bin]) -> list[float]:
    """The part of 0 to 100 % that is in use, for most forecasts are near the base rate."""
    used = [100 * share for bin_ in bins for share in (bin_.forecast, bin_.observed)]
    used = [share for share in used if known(share)]
    if not used:
        return [0.0, 100.0]
    room = 2 + 0.1 * (max(used) - min(used))  # of the outermost bars
    return [max(0.0, min(used) - room), min(100.0, max(used) + room)]


def equity(curves: list[Curve]) -> Chart:
    """Of one symbol: equity by arm, its start being 1, and below it the fall from its peak."""
    traces: list[Trace] = []
    for nth, curve in enumerate(curves):
        line = _named(curve.name) | _line(nth) | {"x": curve.time_ms, "mode": "lines"}
        traces.append(line | {"y": curve.value})
        below = {"y": drawdown_pct(curve.value), "yaxis": "y2", "showlegend": False}
        traces.append(line | below)
    return _chart(
        traces,
        height=460,
        hovermode="x unified",
        xaxis=_axis(type="date", anchor="y2"),
        yaxis=_axis(title="equity", domain=[0.36, 1]),
        yaxis2=_axis(title="drawdown, %", domain=[0, 0.28], rangemode="tozero"),
    )


def drawdown_pct(values: list[Number]) -> list[Number]:
    """How far each value is below the highest up to it, in %."""
    equity = [float(value) if value is not None and known(value) else None for value in values]
    peaks = accumulate((-1.0 if value is None else value for value in equity), max)
    return [
        None if value is None or peak <= 0 else 100 * (value / peak - 1)
        for value, peak in zip(equity, peaks, strict=True)
    ]


def slices(found: list[Slice]) -> Chart:
    """Of one way to divide: skill in % by regime, a panel for each horizon."""
    horizons = list(dict.fromkeys(one.horizon for one in found))
    symbols = list(dict.fromkeys(one.symbol for one in found))
    values = [_text(value) for value in dict.fromkeys(one.value for one in found)]
    last = "y" if len(horizons) == 1 else f"y{len(horizons)}"
    axes: Chart = {"xaxis": _axis(type="category", anchor=last, categoryarray=values)}
    traces: list[Trace] = []
    for row, horizon in enumerate(horizons):
        axis = str(row + 1) if row else ""
        top = 1 - row / len(horizons)
        domain = [top - 0.84 / len(horizons), top]
        axes[f"yaxis{axis}"] = _axis(title=f"{_text(horizon)}, %", domain=domain, zeroline=True)
        for nth, symbol in enumerate(symbols):
            own = [one for one in found if (one.horizon, one.symbol) == (horizon, symbol)]
            bars = _points(symbol, nth, [one.skill for one in own])
            place = {"type": "bar", "yaxis": f"y{axis}", "legendgroup": _text(symbol)}
            shown = {"x": [_text(one.value) for one in own], "showlegend": not row}
            traces.append(bars | place | shown | {"customdata": [one.queries for one in own]})
    return _chart(traces, height=140 + 150 * len(horizons), barmode="group", **axes)


def similarity(found: list[Histogram]) -> Chart:
    """How many queries had neighbours of what mean similarity."""
    traces: list[Trace] = []
    for nth, one in enumerate(found):
        # Outlines: bars of several symbols would hide one another.
        steps = {"x": one.edges, "y": [*one.counts, *one.counts[-1:]], "mode": "lines"}
        line = {"line": {**_line(nth)["line"], "shape": "hv"}}
        traces.append(_named(one.symbol) | steps | line)
    return _chart(
        traces,
        height=320,
        xaxis=_axis(title="mean similarity of the neighbours"),
        yaxis=_axis(title="queries"),
    )


def over_time(curves: list[Curve], title: str, scale: float) -> Chart:
    """Curves of one kind, values times `scale`."""
    traces = []
    for nth, curve in enumerate(curves):
        values = [None if value is None else scale * value for value in curve.value]
        name = curve.symbol if curve.name == curve.kind else f"{curve.symbol}, {curve.name}"
        place = {"x": curve.time_ms, "y": values, "mode": "lines"}
        traces.append(_named(name) | _line(nth) | place)
    return _chart(
        traces,
        height=300,
        hovermode="x unified",
        xaxis=_axis(type="date"),
        yaxis=_axis(title=title),
    )


def _points(name: str, nth: int, intervals: list[Interval | None]) -> Trace:
    """Estimates with their intervals as error bars, shares in %."""
    error: Chart = {"type": "data", "symmetric": False, "thickness": 1.2, "width": 3}
    error["color"] = "#444444"
    error["array"] = [_beyond(of, of.high - of.value) if of else None for of in intervals]
    error["arrayminus"] = [_beyond(of, of.value - of.low) if of else None for of in intervals]
    return {
        **_named(name),
        "y": [_percent(of.value) if of else None for of in intervals],
        "error_y": error,
        "marker": {**_line(nth)["marker"], "size": 8},
        "offsetgroup": str(nth),
    }


def _beyond(interval: Interval, distance: float) -> Number:
    return _percent(distance) if known(interval.low) and known(interval.high) else None


def _percent(value: float) -> Number:
    return 100 * value if known(value) else None


def _named(name: str) -> Trace:
    return {"name": _text(name)}


def _text(name: str) -> str:
    """Plotly reads a few tags in text."""
    return escape(name)


def _line(nth: int) -> Trace:
    colour, dash, sign = (of[nth % len(of)] for of in (_COLOURS, _DASHES, _SIGNS))
    return {
        "line": {"color": colour, "dash": dash, "width": 1.8},
        "marker": {"color": colour, "symbol": sign},
    }


def _axis(title: str = "", **more: Any) -> Chart:
    look = {"gridcolor": _GRID, "zeroline": False, "zerolinecolor": "#555555", "automargin": True}
    return {"title": {"text": title}, "fixedrange": True, **look, **more}


def _chart(traces: list[Trace], *, height: int, **layout: Any) -> Chart:
    plain = {
        "height": height,
        "margin": {"l": 50, "r": 12, "t": 34, "b": 16},
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": "#222222"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "showlegend": True,
        "dragmode": False,
    }
    return {"data": traces, "layout": {**plain, **layout}}
