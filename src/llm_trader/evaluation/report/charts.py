"""Charts as Plotly's data and layout, in plain values; a number that is not known is a gap."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import accumulate
from typing import Any, Final

from llm_trader.evaluation.report.markup import Chart
from llm_trader.evaluation.report.units import Number, bounded, known
from llm_trader.evaluation.results import (
    VERDICT_REFERENCE,
    Bin,
    Curve,
    Direction,
    Histogram,
    Probability,
    RegimeSkill,
    Skill,
)
from llm_trader.retrieval.intervals import Interval

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


def slices(found: list[RegimeSkill]) -> Chart:
    """Of one way to divide: skill in % by regime, a panel for each horizon."""
    horizons = list(dict.fromkeys(one.horizon for one in found))
    symbols = list(dict.fromkeys(one.symbol for one in found))
    values = [_text(value) for value in dict.fromkeys(one.value for one in found)]
    panels, axes = _panels([f"{horizon}, %" for horizon in horizons])
    axes["xaxis"] |= {"type": "category", "categoryarray": values}
    traces: list[Trace] = []
    for horizon, panel in zip(horizons, panels, strict=True):
        for nth, symbol in enumerate(symbols):
            own = [one for one in found if (one.horizon, one.symbol) == (horizon, symbol)]
            bars = _points(symbol, nth, [one.skill for one in own])
            shown = {"type": "bar", "x": [_text(one.value) for one in own]}
            count = {"customdata": [one.queries for one in own]}
            traces.append(bars | shown | count | _on(panel, symbol))
    return _chart(traces, height=140 + 150 * len(horizons), barmode="group", **axes)


def ablation(found: list[Skill], directions: list[Direction]) -> Chart:
    """Of each kind of neighbours: skill against two base rates, and the share of right signs."""
    titles = ("base rate", VERDICT_REFERENCE)
    panels, axes = _panels(["beyond base rate, %", "treated alike, %", "right sign in %"])
    traces: list[Trace] = []
    for nth, variant in enumerate(dict.fromkeys(one.variant for one in found)):
        own = [one for one in found if one.variant == variant]
        rows = [[one for one in own if one.reference == title] for title in titles]
        shown = [([*map(_case, of)], [one.skill for one in of]) for of in rows]
        hits = [one for one in directions if one.variant == variant]
        shown.append(([*map(_case, hits)], [one.accuracy for one in hits]))
        for panel, (cases, estimates) in zip(panels, shown, strict=True):
            groups = [[_text(case[at]) for case in cases] for at in (0, 1)]
            marks = _points(variant, nth, estimates) | {"type": "scatter", "mode": "markers"}
            traces.append(marks | {"x": groups} | _on(panel, variant))
    axes["xaxis"]["type"] = "multicategory"
    # Left to itself, the axis starts at 0 where an interval is not known.
    axes["yaxis3"]["range"] = _around(50, [one.accuracy for one in directions])
    coin = [_level(panels[-1], 50)]
    return _chart(traces, height=640, scattermode="group", shapes=coin, **axes)


def _around(middle: float, estimates: list[Interval]) -> list[float]:
    """A range in % with all that is known of the estimates, and some room."""
    numbers = (end for of in estimates for end in (of.value, of.low, of.high))
    ends = [100 * end for end in numbers if end is not None]
    return [min([middle, *ends]) - 2, max([middle, *ends]) + 2]


def _case(one: Skill | Direction) -> tuple[str, str]:
    return one.symbol, one.horizon


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


def over_time(curves: list[Curve], title: str, scale: float, target: Number = None) -> Chart:
    """Curves of one kind, values times `scale`: a panel for each name, a line for each symbol."""
    names = list(dict.fromkeys(curve.name for curve in curves))
    symbols = list(dict.fromkeys(curve.symbol for curve in curves))
    panels, axes = _panels([title] if len(names) == 1 else [f"{name}, %" for name in names])
    axes["xaxis"]["type"] = "date"
    traces: list[Trace] = []
    for curve in curves:
        values = [None if value is None else scale * value for value in curve.value]
        place = {"x": curve.time_ms, "y": values, "mode": "lines"}
        panel = panels[names.index(curve.name)]
        look = _named(curve.symbol) | _line(symbols.index(curve.symbol))
        traces.append(look | place | _on(panel, curve.symbol))
    levels = [] if target is None else [_level(panel, target) for panel in panels]
    height = 300 if len(names) == 1 else 100 + 150 * len(names)
    return _chart(traces, height=height, hovermode="x unified", shapes=levels, **axes)


def _panels(titles: list[str]) -> tuple[list[str], Chart]:
    """One above the other over a common x axis: the y axis of each, and the axes of the layout."""
    names = ["y" if not row else f"y{row + 1}" for row in range(len(titles))]
    axes: Chart = {"xaxis": _axis(anchor=names[-1])}
    for row, (name, title) in enumerate(zip(names, titles, strict=True)):
        top = 1 - row / len(titles)
        domain = [max(0.0, top - (0.84 if len(titles) > 1 else 1.0) / len(titles)), top]
        zero = title.endswith("%")
        axes[f"yaxis{name[1:]}"] = _axis(title=_text(title), domain=domain, zeroline=zero)
    return names, axes


def _on(panel: str, group: str) -> Trace:
    """In a panel; all of one name are in the legend once, with those of the first panel."""
    return {"yaxis": panel, "legendgroup": _text(group), "showlegend": panel == "y"}


def _level(panel: str, value: float) -> Chart:
    line = {"color": "#777777", "dash": "dot", "width": 1}
    place = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "yref": panel}
    return place | {"y0": value, "y1": value, "line": line}


def _points(name: str, nth: int, intervals: Sequence[Interval | None]) -> Trace:
    """Estimates with their intervals as error bars, shares in %."""
    known_ones = [of for of in intervals if of and bounded(of)]
    error: Chart = {
        "type": "data",
        "visible": bool(known_ones),
        "symmetric": False,
        "thickness": 1.2,
        "width": 3,
    }
    error["color"] = "#444444"
    error["array"] = [_distance(of.value, of.high) if of else None for of in intervals]
    error["arrayminus"] = [_distance(of.low, of.value) if of else None for of in intervals]
    return {
        **_named(name),
        "y": [_percent(of.value) if of else None for of in intervals],
        "error_y": error,
        "marker": {**_line(nth)["marker"], "size": 8},
        "offsetgroup": str(nth),
    }


def _distance(low: Number, high: Number) -> Number:
    return None if low is None or high is None else _percent(high - low)


def _percent(value: Number) -> Number:
    return 100 * value if value is not None and known(value) else None


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
