"""The settings of a running server are read again."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from llm_trader.app.job import Job
from llm_trader.app.keys import create_key
from llm_trader.app.reloading import SettingsFile, follow_settings
from llm_trader.app.server import ServerParts, server_parts
from llm_trader.rpc.client import RpcClient, RpcError
from llm_trader.settings.loading import load_settings
from tests.cli.corridor import AT_MS, SYMBOL, Corridor
from tests.rpc.stub import until

QUERY = {"symbol": SYMBOL, "timestamp": AT_MS}


pytestmark = pytest.mark.usefixtures("restored_logging")


class Running(NamedTuple):
    parts: ServerParts
    client: RpcClient
    file: SettingsFile
    toml: Path


@asynccontextmanager
async def running(corridor: Corridor, folder: Path, text: str = "") -> AsyncIterator[Running]:
    """A server whose settings come from a file."""
    toml = folder / "settings.toml"
    toml.write_text(text)
    overrides = {"market.store": corridor.store, "index.path": corridor.index, "serving.port": 0}
    read = partial(load_settings, toml, environ={}, overrides=overrides)
    async with server_parts(read(), {}, lambda: AT_MS) as parts:
        file = SettingsFile(read(), read, lambda: AT_MS)
        follow_settings(parts, file)
        await parts.server.start()
        try:
            async with await RpcClient.connect(*parts.server.address) as client:
                yield Running(parts, client, file, toml)
        finally:
            asyncio.get_running_loop().remove_signal_handler(signal.SIGHUP)
            await parts.server.stop()


def keys(changes: list[dict[str, Any]]) -> list[str]:
    return [change["key"] for change in changes]


async def test_limits_and_defaults_hold_at_once_and_the_rest_is_listed(
    corridor: Corridor, tmp_path: Path
) -> None:
    async with running(corridor, tmp_path) as it:
        assert len((await it.client.call("rag.query_patterns", QUERY))["matches"]) == 5
        it.toml.write_text(
            "[retrieval]\ntop_k = 7\n[serving]\nrate_limit_per_s = 0.001\nrate_burst = 2\n"
            "metrics = false\nworkers = 2\n[logging]\nlevel = 'error'\n[ingest]\nbatch_days = 3\n"
        )
        reloaded = await it.client.call("admin.reload")
        assert sorted(keys(reloaded["applied"])) == [
            *("logging.level", "retrieval.top_k"),
            *("serving.rate_burst", "serving.rate_limit_per_s"),
        ]
        assert sorted(keys(reloaded["needs_restart"])) == ["serving.metrics", "serving.workers"]
        assert reloaded["restarting"] == []
        assert len((await it.client.call("rag.query_patterns", QUERY))["matches"]) == 7
        assert logging.getLogger("llm_trader").level == logging.ERROR
        await it.client.call("rpc.ping")
        with pytest.raises(RpcError, match="rate limited"):
            await it.client.call("rpc.ping")


async def test_what_needs_a_restart_is_listed_until_then(
    corridor: Corridor, tmp_path: Path
) -> None:
    async with running(corridor, tmp_path) as it:
        it.toml.write_text("[serving]\nmetrics = false\n")
        for _ in range(2):
            reloaded = await it.client.call("admin.reload")
            assert keys(reloaded["needs_restart"]) == ["serving.metrics"]
            assert reloaded["applied"] == []


async def test_a_bad_file_changes_nothing_and_all_its_mistakes_are_named(
    corridor: Corridor, tmp_path: Path
) -> None:
    async with running(corridor, tmp_path) as it:
        before = it.file.in_use
        it.toml.write_text("[retrieval]\ntop_k = 99\nlookback = 3\n[serving]\nmin_matches = 0\n")
        with pytest.raises(RpcError) as raised:
            await it.client.call("admin.reload")
        problems = raised.value.details["data"]["problems"]
        assert len(problems) == 2
        assert "retrieval.top_k = 99" in problems[0]
        assert "retrieval.lookback" in problems[1]
        assert "those from before stay in use" in raised.value.message
        assert it.file.in_use is before
        assert len((await it.client.call("rag.query_patterns", QUERY))["matches"]) == 5


async def test_bad_files_that_the_settings_name_change_nothing_and_all_are_named(
    corridor: Corridor, tmp_path: Path
) -> None:
    broken = tmp_path / "calibration.json"
    broken.write_text("{")
    async with running(corridor, tmp_path) as it:
        it.toml.write_text(
            f"[retrieval]\ntop_k = 7\ncalibration = '{broken}'\n"
            f"[serving]\nkeys_file = '{tmp_path / 'no.json'}'\n"
            f"tls_certificate = '{tmp_path / 'no.pem'}'\n"
        )
        with pytest.raises(RpcError) as raised:
            await it.client.call("admin.reload")
        problems = raised.value.details["data"]["problems"]
        assert ["no.json" in problems[0], "no.pem" in problems[1]] == [True, True]
        assert "calibration.json" in problems[2]
        assert len((await it.client.call("rag.query_patterns", QUERY))["matches"]) == 5


async def test_a_hang_up_reloads(corridor: Corridor, tmp_path: Path) -> None:
    async with running(corridor, tmp_path) as it:
        it.toml.write_text("[retrieval]\ntop_k = 3\n")
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: it.file.in_use.retrieval.top_k == 3)
        assert len((await it.client.call("rag.query_patterns", QUERY))["matches"]) == 3
        it.toml.write_text("[retrieval\n")
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.sleep(0.05)
        assert len((await it.client.call("rag.query_patterns", QUERY))["matches"]) == 3


async def test_keys_are_read_again_and_only_those_with_the_scope_admin_reload(
    corridor: Corridor, tmp_path: Path
) -> None:
    path = tmp_path / "keys.json"
    settings = load_settings(environ={}, overrides={"serving.keys_file": path})
    job = Job(settings, {}, AT_MS)
    desk, admin = (create_key(job, scope, [scope], None).token for scope in ("query", "admin"))
    async with running(corridor, tmp_path, f"[serving]\nkeys_file = '{path}'\n") as it:
        with pytest.raises(RpcError, match="scope admin"):
            await it.client.call("admin.reload", {"_meta": {"token": desk}})
        late = create_key(job, "late", ["admin"], None).token
        reloaded = await it.client.call("admin.reload", {"_meta": {"token": admin}})
        assert reloaded["files"] == [str(path)]
        await it.client.call("admin.reload", {"_meta": {"token": late}})


async def test_new_connections_get_the_new_limits_and_open_ones_stay(
    corridor: Corridor, tmp_path: Path
) -> None:
    async with running(corridor, tmp_path) as it:
        it.toml.write_text("[serving]\nmax_connections = 1\n")
        await it.client.call("admin.reload")
        await it.client.call("rpc.ping")
        with pytest.raises(RpcError, match="1 connections are open"):
            async with await RpcClient.connect(*it.parts.server.address) as second:
                await second.call("rpc.ping")
