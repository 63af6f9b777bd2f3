"""What a scrape of a running server shows: counters equal what was sent over real sockets."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_trader.market.absent_spans import Span
from llm_trader.market.refused_rows import RefusedSpan
from llm_trader.market.store import MarketStore
from llm_trader.market.stored_series import candles_of
from llm_trader.rpc.client import RpcClient
from llm_trader.rpc.server import RpcServer
from llm_trader.serving.methods import METHODS
from llm_trader.serving.metrics.definitions import DEFINITIONS
from llm_trader.snapshot.outcome import label_outcomes
from llm_trader.timeframe import DAY_MS, HORIZONS, HOUR_MS, M5
from tests.cli.corridor import AT_MS, END_MS, POINTS, QUARTER_MS, SYMBOL, SYMBOLS, Corridor, copied
from tests.rpc.http.raw import call, http
from tests.serving.metrics.scraping import Clock, Scrape, metrics_reply, running, scrape

LINES = {
    "ping": call("rpc.ping"),
    "query": call("rag.query_patterns", {"symbol": SYMBOL, "timestamp": AT_MS}),
    "wrong": call("rag.query_patterns", {"symbol": SYMBOL}),
    "stranger": call("rag.query_patterns", {"symbol": "NOSUCH", "timestamp": AT_MS}),
    "unknown": call("no.such.method"),
    "other": [1],
    "notification": {"jsonrpc": "2.0", "method": "rpc.ping"},
    "batch": [call("rpc.ping"), call("no.such.method"), 7],
}
# What each of them adds: by method the number, and by method and code the errors.
REQUESTS = {
    "ping": {"rpc.ping": 1},
    "query": {"rag.query_patterns": 1},
    "wrong": {"rag.query_patterns": 1},
    "stranger": {"rag.query_patterns": 1},
    "unknown": {"unknown": 1},
    "other": {"none": 1},
    "notification": {"rpc.ping": 1},
    "batch": {"rpc.ping": 1, "unknown": 1, "none": 1},
}
ERRORS = {
    "wrong": {("rag.query_patterns", "-32602"): 1},
    "stranger": {("rag.query_patterns", "-32002"): 1},
    "unknown": {("unknown", "-32601"): 1},
    "other": {("none", "-32600"): 1},
    "batch": {("unknown", "-32601"): 1, ("none", "-32600"): 1},
}


async def send(server: RpcServer, lines: list[bytes]) -> list[Any]:
    """The replies to lines of one connection, after its end."""
    reader, writer = await asyncio.open_connection(*server.address, limit=1 << 24)
    writer.write(b"".join(line + b"\n" for line in lines))
    writer.write_eof()
    replies = await asyncio.wait_for(reader.read(), 30)
    writer.close()
    return [json.loads(line) for line in replies.splitlines()]


def counted(before: Scrape, after: Scrape, name: str, *labels: str) -> Counter[Any]:
    """What was added to a counter between two scrapes, by the values of its labels."""
    added: Counter[Any] = Counter()
    for (known, pairs), value in after.samples.items():
        if known == name:
            values = tuple(dict(pairs)[label] for label in labels)
            added[values if len(values) > 1 else values[0]] += int(
                value - before.samples.get((known, pairs), 0)
            )
    return +added


def total(parts: list[dict[Any, int]]) -> Counter[Any]:
    summed: Counter[Any] = Counter()
    for part in parts:
        summed.update(part)
    return summed


def test_counters_equal_what_was_sent_by_many_connections_at_once(corridor: Corridor) -> None:
    async def compare(server: RpcServer, kinds: list[list[str]]) -> None:
        before = await scrape(server)
        lines = [[json.dumps(LINES[kind]).encode() for kind in kind_list] for kind_list in kinds]
        await asyncio.gather(*(send(server, sent) for sent in lines))
        after = await scrape(server)
        sent = [kind for kind_list in kinds for kind in kind_list]
        expected = total([REQUESTS[kind] for kind in sent])
        name = "llm_trader_request_duration_seconds_count"
        assert counted(before, after, "llm_trader_requests_total", "method") == expected
        assert counted(before, after, name, "method") == expected
        errors = counted(before, after, "llm_trader_errors_total", "method", "code")
        assert errors == total([ERRORS.get(kind, {}) for kind in sent])
        answered = sum(kind == "query" for kind in sent)
        verdicts = counted(before, after, "llm_trader_verdicts_total", "verdict")
        assert sum(verdicts.values()) == answered
        name = "llm_trader_matches_count"
        assert after.value(name) - before.value(name) == answered
        refused = counted(before, after, "llm_trader_states_refused_total", "reason")
        assert refused["unknown_symbol"] == sum(kind == "stranger" for kind in sent)

    with asyncio.Runner() as runner:
        context = running(corridor)
        server = runner.run(context.__aenter__())
        kinds = st.lists(st.lists(st.sampled_from(list(LINES)), max_size=6), max_size=4)

        @settings(suppress_health_check=list(HealthCheck))
        @given(kinds)
        def holds(drawn: list[list[str]]) -> None:
            runner.run(compare(server, drawn))

        try:
            holds()
        finally:
            runner.run(context.__aexit__(None, None, None))


async def test_requests_over_http_are_counted_like_those_over_tcp(corridor: Corridor) -> None:
    async with running(corridor) as server:
        assert server.http_address is not None
        async with http(server.http_address) as client:
            for _ in range(3):
                await client.call("rpc.ping")
        seen = await scrape(server)
    assert seen.value("llm_trader_requests_total", method="rpc.ping") == 3


async def test_every_definition_is_shown_with_its_type_and_meaning(
    corridor: Corridor, tmp_path: Path
) -> None:
    clock = Clock(AT_MS)
    async with running(corridor, clock, forecasts__folder=tmp_path) as server:
        await send(server, [json.dumps(line).encode() for line in LINES.values()])
        clock.now_ms = AT_MS + 2 * DAY_MS
        seen = await scrape(server)
    # Without a calibration it has no age, and one process has no workers.
    absent = {
        "llm_trader_calibration_age_seconds",
        "llm_trader_workers",
        "llm_trader_worker_restarts_total",
    }
    for definition in DEFINITIONS:
        family = seen.families.get(definition.name.removesuffix("_total"))
        assert (family is None) == (definition.name in absent), definition.name
        if family is not None:
            assert (family.type, family.documentation) == (definition.kind, definition.meaning)
            for sample in family.samples:
                assert set(sample.labels) - {"le"} == set(definition.labels)
    others = {n for n in seen.families if not n.startswith(("llm_trader_", "process_"))}
    assert others == set()


async def test_promtool_finds_nothing_wrong(corridor: Corridor) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool on the PATH; Debian's package prometheus has it")
    async with running(corridor, Clock(AT_MS)) as server:
        await send(server, [json.dumps(line).encode() for line in LINES.values()])
        text = (await metrics_reply(server)).body
    check = [promtool, "check", "metrics"]
    done = await asyncio.to_thread(subprocess.run, check, input=text, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


HOSTILE = [
    "x" * 5000,
    'evil"} 1\nllm_trader_fake 1',
    "\x00\x1b[2J\\",
    "🦊" * 40,
    "rag.query_patterns\n",
    "",
    *(f"made.up.{n}" for n in range(300)),
]


async def test_the_number_of_series_is_bounded_whatever_clients_send(corridor: Corridor) -> None:
    async with running(corridor) as server:
        lines = [json.dumps(call(name)).encode() for name in HOSTILE]
        for name in HOSTILE[:20]:
            params = {"symbol": name, "timestamp": AT_MS, name[:50]: name}
            lines.append(json.dumps(call("rag.query_patterns", params)).encode())
            lines.append(json.dumps(call("rag.get_snapshot", params, name)).encode())
        lines += [b"{" + b"\xff" * 50, b"[]", b"nonsense", b'"\\ud800"']
        known = [json.dumps(line).encode() for line in LINES.values()]
        await send(server, known)
        await send(server, lines[:10])
        before = await scrape(server)
        for start in range(0, len(lines), 50):  # from many ports
            await send(server, lines[start : start + 50])
        after = await scrape(server)
    own = {method.name for method in METHODS} | {"rpc.ping", "unknown", "none"}
    assert after.labels("method") <= own
    assert after.labels("symbol") == set(SYMBOLS)
    assert len(after.samples) <= len(before.samples) + 200  # of methods that were new by then
    assert not any(text in after.text for text in ("evil", "made.up", "127.0.0.1", "fake"))
    assert "x" * 20 not in after.text
    assert after.value("llm_trader_requests_total", method="unknown") >= 300


async def test_stages_of_a_query_are_timed_and_add_up_to_less_than_the_whole(
    corridor: Corridor,
) -> None:
    async with running(corridor) as server:
        await send(server, [json.dumps(LINES["query"]).encode()] * 3)
        seen = await scrape(server)
    name, method = "llm_trader_stage_duration_seconds", {"method": "rag.query_patterns"}
    stages = seen.labels("stage")
    assert stages == {
        *("queue", "decode", "state", "embed", "search"),
        *("select", "evidence", "handle", "encode"),
    }
    for stage in stages:
        assert seen.value(f"{name}_count", stage=stage, **method) == 3
    spent_s = sum(seen.value(f"{name}_sum", stage=stage, **method) for stage in stages)
    whole_s = seen.value("llm_trader_request_duration_seconds_sum", **method)
    assert 0.9 * whole_s < spent_s <= whole_s


async def test_data_and_index_are_shown_with_their_ages_gaps_and_rejections(
    corridor: Corridor, tmp_path: Path
) -> None:
    late = corridor.histories[SYMBOL].intraday.between(END_MS - HOUR_MS, None)
    with MarketStore.open(tmp_path, write=True, exchange="simulated") as store:
        early = corridor.histories[SYMBOL].intraday.between(None, END_MS - 2 * HOUR_MS)
        for part in (early, late):
            store.write(SYMBOL, part, "simulated", written_at_ms=END_MS)
        hole = Span(END_MS - 2 * HOUR_MS, END_MS - HOUR_MS)
        refused = [RefusedSpan(hole.start_ms, hole.start_ms + 300_000, "high below low")]
        store.note_answer(candles_of(SYMBOL, M5), hole, [], refused)
    clock = Clock(END_MS + 90_000)
    async with running(corridor, clock, market__store=tmp_path) as server:
        seen = await scrape(server)
    series = {"symbol": SYMBOL, "series": "candles_5m"}
    assert seen.value("llm_trader_snapshot_freshness_seconds", **series) == 90
    assert seen.value("llm_trader_store_gaps", **series) == 1
    assert seen.value("llm_trader_store_missing_candles", **series) == 12
    assert seen.value("llm_trader_store_rejections", **series) == 1
    assert seen.value("llm_trader_store_up") == seen.value("llm_trader_index_up") == 1
    for symbol in SYMBOLS:
        assert seen.value("llm_trader_index_points", symbol=symbol) == POINTS
        age_s = seen.value("llm_trader_index_age_seconds", symbol=symbol)
        assert age_s == (clock.now_ms - (END_MS - DAY_MS)) / 1000
    size = (corridor.index / "data.mdb").stat().st_size
    assert seen.value("llm_trader_index_bytes") == size


async def test_load_and_caches_are_shown(corridor: Corridor) -> None:
    async with running(corridor) as server:
        async with await RpcClient.connect(*server.address) as client:
            for _ in range(4):
                await client.call("rag.query_patterns", {"symbol": SYMBOL, "timestamp": AT_MS})
            seen = await scrape(server)
        # The client's and that of the scrape.
        assert seen.value("llm_trader_connections") == 2
        assert seen.value("llm_trader_in_flight_requests") == 0
    cache = "llm_trader_cache_requests_total"
    assert seen.value(cache, cache="base_rates", result="hit") == 3
    assert seen.value(cache, cache="base_rates", result="miss") == 1
    assert seen.value(cache, cache="days", result="miss") == 1
    assert seen.value(cache, cache="days", result="hit") > 3


async def test_served_forecasts_are_scored_by_the_candles_that_followed(
    corridor: Corridor, tmp_path: Path
) -> None:
    """The independent calculation reads the candles from the simulation, not from the store."""
    clock = Clock(AT_MS)
    times = [AT_MS + n * QUARTER_MS for n in range(6)]
    bands: dict[str, list[tuple[float, float]]] = {name: [] for name in HORIZONS}
    async with running(corridor, clock, forecasts__folder=tmp_path) as server:
        async with await RpcClient.connect(*server.address) as client:
            for at_ms in times:
                clock.now_ms = at_ms + 20_000
                params = {"symbol": SYMBOL, "timestamp": at_ms + 10_000}
                for _ in range(3):
                    answer = await client.call("rag.query_patterns", params)
                for name, horizon in answer["evidence"]["horizons"].items():
                    quantiles = horizon["forecast"]["quantiles"]
                    bands[name].append((quantiles[9], quantiles[89]))
            # A replay of the past is none of the forecasts that were served about now.
            await client.call("rag.query_patterns", {"symbol": SYMBOL, "timestamp": AT_MS - DAY_MS})
        waiting = await scrape(server)
        clock.now_ms = AT_MS + 30 * HOUR_MS
        seen = await scrape(server)
    assert waiting.value("llm_trader_forecasts_waiting") == len(times)
    assert seen.value("llm_trader_forecasts_waiting") == 0
    followed = label_outcomes(corridor.histories[SYMBOL].intraday, np.array(times, np.int64))
    for row, name in enumerate(HORIZONS):
        assert seen.value("llm_trader_forecasts_scored", horizon=name) == len(times)
        covered = np.mean(
            [low <= x <= high for (low, high), x in zip(bands[name], followed[row], strict=True)]
        )
        coverage = seen.value("llm_trader_band_coverage_ratio", horizon=name, band="forecast")
        assert coverage == pytest.approx(covered)
        crps, base = (
            seen.value("llm_trader_crps_percent", horizon=name, forecast=kind)
            for kind in ("forecast", "base_rate")
        )
        assert seen.value("llm_trader_crps_skill_ratio", horizon=name) == pytest.approx(
            1 - crps / base
        )
        assert 0 < crps < 3 * np.abs(followed[row]).mean() + 1
    await _expect_the_same_after_a_restart(corridor, clock, tmp_path, seen)


async def _expect_the_same_after_a_restart(
    corridor: Corridor, clock: Clock, journal: Path, seen: Scrape
) -> None:
    """Another process knows the scores from the journal, and its method says what metrics say."""
    async with running(corridor, clock, forecasts__folder=journal) as server:
        again = await scrape(server)
        async with await RpcClient.connect(*server.address) as client:
            quality = await client.call("rag.forecast_quality", {"symbol": SYMBOL, "days": 7})
            other = await client.call("rag.forecast_quality", {"symbol": SYMBOLS[1]})
    scores = {key: value for key, value in seen.samples.items() if "crps" in key[0]}
    assert len(scores) == 3 * len(HORIZONS)
    assert scores.items() <= again.samples.items()
    assert (quality["recorded"], quality["catching_up"], quality["waiting"]) == (True, False, 0)
    for hour in quality["horizons"]:
        labels = {"horizon": hour["horizon"]}
        assert hour["scored"] == seen.value("llm_trader_forecasts_scored", **labels)
        coverage = seen.value("llm_trader_band_coverage_ratio", **labels, band="forecast")
        assert hour["coverage_80"]["value"] == pytest.approx(coverage)
        crps = seen.value("llm_trader_crps_percent", **labels, forecast="forecast")
        assert hour["crps"] == pytest.approx(crps)
    skills = {(s["horizon"], s["reference"]): s["skill"]["value"] for s in quality["skill"]}
    for reference in ("volatility", "random"):
        assert skills["24h", reference] == 0  # neighbours have no weight there
    assert {(s["scored"], s["skill"]["value"] is None) for s in quality["skill"]} == {
        (quality["horizons"][0]["scored"], False)
    }
    assert skills["1h", "base_rate"] == pytest.approx(
        seen.value("llm_trader_crps_skill_ratio", horizon="1h")
    )
    assert [hour["scored"] for hour in other["horizons"]] == [0] * len(HORIZONS)


async def test_an_index_that_fails_is_shown_as_down_and_the_rest_stays(
    corridor: Corridor, tmp_path: Path
) -> None:
    index = copied(corridor.index, tmp_path / "index")
    async with running(corridor, index__path=index) as server:
        assert (await scrape(server)).value("llm_trader_index_up") == 1
        os.rename(index, tmp_path / "away")
        for _ in range(40):  # an environment looks at its file once a second
            seen = await scrape(server)
            if not seen.value("llm_trader_index_up"):
                break
            await asyncio.sleep(0.1)
        os.rename(tmp_path / "away", index)
    assert seen.has("llm_trader_index_up")
    assert seen.value("llm_trader_index_up") == 0
    assert not seen.has("llm_trader_index_points")
    assert seen.value("llm_trader_store_up") == 1


async def test_without_the_setting_there_is_no_page_and_nothing_counts(corridor: Corridor) -> None:
    async with running(corridor, serving__metrics=False) as server:
        assert (await metrics_reply(server)).status == 404
        await send(server, [json.dumps(LINES["query"]).encode()])


async def test_where_calls_need_a_token_so_do_metrics(corridor: Corridor) -> None:
    token = {"serving__auth_tokens_env": "MY_TOKENS"}
    async with running(corridor, environ={"MY_TOKENS": "one"}, **token) as server:
        assert (await metrics_reply(server)).status == 401
        assert (await metrics_reply(server, Authorization="Bearer one")).status == 200


async def test_two_servers_of_a_process_count_for_themselves(
    corridor: Corridor, tmp_path: Path
) -> None:
    index, store = copied(corridor.index, tmp_path / "i"), copied(corridor.store, tmp_path / "s")
    async with (
        running(corridor) as first,
        running(corridor, index__path=index, market__store=store) as second,
    ):
        await send(first, [json.dumps(LINES["ping"]).encode()] * 2)
        await send(second, [json.dumps(LINES["ping"]).encode()])
        counts = [
            (await scrape(server)).value("llm_trader_requests_total", method="rpc.ping")
            for server in (first, second)
        ]
    assert counts == [2, 1]
