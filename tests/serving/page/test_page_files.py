"""The page over HTTP: its files, what they may do in a browser, and who gets what."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from llm_trader.app.server import query_server
from tests.cli.corridor import Corridor
from tests.rpc.http.raw import Connection, http

STATIC = Path(str(files("llm_trader.serving.page") / "static"))
KEY = "a-key-of-the-tests"
NAMES = [path.relative_to(STATIC).as_posix() for path in STATIC.rglob("*") if path.is_file()]
MOST_BYTES = 400_000


@asynccontextmanager
async def visited(
    corridor: Corridor, environ: dict[str, str] | None = None, **overrides: Any
) -> AsyncIterator[Connection]:
    settings = corridor.settings(environ, **overrides)
    async with query_server(settings, environ or {}) as server:
        await server.start()
        try:
            assert server.http_address is not None
            async with http(server.http_address) as connection:
                yield connection
        finally:
            await server.stop()


def test_all_files_together_stay_under_400_kb() -> None:
    assert sum((STATIC / name).stat().st_size for name in NAMES) < MOST_BYTES


def test_the_libraries_are_those_of_the_manifest() -> None:
    folder = STATIC / "vendor"
    manifest = json.loads((folder / "manifest.json").read_text())
    digests = {name: digest for library in manifest for name, digest in library["sha256"].items()}
    found = {path.name for path in folder.iterdir()} - {"manifest.json"}
    assert found == set(digests)
    for name, digest in digests.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name
    versions = {library["name"]: library["version"] for library in manifest}
    assert versions == {"lightweight-charts": "5.2.1", "uplot": "1.6.32"}
    assert f"v{versions['lightweight-charts']}" in (folder / "lightweight-charts.mjs").read_text()
    assert f"v{versions['uplot']}" in (folder / "uplot.js").read_text()


def test_nothing_comes_from_another_place_and_nothing_is_inline() -> None:
    index = (STATIC / "index.html").read_text()
    loaded = re.findall(r'(?:src|<link[^>]*href)="([^"]+)"', index)
    assert loaded
    assert all(address.startswith("/page/") for address in loaded)
    assert not re.search(r"<style|<script>|\sstyle=|\son[a-z]+=", index)
    # The address in it is the name of a namespace.
    elsewhere = re.compile(r"innerHTML|eval\(|https?://(?!www\.w3\.org/2000/svg)")
    assert not [path.name for path in STATIC.glob("*.js") if elsewhere.search(path.read_text())]


async def test_every_file_is_served_with_a_strict_policy(corridor: Corridor) -> None:
    async with visited(corridor) as client:
        index = await client.get("/")
        assert (index.status, index.headers["content-type"]) == (200, "text/html; charset=utf-8")
        for name in NAMES:
            reply = await client.get(f"/page/{name}")
            assert reply.status == 200, name
            assert (
                hashlib.sha256(reply.body).digest()
                == hashlib.sha256((STATIC / name).read_bytes()).digest()
            )
            policy = reply.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert reply.headers["x-content-type-options"] == "nosniff"
        script = await client.get("/page/main.js")
        assert script.headers["content-type"].startswith("text/javascript")
        again = await client.get("/page/main.js", If_None_Match=script.headers["etag"])
        assert (again.status, again.body) == (304, b"")


@pytest.mark.parametrize(
    "path", ["/page/none.js", "/page/../files.py", "/page/%2e%2e/files.py", "/page/"]
)
async def test_only_the_files_of_the_page_are_served(corridor: Corridor, path: str) -> None:
    async with visited(corridor) as client:
        assert (await client.get(path)).status == 404


async def test_other_hosts_and_origins_are_refused_as_everywhere(corridor: Corridor) -> None:
    async with visited(corridor) as client:
        assert (await client.get("/", Host="evil.example")).status == 421
    async with visited(corridor) as client:
        assert (await client.get("/", Origin="https://evil.example")).status == 403


async def test_a_server_with_keys_shows_the_page_and_no_data(
    corridor: Corridor, tmp_path: Path
) -> None:
    report(tmp_path)
    environ = {"TOKENS": KEY}
    overrides = {"serving__auth_tokens_env": "TOKENS", "serving__reports": tmp_path}
    async with visited(corridor, environ, **overrides) as client:
        assert (await client.get("/")).status == 200
        first = (await client.get("/page/settings")).json
        assert first["keys_required"] is True
        assert str(corridor.store) not in json.dumps(first)
        readiness = (await client.get("/page/readiness")).json
        assert list(readiness) == ["ready"]
        assert (await client.get("/reports/autumn")).status == 401
        key = {"Authorization": f"Bearer {KEY}"}
        assert (await client.get("/reports/autumn", **key)).status == 200
        assert (await client.call("rag.list_evaluations")).json["error"]["code"] == -32010


async def test_it_is_off_where_other_machines_could_see_it_until_it_is_set(
    corridor: Corridor,
) -> None:
    remote = {"serving__host": "0.0.0.0", "serving__allow_unauthenticated_remote": True}
    async with visited(corridor, **remote) as client:
        assert (await client.get("/")).status == 404
    async with visited(corridor, **remote, serving__page=True) as client:
        assert (await client.get("/")).status == 200
    async with visited(corridor, serving__page=False) as client:
        assert (await client.get("/page/main.js")).status == 404


def report(folder: Path) -> None:
    (folder / "autumn").mkdir()
    (folder / "autumn" / "report.html").write_text("<p>Report</p>")


async def test_reports_are_shown_in_a_sandbox_and_nothing_beside_them(
    corridor: Corridor, tmp_path: Path
) -> None:
    reports = tmp_path / "reports"
    reports.mkdir()
    report(reports)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "report.html").write_text("secret")
    (reports / "link").symlink_to(outside)
    async with visited(corridor, serving__reports=reports) as client:
        shown = await client.get("/reports/autumn")
        assert shown.body == b"<p>Report</p>"
        policy = shown.headers["content-security-policy"]
        assert policy.startswith("sandbox allow-scripts; default-src 'none'")
        assert "allow-same-origin" not in policy
        for path in ("/reports/..%2Foutside", "/reports/../outside", "/reports/link", "/reports/x"):
            assert (await client.get(path)).status == 404, path
