"""HTML in pieces. Text is escaped where it is put in, unless it is `Markup` already."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any, Final

import msgspec

from llm_trader.evaluation.report.units import DASH, bounded
from llm_trader.evaluation.significance import Verdict
from llm_trader.retrieval.intervals import Interval

Chart = dict[str, Any]

_SIGNS: Final[dict[Verdict, str]] = {"better": "▲", "worse": "▼", "no evidence": "●"}


class Markup(str):
    """Text that is HTML, made here or by what is made here."""

    __slots__ = ()


def element(name: str, *children: str, kind: str = "", key: str = "") -> Markup:
    """`kind` is the class attribute, `key` the id."""
    attributes = "".join(
        f' {attribute}="{escape(value)}"'
        for attribute, value in (("class", kind), ("id", key))
        if value
    )
    return Markup(f"<{name}{attributes}>{join(children)}</{name}>")


def join(pieces: Sequence[str]) -> Markup:
    return Markup("".join(one if isinstance(one, Markup) else escape(one) for one in pieces))


def section(key: str, title: str, reading: str, *body: Markup) -> Markup:
    heading, said = element("h2", title), element("p", reading, kind="reading")
    return element("section", heading, said, *body, key=key)


def note(text: str) -> Markup:
    return element("p", text, kind="note")


def grid(pieces: Sequence[Markup]) -> Markup:
    """Two beside each other where the screen is wide enough."""
    return element("div", *pieces, kind="grid") if pieces else Markup()


def table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> Markup:
    """Rows of cells, the first of which names its row. Nothing at all where there are no rows."""
    if not rows:
        return Markup()
    heads = [Markup(f'<th scope="col">{join([cell])}</th>') for cell in head]
    body = [
        element(
            "tr",
            Markup(f'<th scope="row">{join(row[:1])}</th>'),
            *(element("td", cell) for cell in row[1:]),
        )
        for row in rows
    ]
    whole = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", *heads)),
        element("tbody", *body),
    )
    # Wide tables scroll by themselves on a narrow screen, and by keyboard.
    return Markup(f'<div class="scroll" tabindex="0">{whole}</div>')


def folded(summary: str, *body: Markup) -> Markup:
    return element("details", element("summary", summary), *body)


def figure(chart: Chart, caption: str) -> Markup:
    """A chart with its data beside it, drawn by `report.js` once the page is there."""
    data = msgspec.json.encode(chart).decode().replace("<", "\\u003c")
    height = int(chart["layout"]["height"])
    return Markup(
        f'<figure class="chart"><figcaption>{escape(caption)}</figcaption>'
        f'<script type="application/json">{data}</script>'
        f'<div class="drawing" role="img" aria-label="{escape(caption)}" '
        f'style="min-height:{height}px"></div>'
        "<noscript><p>This chart needs JavaScript.</p></noscript></figure>"
    )


def badge(verdict: Verdict | None, word: str = "") -> Markup:
    """A verdict as a word with a sign, so that it does not rest on colour."""
    if verdict is None:
        return Markup(DASH)
    return element(
        "span", f"{_SIGNS[verdict]} {word or verdict}", kind=f"badge {verdict.split()[0]}"
    )


def judged(verdict: Verdict | None, interval: Interval | None) -> str:
    """Where there is no interval, "no evidence" would sound like a result."""
    if interval is not None and not bounded(interval):
        return "too little data"
    return badge(verdict)


def cell(verdict: Verdict | None, value: str, bounds: str) -> Markup:
    """An estimate above its interval, with a sign where it is beyond chance."""
    if verdict in ("better", "worse"):
        shown = element("span", f"{_SIGNS[verdict]} {value}", kind=f"badge {verdict}")
    else:
        shown = element("span", value, kind="plain")
    return join([shown, element("small", bounds)])


def passed(good: bool, word: str) -> Markup:
    return element("span", f"{'✓' if good else '✗'} {word}", kind=f"badge {_OUTCOME[good]}")


_OUTCOME: Final = {True: "passed", False: "failed"}
