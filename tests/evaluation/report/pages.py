"""Reading a written report as a reader without JavaScript, and as a strict parser."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from llm_trader.evaluation.report.page import write_report
from llm_trader.evaluation.results import Metrics

_VOID = {"meta", "br", "img", "input", "hr", "link"}


class Page(HTMLParser):
    """What a reader without JavaScript sees, and what a browser would be told to load.

    Raises where a tag is closed that is not the innermost open one.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.scripts: list[str] = []
        self.rows: list[list[str]] = []
        self._words: list[str] = []
        self.feed(html)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self._words).split())

    @property
    def top(self) -> str:
        return self.text[: self.text.index("What was evaluated")]

    @property
    def sections(self) -> list[str | None]:
        return [attributes["id"] for tag, attributes in self.tags if tag == "section"]

    @property
    def charts(self) -> list[dict[str, Any]]:
        return [json.loads(script) for script in self.scripts if script.startswith('{"data":')]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        innermost = self.open[-1] if self.open else ""
        if innermost == "script":
            self.scripts.append(data)
        elif innermost != "style":
            self._words.append(data)
            if "tr" in self.open:
                self.rows[-1][-1] += data


# Half of the tests read the same page, which takes a tenth of a second to write and to parse.
_pages: dict[str, Page] = {}


def page_of(metrics: Metrics, folder: Path) -> Page:
    written = repr(metrics)
    if written not in _pages:
        write_report(metrics, folder / "report.html")
        _pages[written] = Page((folder / "report.html").read_text(encoding="utf-8"))
    return _pages[written]
