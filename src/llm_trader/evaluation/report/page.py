"""The report: what an evaluation found as one HTML file that needs no network.

1. The verdict in words, or why there is none to be had (here, words of `prose.py`).
2. Sections: a reading, tables and charts each (`sections.py`, `charts.py`).
3. Plotly's script, once, and the few lines that draw the charts (`report.js`).

Text and tables are there without JavaScript.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Final

from llm_trader.errors import ConfigurationError
from llm_trader.evaluation.report import forecast_sections, prose, sections
from llm_trader.evaluation.report.markup import Markup, badge, element, join
from llm_trader.evaluation.report.units import capital, counted, listed, moment
from llm_trader.evaluation.results import Command, Metrics

# A second wall behind `_offline`: a browser that reads this fetches nothing, whatever is asked.
_POLICY: Final = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
)
_ADDRESS: Final = re.compile(r"([\"'`])https?://(?!www\.w3\.org/)[\w.-]+\.[a-z]+[^\"'`<>]*")
_BELIEF: Final = (sections.controls, sections.probes)
_CLOSER: Final = (
    forecast_sections.slices,
    sections.trials,
    sections.similarity,
    sections.over_time,
)
_FORECASTS: Final = (
    forecast_sections.skills,
    forecast_sections.probabilities,
    forecast_sections.directions,
    forecast_sections.bands,
)
# What a command asked comes first, and what it did not do is left out.
_SECTIONS: Final[dict[Command, Sequence[Callable[[Metrics], Markup]]]] = {
    "evaluate": (sections.origin, *_FORECASTS, sections.decisions, *_BELIEF, *_CLOSER),
    "compare": (
        sections.origin,
        forecast_sections.ablation,
        *_BELIEF,
        forecast_sections.probabilities,
        forecast_sections.bands,
        *_CLOSER,
    ),
    "ab": (sections.origin, sections.decisions, *_BELIEF, *_FORECASTS, *_CLOSER),
    "calibrate": (sections.origin, forecast_sections.bands, forecast_sections.skills),
}


def write_report(metrics: Metrics, path: Path) -> None:
    """Raises ConfigurationError where the `eval` extra is not installed."""
    path.write_text(_page(metrics, _plotly()), encoding="utf-8")


def _plotly() -> Markup:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise ConfigurationError(
            f'a report needs plotly ({error}): pip install "llm-trader-rag[eval]"'
        ) from error
    return Markup(_offline(get_plotlyjs()))


def _offline(script: str) -> str:
    """Without the addresses of map tiles, fonts and outlines; those in licences stay."""
    return _ADDRESS.sub(r"\1about:invalid", script)


def _page(metrics: Metrics, plotly: Markup) -> Markup:
    why = prose.distrust(metrics)
    strip = f"✗ {prose.DISTRUST}: {counted(len(why), 'check')} failed"
    symbols = listed(metrics.origin.symbols)
    verdict = "NOT TRUSTWORTHY" if why else capital(prose.verdict(metrics))
    about = prose.DISTRUST if why else prose.headline(metrics)
    span = f"{moment(metrics.origin.start)} to {moment(metrics.origin.end)}"
    drawn = [element("script", plotly), element("script", _resource("report.js"))]
    return join(
        [
            Markup('<!doctype html><html lang="en"><head><meta charset="utf-8">'),
            Markup(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
            Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
            Markup(f'<meta name="description" content="{escape(f"{about}. {symbols}, {span}.")}">'),
            element("title", f"{verdict}: {prose.subject(metrics)}"),
            element("style", _resource("report.css")),
            Markup("</head><body>"),
            element(
                "main",
                element("p", strip, kind="strip") if why else Markup(),
                _top(metrics, why, span),
                *(one(metrics) for one in _SECTIONS[metrics.command]),
            ),
            *drawn,
            Markup("</body></html>\n"),
        ]
    )


def _top(metrics: Metrics, why: list[str], span: str) -> Markup:
    name = f"{capital(prose.subject(metrics))}, {span}"
    said = [element("p", reading) for reading in metrics.readings]
    headline = prose.headline(metrics)
    if why:
        listing = element("ul", *(element("li", reason) for reason in why))
        warning = element("p", "Whatever is said below, do not act on it. These failed:")
        alarm = element("div", element("h1", prose.DISTRUST), warning, listing, kind="alarm")
        void = element("h2", f"It would have said: “{headline}.”")
        verdict = join([alarm, element("div", void, *said, kind="void")])
    else:
        sign = element("p", badge(metrics.verdict, prose.verdict(metrics)))
        verdict = element("div", sign, element("h1", f"{headline}."), *said, kind="verdict")
    gaps = [element("p", gap) for gap in prose.unchecked(metrics)]
    caution = element("div", *gaps, kind="caution") if gaps else Markup()
    return element("header", element("p", name, kind="name"), verdict, caution)


def _resource(name: str) -> Markup:
    text = files("llm_trader.evaluation.report").joinpath(name).read_text(encoding="utf-8")
    return Markup(text)
