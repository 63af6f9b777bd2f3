"""A real Chromium, and servers of real market data for it."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from llm_trader.app.ingestion import ingest_from_store
from llm_trader.app.job import Job
from llm_trader.app.market_data import written_store
from llm_trader.market.file_import import import_folder
from llm_trader.settings.loading import load_settings
from llm_trader.timeframe import DAY_MS, Millis, parse_rfc3339
from tests.cli.corridor import Corridor
from tests.serving.server_process import Server, server_of

SHOTS = Path(__file__).resolve().parents[4] / "build" / "page"
AT = "2026-03-20T12:00Z"
AT_MS: Millis = parse_rfc3339("2026-03-20T12:00:00Z")
END_MS: Millis = parse_rfc3339("2026-04-01T00:00:00Z")
_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def browser(real: Corridor, corridor: Corridor) -> Iterator[Any]:
    """After the indexes, as Playwright has an event loop of this thread from then on."""
    program = next(filter(None, map(shutil.which, _PROGRAMS)), None)
    if program is None:
        pytest.skip("there is no Chromium on the PATH; apt-get install chromium")
    api = pytest.importorskip("playwright.sync_api", reason="make test-page installs Playwright")
    with api.sync_playwright() as playwright:
        # Containers run tests as root, where Chromium's own sandbox does not work.
        chromium = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@dataclass
class Visit:
    """A tab, and what went wrong in it."""

    page: Any
    server: Server
    errors: list[str] = field(default_factory=list)
    requests: list[Any] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.http_port}"

    def open(self, view: str = "now") -> Visit:
        self.page.goto(f"{self.address}/#{view}")
        return self

    def see(self, text: str, timeout_s: float = 20) -> None:
        self.page.get_by_text(text).first.wait_for(timeout=1000 * timeout_s)

    def calls(self) -> list[dict[str, Any]]:
        """The calls that the page has sent over HTTP, in their order."""
        documents = [r.post_data_json for r in self.requests if r.url.endswith("/rpc")]
        return [c for d in documents for c in (d if isinstance(d, list) else [d])]

    def rows(self, label: str) -> list[list[str]]:
        """The cells of a table, by the beginning of its name."""
        found = self.page.locator(f"[aria-label^='{label}'] tbody tr").all_inner_texts()
        return [row.split("\t") for row in found]

    def serious(self) -> list[str]:
        """What axe-core finds that keeps people out."""
        from axe_playwright_python.sync_playwright import Axe

        # It is put into the page by the driver, so the page's own policy does not refuse it.
        found = Axe().run(self.page).response["violations"]
        return [
            f"{violation['id']}: {node['html'][:120]} {node.get('failureSummary', '')}"
            for violation in found
            if violation["impact"] in ("serious", "critical")
            for node in violation["nodes"]
        ]


@pytest.fixture
def visit(browser: Any) -> Iterator[Any]:
    with ExitStack() as opened:

        def start(server: Server, *, width: int = 1280, scheme: str = "light") -> Visit:
            size = {"width": width, "height": 900}
            context = browser.new_context(viewport=size, color_scheme=scheme)
            opened.callback(context.close)
            page = context.new_page()
            page.set_default_timeout(20_000)
            made = Visit(page, server)
            page.on("pageerror", lambda error: made.errors.append(str(error)))
            page.on("console", lambda m: m.type == "error" and made.errors.append(m.text))
            page.on("request", lambda request: made.requests.append(request))
            return made

        yield start


@pytest.fixture(scope="session")
def real(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Corridor:
    """Bybit's BTC and ETH of half a year, imported and indexed."""
    folder = tmp_path_factory.mktemp("real")
    files = folder / "files"
    files.mkdir()
    for path in (real_data / "bybit_5m_2025-09_2026-03").iterdir():
        if "SOL" not in path.name:
            (files / path.name).symlink_to(path)
    corridor = Corridor(folder / "market", folder / "index", {})
    job = Job(load_settings(environ={}, overrides=_places(corridor)), {}, END_MS)
    with written_store(job.settings.market, "bybit") as store:
        import_folder(files, store, exchange="bybit", written_at_ms=END_MS)
    ingest_from_store(job, [], END_MS - 120 * DAY_MS, END_MS)
    return corridor


def _places(corridor: Corridor) -> dict[str, Any]:
    return {"market.store": corridor.store, "index.path": corridor.index}


@pytest.fixture(scope="session")
def serving(real: Corridor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests that only look."""
    folder = tmp_path_factory.mktemp("beside")
    with server_of(real, "--http-port", "0", settings=beside(folder)) as server:
        yield server


def beside(folder: Path) -> dict[str, str]:
    return {
        "LLM_TRADER_DECISIONS__RECORD": str(folder / "decisions"),
        "LLM_TRADER_SERVING__REPORTS": str(folder / "reports"),
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
