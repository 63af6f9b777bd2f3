"""The page in a real Chromium: `python -m benchmarks.page`, after `make test-page` has set it up.

It stands beside `make demo-page`, whose market goes on, so that open pages ask for new candles and
get new evidence. The first paint has nothing in the browser's cache.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.timing import Figure

_DEMO = "from llm_trader.cli.main import main; main()"
_PAGES, _ROUNDS = 20, 7
# Over a quarter-hour, in which new evidence comes once and new candles five times.
_WATCHED_S = 900.0
_PAINTED = "performance.getEntriesByName('first-contentful-paint')[0].startTime"


def main() -> None:
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium")
    if program is None:
        sys.exit("there is no chromium on the PATH")
    watched_s = float(sys.argv[1]) if len(sys.argv) > 1 else _WATCHED_S
    with _demo() as (address, server), sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        figures = [*_paint(chromium, address), _open_pages(chromium, address, server, watched_s)]
        chromium.close()
    table = Table("figure", "measured", "target", "")
    for name, measured, target, reached in figures:
        table.add_row(name, measured, target, "reached" if reached else "short")
    Console().print(table)


@contextmanager
def _demo() -> Iterator[tuple[str, psutil.Process]]:
    command = [sys.executable, "-c", _DEMO, "demo", "--page", "--http-port", "0"]
    with subprocess.Popen(
        [sys.executable, "-u", *command[1:]], stdout=subprocess.PIPE, text=True
    ) as demo:
        try:
            found = None
            while found is None and demo.stdout is not None:
                found = re.search(r"http://\S+", demo.stdout.readline())
            (server,) = psutil.Process(demo.pid).children()
            yield found[0] if found else "", server
        finally:
            demo.terminate()


def _paint(chromium: Any, address: str) -> list[Figure]:
    painted, drawn = [], []
    for _ in range(_ROUNDS):
        context = chromium.new_context(viewport={"width": 1280, "height": 900})
        page = context.new_page()
        started_s = time.perf_counter()
        page.goto(address)
        page.locator(".chart canvas").first.wait_for()
        drawn.append(time.perf_counter() - started_s)
        painted.append(page.evaluate(_PAINTED) / 1000)
        context.close()
    return [
        Figure("first paint, median, s", f"{median(painted):.2f}", "1", median(painted) < 1),
        Figure(
            "until the answer is drawn, median, s", f"{median(drawn):.2f}", "10", max(drawn) < 10
        ),
    ]


def _open_pages(chromium: Any, address: str, server: psutil.Process, watched_s: float) -> Figure:
    pages = [chromium.new_page() for _ in range(_PAGES)]
    for page in pages:
        page.goto(address)
        page.locator(".chart canvas").first.wait_for()
    time.sleep(5)
    before, started_s = sum(server.cpu_times()[:2]), time.monotonic()
    end_s = started_s + watched_s
    while time.monotonic() < end_s:
        pages[0].wait_for_timeout(1000)
    used = (sum(server.cpu_times()[:2]) - before) / (time.monotonic() - started_s)
    return Figure(
        f"{_PAGES} open pages for {watched_s:.0f} s: CPU of the server, % of a core",
        f"{100 * used:.2f}",
        "5",
        used < 0.05,
    )


if __name__ == "__main__":
    main()
