"""The files of the page, and the reports of evaluations, each with its own policy of content."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

from llm_trader.rpc.http.app import ServedFile

REPORT: Final = "report.html"
_INDEX: Final = "index.html"
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
}
# Licences and notices go with the libraries, so they are served, too.
_OTHER_TYPE: Final = "text/plain; charset=utf-8"
# The rules that lightweight-charts adds for its logo, which its licence asks to be shown.
_LOGO_RULES: Final = (
    "a#tv-attr-logo{--fill:#131722;--stroke:#fff;position:absolute;left:10px;bottom:10px;"
    "height:19px;width:35px;margin:0;padding:0;border:0;z-index:3;}"
    "a#tv-attr-logo[data-dark]{--fill:#D1D4DC;--stroke:#131722;}"
)
_SHARED: Final = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    # The browser asks each time, and gets 304 unless the server was updated.
    "cache-control": "no-cache",
}


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


# Only its own files run, and it talks to its own server alone.
PAGE_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        f"style-src 'self' {_source(_LOGO_RULES)}",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
# A report holds its scripts itself. In a sandbox it has no origin, so that it can ask for nothing.
REPORT_POLICY: Final = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'unsafe-inline'; img-src data: blob:; worker-src blob:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


class PageFiles:
    """The files of the page, read once: some 400 KB."""

    def __init__(self) -> None:
        self.files: Mapping[str, ServedFile] = dict(_read(files(__package__) / "static", ""))

    async def index(self, name: str) -> ServedFile | None:
        return self.files[_INDEX]

    async def find(self, name: str) -> ServedFile | None:
        return self.files.get(name)


def _read(folder: Traversable, prefix: str) -> list[tuple[str, ServedFile]]:
    found = []
    for entry in folder.iterdir():
        name = prefix + entry.name
        if entry.is_dir():
            found += _read(entry, f"{name}/")
        else:
            found.append((name, served(name, entry.read_bytes(), PAGE_POLICY)))
    return found


def served(name: str, content: bytes, policy: str) -> ServedFile:
    etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    headers = {**_SHARED, "content-security-policy": policy, "etag": etag}
    return ServedFile(content, _TYPES.get(Path(name).suffix, _OTHER_TYPE), headers)


class ReportFiles:
    """The pages of evaluations in a folder, by the names that `rag.list_evaluations` gives."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def find(self, name: str) -> ServedFile | None:
        content = await asyncio.to_thread(self._content, name)
        return None if content is None else served(REPORT, content, REPORT_POLICY)

    def _content(self, name: str) -> bytes | None:
        folder = self._folder.resolve()
        path = (folder / name / REPORT).resolve()
        # A name may hold `..`, and a folder a link to elsewhere.
        if not path.is_relative_to(folder):
            return None
        try:
            return path.read_bytes()
        except (OSError, ValueError):
            return None
