"""A parent and its workers, as real processes under load."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.app.workers.fleet import (
    QUERY,
    Fleet,
    Load,
    call,
    command_of,
    ended,
    fetched,
    fleet_of,
    metric,
)
from tests.cli.corridor import Corridor, until
from tests.processes import run
from tests.rpc.http import raw


@pytest.fixture(scope="module")
def fleet(corridor: Corridor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet_of(corridor, tmp_path_factory.mktemp("fleet")) as fleet:
        yield fleet


async def test_metrics_and_stats_are_those_of_all_workers(fleet: Fleet) -> None:
    before = await fetched(fleet, "/metrics")
    name, labels = "llm_trader_requests_total", {"method": "rag.query_patterns"}
    answered = (await call(fleet, "rag.stats"))["result"]["queries_answered"]
    replies = await asyncio.gather(*(call(fleet, "rag.query_patterns", QUERY) for _ in range(40)))
    assert all("result" in reply for reply in replies)
    after = await fetched(fleet, "/metrics")
    earlier = metric(before, name, **labels) if b"query_patterns" in before else 0
    assert metric(after, name, **labels) - earlier == 40
    assert metric(after, "llm_trader_workers") == 2
    stats = (await call(fleet, "rag.stats"))["result"]
    assert stats["queries_answered"] - answered == 40
    assert stats["workers"] == 2
    # Both have answered: each has made the base rates for itself.
    assert metric(after, "llm_trader_cache_requests_total", cache="base_rates", result="miss") == 2


async def test_readiness_says_how_many_workers_serve(fleet: Fleet) -> None:
    checks = json.loads(await fetched(fleet, "/readyz"))["checks"]
    assert checks["workers"] == {"ok": True, "reason": "2 of 2 serve"}


async def test_a_killed_worker_takes_only_its_own_connections_along_and_is_replaced(
    fleet: Fleet,
) -> None:
    await fetched(fleet, "/metrics")  # a report is made of all that was counted so far
    before = (await call(fleet, "rag.stats"))["result"]["queries_answered"]
    victim = fleet.workers()[0]
    load = Load(fleet)
    running = asyncio.create_task(load.run())
    await asyncio.sleep(0.3)
    victim.kill()
    seen_at_death = sum(load.answered.values())
    await asyncio.to_thread(fleet.wait_for, "worker_restarted")
    await asyncio.sleep(0.2)
    load.stopped = True
    await asyncio.wait_for(running, 20)
    # Each of the six clients lost at most the one request that it had sent.
    assert len(load.failures) <= 6
    assert all("closed" in f or "Connection" in f or "Reset" in f for f in load.failures)
    assert sum(load.answered.values()) > seen_at_death
    assert len({w.pid for w in fleet.workers()} - {victim.pid}) == 2
    text = await fetched(fleet, "/metrics")
    assert metric(text, "llm_trader_worker_restarts_total") == 1
    assert metric(text, "llm_trader_workers") == 2
    # Counters do not fall when a worker dies.
    assert (await call(fleet, "rag.stats"))["result"]["queries_answered"] >= before


async def test_a_reload_replaces_the_workers_without_a_failed_request(fleet: Fleet) -> None:
    pids = {worker.pid for worker in fleet.workers()}
    load = Load(fleet)
    running = asyncio.create_task(load.run())
    await asyncio.sleep(0.1)
    fleet.toml.write_text("[retrieval]\ntop_k = 4\n[serving]\nworkers = 3\nhttp_port = 1\n")
    mistaken = await call(fleet, "admin.reload")  # flags override the file: workers stays 2
    assert [c["key"] for c in mistaken["result"]["needs_restart"]] == ["serving.http_port"]
    fleet.toml.write_text("[retrieval]\ntop_k = 4\n[market]\nmap_size_mib = 512\n")
    fleet.process.send_signal(signal.SIGHUP)
    await asyncio.to_thread(fleet.wait_for, "workers_replaced")
    await asyncio.sleep(0.1)
    load.stopped = True
    await asyncio.wait_for(running, 20)
    assert load.failures == []
    assert set(load.answered) == {"tcp", "tcp, slowly", "a connection each", "http"}
    assert not pids & {worker.pid for worker in fleet.workers()}
    told = fleet.seen("settings_reloaded")
    assert told[0]["applied"] == ["retrieval.top_k = 4"]
    assert told[1]["restarting_workers_for"] == ["market.map_size_mib"]
    replies = await asyncio.gather(*(call(fleet, "rag.query_patterns", QUERY) for _ in range(8)))
    assert {len(reply["result"]["matches"]) for reply in replies} == {4}


async def test_a_bad_reload_leaves_all_workers_as_they_are(fleet: Fleet) -> None:
    pids = {worker.pid for worker in fleet.workers()}
    before = len((await call(fleet, "rag.query_patterns", QUERY))["result"]["matches"])
    fleet.toml.write_text("[retrieval]\ntop_k = 99\nlookback = 1\n")
    reply = await call(fleet, "admin.reload")
    assert len(reply["error"]["data"]["problems"]) == 2
    assert len(fleet.seen("settings_not_reloaded")) == 1
    replies = await asyncio.gather(*(call(fleet, "rag.query_patterns", QUERY) for _ in range(8)))
    assert {len(reply["result"]["matches"]) for reply in replies} == {before}
    assert pids == {worker.pid for worker in fleet.workers()}


async def test_a_worker_that_hangs_is_killed_and_replaced_and_no_new_connection_fails(
    fleet: Fleet,
) -> None:
    settings = "[retrieval]\ntop_k = 4\n[market]\nmap_size_mib = 512\n"
    fleet.toml.write_text(f"{settings}[serving]\nworker_timeout_s = 2\n")
    reloaded = (await call(fleet, "admin.reload"))["result"]
    assert [change["key"] for change in reloaded["applied"]] == ["serving.worker_timeout_s"]
    restarts = len(fleet.seen("worker_restarted"))
    victim, other = fleet.workers()
    victim.suspend()
    # Some are dealt to the hung one, and wait until another accepts for its slot.
    replies = await asyncio.gather(*(call(fleet, "rag.query_patterns", QUERY) for _ in range(12)))
    assert all("result" in reply for reply in replies)
    # What is reloaded while a worker starts holds in it as well.
    assert until(lambda: len({w.pid for w in fleet.workers()} - {victim.pid}) == 2, 10)
    fleet.toml.write_text(settings.replace("top_k = 4", "top_k = 3"))
    assert "result" in await call(fleet, "admin.reload")
    assert len(fleet.seen("worker_restarted")) == restarts
    await asyncio.to_thread(fleet.wait_for, "worker_restarted", restarts + 1)
    replies = await asyncio.gather(*(call(fleet, "rag.query_patterns", QUERY) for _ in range(12)))
    assert {len(reply["result"]["matches"]) for reply in replies} == {3}
    (hung,) = fleet.seen("worker_hung")
    assert (hung["pid"], hung["timeout_s"]) == (victim.pid, 2)
    pids = {worker.pid for worker in fleet.workers()}
    assert len(pids) == 2
    assert other.pid in pids
    assert victim.pid not in pids


async def test_a_termination_finishes_answers_of_all_workers_and_ends_with_zero(
    fleet: Fleet,
) -> None:
    """The last test of this module: it ends the server."""
    pids = [worker.pid for worker in fleet.workers()]
    batch = [raw.call("rag.query_patterns", QUERY, n) for n in range(20)]
    address = "127.0.0.1", fleet.port
    connections = [await asyncio.open_connection(*address, limit=1 << 24) for _ in range(4)]
    for _, writer in connections:
        writer.write(json.dumps(batch).encode() + b"\n")
    await asyncio.sleep(0.05)
    fleet.process.terminate()
    for reader, writer in connections:
        replies = json.loads(await asyncio.wait_for(reader.readline(), 20))
        assert len(replies) == 20
        codes = {reply.get("error", {}).get("code") for reply in replies}
        assert codes <= {None, -32000}  # those that had not begun are refused as draining
        writer.close()
    assert await asyncio.to_thread(fleet.process.wait, 20) == 0
    assert ended(pids, 1)
    assert fleet.seen("workers_stopped")


@pytest.mark.soak
def test_workers_end_when_their_parent_is_killed(corridor: Corridor, tmp_path: Path) -> None:
    with fleet_of(corridor, tmp_path, "--no-http") as fleet:
        pids = [worker.pid for worker in fleet.workers()]
        fleet.process.kill()
        assert ended(pids, 10)


@pytest.mark.soak
def test_a_worker_that_keeps_dying_is_restarted_ever_more_rarely_and_the_other_serves(
    corridor: Corridor, tmp_path: Path
) -> None:
    with fleet_of(corridor, tmp_path) as fleet:
        for times in range(1, 4):
            max(fleet.workers(), key=psutil.Process.create_time).kill()
            fleet.wait_for("worker_died", times)
            for _ in range(6):
                reply = asyncio.run(call(fleet, "rag.query_patterns", QUERY))
                assert "result" in reply
            fleet.wait_for("worker_restarted", times)
        assert until(lambda: len(fleet.workers()) == 2, 10)


def test_a_mistake_in_the_set_up_is_told_once_and_ends_with_code_2(
    corridor: Corridor, tmp_path: Path
) -> None:
    command = command_of(corridor, "--store", str(tmp_path / "nothing"))
    ran = run(command)
    assert ran.returncode == 2
    assert ran.stderr.count("there is no market store") == 1


@pytest.mark.soak
async def test_settings_with_which_no_worker_can_start_leave_the_old_workers_serving(
    corridor: Corridor, tmp_path: Path
) -> None:
    with fleet_of(corridor, tmp_path, "--no-http") as fleet:
        pids = {worker.pid for worker in fleet.workers()}
        fleet.toml.write_text("[retrieval]\nvector = 'text'\n")  # the index has no such vectors
        fleet.process.send_signal(signal.SIGHUP)
        await asyncio.to_thread(fleet.wait_for, "worker_not_replaced")
        assert until(lambda: {worker.pid for worker in fleet.workers()} == pids, 10)
        # A worker that dies now is started with the settings from before.
        fleet.workers()[0].kill()
        await asyncio.to_thread(fleet.wait_for, "worker_restarted")
        for _ in range(6):
            assert "result" in await call(fleet, "rag.query_patterns", QUERY)


@pytest.mark.soak
def test_a_termination_during_the_start_ends_at_once(corridor: Corridor) -> None:
    with subprocess.Popen(command_of(corridor), stderr=subprocess.PIPE) as process:
        parent = psutil.Process(process.pid)
        assert until(lambda: parent.children(), 30)
        pids = [child.pid for child in parent.children()]
        process.terminate()
        assert process.wait(10) == 0
        assert ended(pids, 1)
