"""The `rag.*` methods over a socket, on a real store and a real index, as clients see them."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import pytest
import structlog

from llm_trader.app.ingestion import ingest_from_store
from llm_trader.app.job import Job
from llm_trader.app.server import query_server
from llm_trader.market.config import MarketConfig
from llm_trader.market.store import MarketStore
from llm_trader.rpc.client import RpcClient, RpcError
from llm_trader.serving.wire import (
    REQUIRED_STATE,
    GetSnapshotResult,
    QueryPatternsParams,
    QueryPatternsResult,
    StatsResult,
)
from llm_trader.snapshot.model import SCALARS, MarketSnapshot
from llm_trader.snapshot.outcome import first_touches
from llm_trader.timeframe import DAY_MS, HOUR_MS, MINUTE_MS, Millis, iso8601
from tests.cli.corridor import (
    AT_MS,
    END_MS,
    POINTS,
    QUARTER_MS,
    SYMBOL,
    SYMBOLS,
    WARM_MS,
    Corridor,
    answering,
    copied,
    write,
)
from tests.snapshot.histories import with_repeated_candles

OFF_GRID_MS = AT_MS + 53 * MINUTE_MS + 45_000  # 12:53:45
# These follow from the ten fields and the time, so they are neither missing nor completed.
DERIVED = {"ema_ratio", "oi_delta_pct", "hour_of_day"}

HORIZONS = ("15m", "1h", "4h", "24h")


@pytest.fixture
async def rag(corridor: Corridor) -> AsyncIterator[RpcClient]:
    async with answering(corridor) as client:
        yield client


@pytest.fixture
async def storeless(
    corridor: Corridor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[RpcClient]:
    """Only the default store may be missing."""
    monkeypatch.chdir(tmp_path)
    async with answering(corridor, market__store=MarketConfig().store) as client:
        yield client


@pytest.fixture
def ten(corridor: Corridor) -> dict[str, float]:
    """What a client of the prototype sends, true at `AT_MS`."""
    return corridor.fields_at(AT_MS, *REQUIRED_STATE)


def question(timestamp: Millis = AT_MS, symbol: str = SYMBOL, **more: Any) -> dict[str, Any]:
    return {"symbol": symbol, "timestamp": timestamp, **more}


async def ask(client: RpcClient, *arguments: Any, **more: Any) -> Any:
    return await client.call("rag.query_patterns", question(*arguments, **more))


async def refusal(client: RpcClient, params: Any, method: str = "rag.query_patterns") -> RpcError:
    with pytest.raises(RpcError) as raised:
        await client.call(method, params)
    return raised.value


def without_durations(answer: dict[str, Any]) -> dict[str, Any]:
    return {part: answer[part] for part in ("matches", "statistics", "evidence")}


def as_json(result: msgspec.Struct) -> Any:
    return json.loads(msgspec.json.encode(result))


# --- The shape of an answer


async def test_an_answer_has_exactly_the_fields_of_the_wire(rag: RpcClient) -> None:
    answer = await ask(rag)
    assert set(answer) == {"matches", "statistics", "evidence", "metadata"}
    block = {"mean", "median", "p10", "p90", "positive_count", "negative_count", "win_rate"}
    assert set(answer["statistics"]) == {
        *("total_matches", "avg_similarity", "similarity_range"),
        *("outcome_15m", "outcome_1h", "outcome_4h", "outcome_24h"),
        *("stop_loss_hits", "take_profit_hits"),
    }
    assert all(set(answer["statistics"][f"outcome_{h}"]) == block for h in HORIZONS)
    assert set(answer["metadata"]) == {
        *("query_duration_ms", "embedding_duration_ms", "retrieval_duration_ms"),
        *("query_duration_us", "filters_applied", "schema_version", "feature_version"),
        *(
            "embedding_model",
            "volatility_model",
            "as_of",
            "vector",
            "state_source",
            "fields_completed",
        ),
        *("features_missing", "unknown_fields", "warnings", "collection", "request_id"),
        "data_age_seconds",
        "points_eligible",
        "state_as_of",
        "fields_completed_as_of",
        "calibration",
        *("index_end", "store_end", "state_age_seconds"),
    }
    assert set(answer["evidence"]) == {
        *("verdict", "reason", "episodes", "interval_level", "base_rate_points"),
        *("similarity_mean", "similarity_range", "novelty", "barriers", "horizons"),
        *("calibrated", "barrier_forecasts", "states_used", "episodes_compared_in_part"),
    }
    assert tuple(answer["evidence"]["horizons"]) == HORIZONS


async def test_each_match_has_exactly_the_fields_of_the_wire(rag: RpcClient) -> None:
    matches = (await ask(rag))["matches"]
    assert len(matches) == 5
    for match in matches:
        assert set(match) == {
            *("similarity", "similarity_percentile", "timestamp", "resolved_at", "date", "id"),
            *("market_state", "outcomes", "compared_share"),
        }
        assert match["compared_share"] == 1
        assert set(match["market_state"]) == {
            *("rsi_7", "rsi_14", "macd", "ema_ratio", "oi_delta_pct", "funding_rate"),
        }
        assert set(match["outcomes"]) == {
            *("outcome_15m", "outcome_1h", "outcome_4h", "outcome_24h"),
            *("max_runup_1h", "max_drawdown_1h", "hit_stop_loss", "hit_take_profit"),
            "first_barrier",
        }
        assert match["date"].endswith("Z")
        moment = datetime.fromisoformat(match["date"])
        assert moment.timestamp() * 1000 == match["timestamp"]
        assert match["outcomes"]["first_barrier"] in ("none", "stop", "target")


# What a client of the prototype decodes: unsigned integers, numbers that are never null.
U64 = Annotated[int, msgspec.Meta(ge=0)]


class ClassicState(msgspec.Struct):
    rsi_7: float
    rsi_14: float
    macd: float
    ema_ratio: float
    oi_delta_pct: float
    funding_rate: float


class ClassicOutcomes(msgspec.Struct):
    outcome_1h: float
    outcome_4h: float
    outcome_24h: float
    max_runup_1h: float
    max_drawdown_1h: float
    hit_stop_loss: bool
    hit_take_profit: bool


class ClassicMatch(msgspec.Struct):
    similarity: float
    timestamp: U64
    date: str
    market_state: ClassicState
    outcomes: ClassicOutcomes


class ClassicBlock(msgspec.Struct):
    mean: float
    median: float
    p10: float
    p90: float
    positive_count: U64
    negative_count: U64
    win_rate: float


class ClassicStatistics(msgspec.Struct):
    total_matches: U64
    avg_similarity: float
    similarity_range: tuple[float, float]
    outcome_4h: ClassicBlock
    stop_loss_hits: U64
    take_profit_hits: U64


class ClassicMetadata(msgspec.Struct):
    query_duration_ms: U64
    embedding_duration_ms: U64
    retrieval_duration_ms: U64
    filters_applied: list[str]
    schema_version: U64
    feature_version: str
    embedding_model: str


class ClassicResult(msgspec.Struct):
    matches: list[ClassicMatch]
    statistics: ClassicStatistics
    metadata: ClassicMetadata


class ClassicReply(msgspec.Struct):
    jsonrpc: str
    id: int
    result: ClassicResult


async def test_a_strict_client_of_the_prototype_decodes_an_answer(
    corridor: Corridor, ten: dict[str, float]
) -> None:
    async with query_server(corridor.settings(), {}) as server:
        await server.start()
        reader, writer = await asyncio.open_connection(*server.address, limit=1 << 20)
        request = {"jsonrpc": "2.0", "id": 9, "method": "rag.query_patterns"}
        config = {"lookback_days": 30, "top_k": 4, "min_similarity": 0.6}
        config["include_regime_filters"] = True
        params = question(current_state=ten, query_config=config)
        writer.write(json.dumps({**request, "params": params}).encode() + b"\n")
        line = await asyncio.wait_for(reader.readline(), 10)
        writer.close()
        await writer.wait_closed()
        await server.stop()
    reply = msgspec.json.decode(line, type=ClassicReply)
    assert (reply.jsonrpc, reply.id) == ("2.0", 9)
    assert len(reply.result.matches) == reply.result.statistics.total_matches == 4
    assert reply.result.metadata.filters_applied[0] == "symbol"


async def test_statistics_are_those_of_the_matches(rag: RpcClient) -> None:
    answer = await ask(rag, query_config={"top_k": 12, "min_similarity": 0})
    matches, statistics = answer["matches"], answer["statistics"]
    similarity = [match["similarity"] for match in matches]
    assert similarity == sorted(similarity, reverse=True)
    assert statistics["total_matches"] == len(matches) == 12
    assert statistics["avg_similarity"] == pytest.approx(np.mean(similarity), rel=1e-12)
    assert statistics["similarity_range"] == [min(similarity), max(similarity)]
    for horizon in HORIZONS:
        values = np.array([match["outcomes"][f"outcome_{horizon}"] for match in matches])
        expected = {
            "mean": values.mean(),
            "median": np.median(values),
            "p10": np.quantile(values, 0.1),
            "p90": np.quantile(values, 0.9),
            "positive_count": (values > 0).sum(),
            "negative_count": (values < 0).sum(),
            "win_rate": (values > 0).mean(),
        }
        assert statistics[f"outcome_{horizon}"] == pytest.approx(expected, rel=1e-9, abs=1e-12)
    stops, targets = (
        [match["outcomes"][hit] for match in matches]
        for hit in ("hit_stop_loss", "hit_take_profit")
    )
    assert statistics["stop_loss_hits"] == stops.count(True)
    assert statistics["take_profit_hits"] == targets.count(True)


@pytest.mark.parametrize("timestamp", [AT_MS, OFF_GRID_MS, AT_MS - 7 * DAY_MS])
async def test_every_match_was_resolved_by_the_time_of_the_query(
    rag: RpcClient, timestamp: Millis
) -> None:
    config = {"top_k": 50, "min_similarity": 0, "min_gap_hours": 0}
    matches = (await ask(rag, timestamp, query_config=config))["matches"]
    assert len(matches) == 50
    assert all(match["resolved_at"] <= timestamp for match in matches)
    assert all(match["resolved_at"] - match["timestamp"] == DAY_MS for match in matches)


async def test_a_point_is_seen_from_the_very_moment_it_resolves(rag: RpcClient) -> None:
    two_hours = 2 * HOUR_MS
    config = {"top_k": 50, "min_similarity": 0, "min_gap_hours": 0}
    config |= {"include_regime_filters": False}
    for at, seen in ((WARM_MS + DAY_MS + two_hours, 9), (WARM_MS + DAY_MS + two_hours - 1, 8)):
        stamps = [m["timestamp"] for m in (await ask(rag, at, query_config=config))["matches"]]
        assert sorted(stamps) == [WARM_MS + n * QUARTER_MS for n in range(seen)]


async def test_matches_of_one_reply_are_four_hours_apart_unless_told_otherwise(
    rag: RpcClient,
) -> None:
    async def closest(**config: Any) -> Millis:
        config |= {"top_k": 30, "min_similarity": 0}
        stamps = [m["timestamp"] for m in (await ask(rag, query_config=config))["matches"]]
        assert len(stamps) == 30
        return int(np.diff(sorted(stamps)).min())

    assert await closest() >= 4 * HOUR_MS
    assert await closest(min_gap_hours=9.5) >= 9.5 * HOUR_MS
    assert await closest(min_gap_hours=0) < 4 * HOUR_MS


async def test_metadata_tells_how_the_answer_came_about(corridor: Corridor, rag: RpcClient) -> None:
    first, second = (await ask(rag, OFF_GRID_MS))["metadata"], (await ask(rag))["metadata"]
    assert first["as_of"] == OFF_GRID_MS
    assert first["state_as_of"] == OFF_GRID_MS - OFF_GRID_MS % (15 * MINUTE_MS)
    assert second["state_as_of"] == second["as_of"]
    assert first["points_eligible"] > 1000
    assert first["data_age_seconds"] == 3 * 60 + 45  # the last 5m candle closed at 12:50
    assert second["data_age_seconds"] == 0
    assert (first["feature_version"], first["collection"]) == ("v2_5m4h", "simulated/v2_5m4h")
    assert (first["schema_version"], first["vector"]) == (1, "state")
    assert first["embedding_model"].startswith("state-")
    assert first["request_id"] != second["request_id"]
    assert first["features_missing"] == first["warnings"] == first["unknown_fields"] == []
    assert first["filters_applied"][:3] == ["symbol", "timerange", "resolved_at"]
    durations = [first[f"{part}_duration_ms"] for part in ("query", "embedding", "retrieval")]
    assert [type(duration) for duration in durations] == [int] * 3
    assert first["query_duration_us"] > 0


async def test_a_regime_filter_is_reported_exactly_when_it_is_applied(
    rag: RpcClient, ten: dict[str, float]
) -> None:
    calm = {**ten, "funding_rate": 0.00005, "open_interest_latest": ten["open_interest_avg_24h"]}
    moved = {**calm, "open_interest_latest": ten["open_interest_avg_24h"] * 1.08}
    negative = {**calm, "funding_rate": -0.0002}

    async def filters(state: dict[str, float], **config: Any) -> list[str]:
        config |= {"top_k": 1, "min_similarity": 0}
        answer = await ask(rag, current_state=state, query_config=config)
        return answer["metadata"]["filters_applied"][3:]

    assert await filters(calm) == []
    assert await filters(moved) == ["oi_delta"]
    assert await filters(negative) == ["funding_sign"]
    assert await filters(negative, include_regime_filters=False) == []


# --- The state: sent, completed, or from the store


async def test_ten_true_fields_are_completed_to_the_stores_own_state(
    rag: RpcClient, ten: dict[str, float]
) -> None:
    sent, omitted = await ask(rag, current_state=ten), await ask(rag)
    assert omitted["metadata"]["state_source"] == "store"
    assert omitted["metadata"]["fields_completed"] == []
    assert sent["metadata"]["state_source"] == "request+store"
    completed = sent["metadata"]["fields_completed"]
    assert set(completed) == set(SCALARS) - set(REQUIRED_STATE) - DERIVED
    assert sent["metadata"]["features_missing"] == []
    assert without_durations(sent) == without_durations(omitted)


async def test_a_moment_before_its_candle_is_there_is_completed_from_the_state_before(
    rag: RpcClient, corridor: Corridor
) -> None:
    ten = corridor.fields_at(END_MS, *REQUIRED_STATE)
    metadata = (await ask(rag, END_MS + 15 * MINUTE_MS + 1, current_state=ten))["metadata"]
    assert (metadata["state_source"], metadata["warnings"]) == ("request+store", [])
    assert metadata["features_missing"] == []
    assert metadata["state_as_of"] == metadata["as_of"] == END_MS + 15 * MINUTE_MS + 1
    assert metadata["fields_completed_as_of"] == END_MS


async def test_a_state_sent_long_after_the_stores_last_is_left_as_it_is_with_a_warning(
    rag: RpcClient, corridor: Corridor
) -> None:
    ten = corridor.fields_at(END_MS, *REQUIRED_STATE)
    metadata = (await ask(rag, END_MS + HOUR_MS, current_state=ten))["metadata"]
    assert (metadata["state_source"], metadata["fields_completed"]) == ("request", [])
    assert len(metadata["features_missing"]) > 10
    (warning,) = metadata["warnings"]
    assert "the store knows no complete state near that time" in warning


async def test_what_the_client_sent_wins_over_the_store(
    rag: RpcClient, ten: dict[str, float]
) -> None:
    answer = await ask(rag, current_state={**ten, "rsi_7": 1.0, "volume_ratio": 9.0})
    assert "volume_ratio" not in answer["metadata"]["fields_completed"]
    assert "atr_14_4h" in answer["metadata"]["fields_completed"]
    assert answer["matches"] != (await ask(rag))["matches"]


async def test_a_complete_state_needs_nothing_from_the_store(
    rag: RpcClient, corridor: Corridor
) -> None:
    snapshot = msgspec.to_builtins(corridor.state_at(AT_MS).snapshot(0))
    state = {name: snapshot[name] for name in snapshot if name not in ("symbol", "timestamp")}
    answer = await ask(rag, current_state=state)
    assert answer["metadata"]["state_source"] == "request"
    assert answer["metadata"]["fields_completed"] == []
    assert without_durations(answer) == without_durations(await ask(rag))


async def test_a_price_of_another_market_completes_nothing_and_warns(
    rag: RpcClient, ten: dict[str, float]
) -> None:
    answer = await ask(rag, current_state={**ten, "price": ten["price"] * 1.03})
    metadata = answer["metadata"]
    assert (metadata["state_source"], metadata["fields_completed"]) == ("request", [])
    (warning,) = metadata["warnings"]
    assert "is not near the store's" in warning
    assert f"{ten['price']:g}" in warning
    assert "atr_4h_ratio" in metadata["features_missing"]


async def test_a_price_that_moved_since_the_last_candle_is_of_the_same_market(
    rag: RpcClient, ten: dict[str, float]
) -> None:
    answer = await ask(rag, current_state={**ten, "price": ten["price"] * 0.985})
    assert answer["metadata"]["state_source"] == "request+store"
    assert answer["metadata"]["warnings"] == []


async def test_a_time_off_the_grid_is_answered_from_the_quarter_hour_before_it(
    rag: RpcClient, corridor: Corridor
) -> None:
    quarter = OFF_GRID_MS - OFF_GRID_MS % QUARTER_MS
    state = corridor.fields_at(quarter, *REQUIRED_STATE)
    sent = await ask(rag, OFF_GRID_MS, current_state=state)
    assert sent["metadata"]["state_source"] == "request+store"
    assert sent["metadata"]["features_missing"] == []
    omitted = await ask(rag, OFF_GRID_MS)
    assert (omitted["metadata"]["state_source"], omitted["metadata"]["as_of"]) == (
        "store",
        OFF_GRID_MS,
    )
    assert omitted["matches"] == (await ask(rag, quarter))["matches"]


async def test_without_a_store_the_missing_features_are_listed(
    storeless: RpcClient, ten: dict[str, float]
) -> None:
    metadata = (await ask(storeless, current_state=ten))["metadata"]
    assert (metadata["state_source"], metadata["fields_completed"]) == ("request", [])
    assert metadata["data_age_seconds"] is None
    missing = set(metadata["features_missing"])
    assert {"price_slope", "atr_4h_ratio", "return_1h", "volatility_24h"} <= missing
    assert not {"rsi_7", "macd_of_price", "ema_ratio", "oi_delta_pct", "hour_sine"} & missing


async def test_without_a_store_a_point_of_the_index_finds_itself_by_its_ten_fields(
    storeless: RpcClient, ten: dict[str, float]
) -> None:
    config = {"include_regime_filters": False}
    answer = await ask(storeless, AT_MS + DAY_MS, current_state=ten, query_config=config)
    # The hour is derived from the query's time, which here is the same hour of the next day.
    assert answer["matches"][0]["timestamp"] == AT_MS
    assert answer["matches"][0]["similarity"] == pytest.approx(1.0, abs=1e-5)


async def test_without_a_store_the_state_must_be_sent(storeless: RpcClient) -> None:
    error = await refusal(storeless, question())
    assert error.rpc_code == -32602
    assert "current_state is required" in error.message
    assert "no market store" in error.message
    snapshot = await refusal(storeless, question(), "rag.get_snapshot")
    assert snapshot.rpc_code == -32602
    assert "--store" in snapshot.message


# --- What is wrong with a request


async def test_all_wrong_fields_are_reported_at_once(rag: RpcClient, ten: dict[str, float]) -> None:
    state: dict[str, Any] = {**ten, "rsi_7": 140, "price": -1, "ema_20": "high"}
    del state["macd"]
    params = question(current_state=state, query_config={"top_k": 0})
    error = await refusal(rag, params)
    assert error.rpc_code == -32602
    told = {problem["field"]: problem["error"] for problem in error.data["errors"]}
    assert set(told) == {
        *("current_state.rsi_7", "current_state.price", "current_state.ema_20"),
        *("current_state.macd", "query_config.top_k"),
    }
    assert "<= 100" in told["current_state.rsi_7"]
    assert "> 0" in told["current_state.price"]
    assert "got str" in told["current_state.ema_20"]
    assert "required" in told["current_state.macd"]


async def test_wrong_symbol_and_time_are_reported_together(rag: RpcClient) -> None:
    error = await refusal(rag, {"symbol": "btc/usdt", "timestamp": 1_740_484_800})
    assert error.rpc_code == -32602
    assert [problem["field"] for problem in error.data["errors"]] == ["symbol", "timestamp"]


async def test_unknown_fields_are_reported_with_what_may_be_meant(
    rag: RpcClient, ten: dict[str, float]
) -> None:
    answer = await ask(
        rag,
        current_state={**ten, "volume_ration": 1.0, "moon_phase": 0.5},
        query_config={"topk": 3},
        colour="blue",
    )
    assert sorted(answer["metadata"]["unknown_fields"]) == [
        "colour",
        "current_state.moon_phase",
        "current_state.volume_ration (did you mean volume_ratio?)",
        "query_config.topk (did you mean top_k?)",
    ]
    assert len(answer["matches"]) == 5


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lookback_days", 0),
        ("lookback_days", 366),
        ("top_k", 0),
        ("top_k", 51),
        ("top_k", 2.5),
        ("min_similarity", 1.01),
        ("min_similarity", -0.01),
        ("include_regime_filters", "yes"),
        ("min_gap_hours", -1),
        ("evidence_k", 9),
        ("vector", "words"),
        ("horizons", []),
        ("horizons", ["2h"]),
    ],
)
async def test_a_query_config_out_of_range_is_refused_by_its_name(
    rag: RpcClient, name: str, value: Any
) -> None:
    error = await refusal(rag, question(query_config={name: value}))
    assert error.rpc_code == -32602
    (problem,) = error.data["errors"]
    assert problem["field"].startswith(f"query_config.{name}")


async def test_the_bounds_of_query_config_are_within_range(rag: RpcClient) -> None:
    for config in (
        {"lookback_days": 365, "top_k": 50, "min_similarity": 0, "evidence_k": 500},
        {"lookback_days": 40, "top_k": 1, "min_gap_hours": 168, "evidence_k": 10},
    ):
        assert (await ask(rag, query_config=config))["matches"]


async def test_settings_are_the_defaults_and_a_partial_query_config_keeps_the_others(
    corridor: Corridor,
) -> None:
    environ = {
        "LLM_TRADER_RETRIEVAL__TOP_K": "2",
        "LLM_TRADER_RETRIEVAL__MIN_GAP_HOURS": "48",
        "LLM_TRADER_RETRIEVAL__MIN_SIMILARITY": "0",
        "LLM_TRADER_SERVING__MIN_MATCHES": "1",
    }
    async with answering(corridor, environ) as client:
        assert len((await ask(client))["matches"]) == 2
        assert len((await ask(client, query_config=None))["matches"]) == 2
        assert len((await ask(client, query_config={"lookback_days": 60}))["matches"]) == 2
        six = (await ask(client, query_config={"top_k": 6}))["matches"]
        stamps = sorted(match["timestamp"] for match in six)
        assert len(stamps) == 6
        assert min(np.diff(stamps)) >= 48 * HOUR_MS


async def test_only_the_horizons_asked_for_are_in_the_evidence(rag: RpcClient) -> None:
    answer = await ask(rag, query_config={"horizons": ["4h", "1h"]})
    assert set(answer["evidence"]["horizons"]) == {"1h", "4h"}


async def test_a_named_barrier_is_forecast_beside_that_of_the_wire(rag: RpcClient) -> None:
    config = {"include_regime_filters": False, "stop_pct": 1.0, "target_moves": 1.5}
    evidence = (await ask(rag, query_config=config))["evidence"]
    of_wire, named = evidence["barrier_forecasts"]
    expected_pct = evidence["horizons"]["24h"]["expected_volatility_pct"]
    assert (of_wire["stop_pct"], of_wire["target_pct"]) == (2.0, 3.0)
    assert named["stop_pct"] == 1.0
    assert named["stop_moves"] == pytest.approx(1.0 / expected_pct)
    assert named["target_pct"] == pytest.approx(1.5 * expected_pct)
    for chances in (of_wire, named):
        shares = [chances[name] for name in ("stop_first", "target_first", "neither")]
        assert sum(shares) == pytest.approx(1)
        assert min(shares) >= 0


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"stop_pct": 1.0}, "a stop without a target"),
        ({"target_moves": 1.0}, "a target without a stop"),
        ({"stop_pct": 1.0, "stop_moves": 1.0, "target_pct": 1.0}, "names the stop twice"),
        ({"stop_pct": 0.0, "target_pct": 1.0}, "stop_pct"),
    ],
)
async def test_barriers_that_mean_nothing_are_refused(
    rag: RpcClient, config: dict[str, float], problem: str
) -> None:
    assert problem in (await refusal(rag, question(query_config=config))).message


async def test_from_the_states_of_full_detail_a_client_computes_the_forecast_again(
    rag: RpcClient,
) -> None:
    config = {"include_regime_filters": False, "detail": "full", "stop_pct": 1.5, "target_pct": 1.0}
    evidence = (await ask(rag, query_config=config))["evidence"]
    used = evidence["states_used"]
    window, neighbours = used["window"], used["neighbours"]
    assert len(window["timestamp"]) == evidence["base_rate_points"]
    assert len(used["episodes"]["timestamp"]) == evidence["episodes"]
    assert set(neighbours["timestamp"]) <= set(window["timestamp"])
    for name, horizon in evidence["horizons"].items():
        forecast, expected_pct = horizon["forecast"], horizon["expected_volatility_pct"]
        pairs, total = [], 0.0
        shares = forecast["weight_of_neighbours"], 1 - forecast["weight_of_neighbours"]
        for states, share in zip((neighbours, window), shares, strict=True):
            columns = states["outcomes"][name], states["expected_volatility_pct"][name]
            moves = [outcome / volatility for outcome, volatility in zip(*columns, strict=True)]
            pairs += [(move, share / len(moves)) for move in moves if share]
            total += share * sum(moves) / len(moves)
        assert forecast["mean"] == pytest.approx(total * expected_pct)
        weights = np.cumsum([weight for _, weight in sorted(pairs)])
        for level in (10, 50, 90):
            place = int(np.searchsorted(weights, level / 100 - 1e-9))
            quantile = sorted(pairs)[place][0] * expected_pct
            assert forecast["quantiles"][level - 1] == pytest.approx(quantile)
    named = evidence["barrier_forecasts"][1]
    path = np.array(list(window["path"].values()))
    moves = np.array(window["expected_volatility_pct"]["24h"])
    stop_first, target_first = first_touches(
        path, named["stop_moves"] * moves, named["target_moves"] * moves
    )
    assert named["stop_first"] == pytest.approx(stop_first.mean())
    assert named["target_first"] == pytest.approx(target_first.mean())


async def test_top_k_below_min_matches_is_satisfied_with_top_k(rag: RpcClient) -> None:
    answer = await ask(rag, query_config={"top_k": 1})
    assert answer["statistics"]["total_matches"] == len(answer["matches"]) == 1


# --- Errors of their own


async def test_too_few_matches_say_how_many_there_are_and_what_to_try(rag: RpcClient) -> None:
    error = await refusal(rag, question(query_config={"min_similarity": 0.999}))
    assert error.rpc_code == -32001
    assert set(error.data) == {"matches_found", "min_required", "suggestion"}
    assert (error.data["matches_found"], error.data["min_required"]) == (0, 3)
    assert "min_similarity (0.999)" in error.data["suggestion"]
    assert "lookback_days (90)" in error.data["suggestion"]


async def test_before_anything_was_resolved_there_are_no_matches(rag: RpcClient) -> None:
    error = await refusal(rag, question(WARM_MS + DAY_MS - QUARTER_MS))
    assert (error.rpc_code, error.data["matches_found"]) == (-32001, 0)
    assert "no past state was known then" in error.data["suggestion"]


async def test_an_unknown_symbol_is_refused_with_those_there_are(
    rag: RpcClient, ten: dict[str, float]
) -> None:
    for params in (question(symbol="DOGEUSDT"), question(symbol="DOGEUSDT", current_state=ten)):
        error = await refusal(rag, params)
        assert (error.rpc_code, error.data) == (-32002, {"available": list(SYMBOLS)})
        assert "DOGEUSDT" in error.message
    error = await refusal(rag, question(symbol="DOGEUSDT"), "rag.get_snapshot")
    assert (error.rpc_code, error.data) == (-32002, {"available": list(SYMBOLS)})


async def test_old_data_is_stale_for_a_state_from_the_store_only(
    rag: RpcClient, ten: dict[str, float]
) -> None:
    fresh_enough, too_late = END_MS + 30 * MINUTE_MS, END_MS + 30 * MINUTE_MS + 1
    assert (await ask(rag, fresh_enough))["metadata"]["data_age_seconds"] == 1800
    for method in ("rag.query_patterns", "rag.get_snapshot"):
        error = await refusal(rag, question(too_late), method)
        assert error.rpc_code == -32005
        assert error.data == {"data_age_seconds": 1800.001}
    answer = await ask(rag, too_late, current_state=ten)
    assert answer["metadata"]["state_source"] == "request"
    assert answer["metadata"]["data_age_seconds"] == 1800.001


async def test_how_old_data_may_be_is_a_setting(corridor: Corridor) -> None:
    async with answering(corridor, serving__max_data_age_minutes=120) as client:
        answer = await ask(client, END_MS + 2 * HOUR_MS)
        assert answer["metadata"]["data_age_seconds"] == 7200
        assert (await refusal(client, question(END_MS + 2 * HOUR_MS + 1))).rpc_code == -32005


async def test_a_frozen_feed_is_warned_about_and_then_refused(
    corridor: Corridor, tmp_path: Path
) -> None:
    history = corridor.histories[SYMBOL]
    path, start_ms = tmp_path / "frozen", AT_MS - 6 * HOUR_MS
    with MarketStore.open(path, write=True, exchange="simulated") as store:
        write(store, with_repeated_candles(history, start_ms, AT_MS))
    async with answering(corridor, market__store=path) as client:
        assert (await ask(client, start_ms))["metadata"]["warnings"] == []
        for minutes in (15, 60):
            answer = await ask(client, start_ms + minutes * MINUTE_MS)
            warning = f"every candle of the last {minutes} minutes is the same"
            assert warning in answer["metadata"]["warnings"][0]
        for method in ("rag.query_patterns", "rag.get_snapshot"):
            error = await refusal(client, question(), method)
            assert error.rpc_code == -32005
            assert "the feed of BTCUSDT seems frozen" in error.message
        answer = await ask(client, current_state=corridor.fields_at(AT_MS, *REQUIRED_STATE))
        assert answer["metadata"]["state_source"] == "request+store"
    longer = {"serving__max_unchanged_minutes": 600}
    async with answering(corridor, market__store=path, **longer) as client:
        assert (await ask(client))["metadata"]["data_age_seconds"] == 0


async def test_before_the_first_candle_there_is_no_data_at_all(rag: RpcClient) -> None:
    error = await refusal(rag, question(10**12))
    assert (error.rpc_code, error.data) == (-32005, {"data_age_seconds": None})
    assert f"the store's newest closed at {iso8601(END_MS)}" in error.message


async def test_a_time_without_enough_history_says_what_is_missing(rag: RpcClient) -> None:
    error = await refusal(rag, question(WARM_MS - DAY_MS))
    assert error.rpc_code == -32005
    assert "120 4h candles" in error.message


async def test_a_state_that_says_too_little_is_an_embedding_error(
    storeless: RpcClient, ten: dict[str, float]
) -> None:
    absurd = {"price": 1e-308, "ema_20_4h": 1e308, "ema_50_4h": 1e-308, "open_interest_avg_24h": 0}
    error = await refusal(storeless, question(current_state={**ten, **absurd}))
    assert error.rpc_code == -32004
    assert {"macd_of_price", "ema_ratio", "oi_delta_pct"} <= set(error.data["features_missing"])


_DAMAGE = """
import sys
import lmdb
with lmdb.open(sys.argv[1], map_size=1 << 34, max_dbs=4) as env:
    points, log = (env.open_db(name, create=False) for name in (b"points", b"log"))
    with env.begin(write=True) as txn:
        stamp = 1740787200000
        txn.put(f"BTCUSDT:{stamp}".encode(), b"damaged", db=points)
        entry = b"BTCUSDT:" + stamp.to_bytes(8, "little")
        txn.put(txn.stat(log)["entries"].to_bytes(8, "big"), entry, db=log)
"""


async def test_an_index_that_gets_damaged_is_a_vector_database_error(
    corridor: Corridor, tmp_path: Path
) -> None:
    index = copied(corridor.index, tmp_path / "index")
    async with answering(corridor, index__path=index) as client:
        assert (await ask(client))["matches"]
        writer = await asyncio.create_subprocess_exec(sys.executable, "-c", _DAMAGE, str(index))
        assert await writer.wait() == 0
        for _ in range(2):
            error = await refusal(client, question())
            assert error.rpc_code == -32003
            assert "damaged" in error.message
        assert (await refusal(client, None, "rag.stats")).rpc_code == -32003
        assert (await client.call("rpc.ping"))["pong"] is True


_DAMAGED_CANDLE = """
import sys
import lmdb
with lmdb.open(sys.argv[1], map_size=1 << 34, max_dbs=32) as env:
    candles = env.open_db(b"candles_5m", create=False)
    with env.begin(write=True) as txn:
        txn.put(sys.argv[2].encode(), b"damaged", db=candles)
"""


async def test_where_the_store_cannot_tell_the_datas_age_the_reply_says_so(
    corridor: Corridor, tmp_path: Path
) -> None:
    store = copied(corridor.store, tmp_path / "store")
    arguments = str(store), f"{SYMBOL}:{AT_MS - HOUR_MS}"
    writer = await asyncio.create_subprocess_exec(sys.executable, "-c", _DAMAGED_CANDLE, *arguments)
    assert await writer.wait() == 0
    snapshot = msgspec.to_builtins(corridor.state_at(AT_MS).snapshot(0))
    state = {name: snapshot[name] for name in snapshot if name not in ("symbol", "timestamp")}
    with structlog.testing.capture_logs() as logs:
        async with answering(corridor, market__store=store) as client:
            answer = await ask(client, current_state=state)
    assert len(answer["matches"]) == 5
    assert answer["metadata"]["data_age_seconds"] is None
    (warning,) = answer["metadata"]["warnings"]
    assert warning.startswith("data_age_seconds is unknown: ")
    (entry,) = [entry for entry in logs if entry["event"] == "data_age_unknown"]
    assert (entry["log_level"], entry["symbol"]) == ("warning", SYMBOL)
    assert warning.endswith(entry["error"])


# --- The other methods


async def test_replies_decode_into_the_structs_that_the_server_encodes(rag: RpcClient) -> None:
    params = QueryPatternsParams(SYMBOL, AT_MS)
    answer = await rag.call("rag.query_patterns", params, QueryPatternsResult)
    assert answer.metadata.as_of == AT_MS
    assert without_durations(as_json(answer)) == without_durations(await ask(rag))
    snapshot = await rag.call("rag.get_snapshot", question(), GetSnapshotResult)
    assert as_json(snapshot) == await rag.call("rag.get_snapshot", question())
    stats = await rag.call("rag.stats", None, StatsResult)
    assert as_json(stats) == await rag.call("rag.stats")


@pytest.mark.parametrize("timestamp", [AT_MS, AT_MS + QUARTER_MS - 1])
async def test_a_snapshot_is_the_one_built_from_the_candles(
    rag: RpcClient, corridor: Corridor, timestamp: Millis
) -> None:
    result = await rag.call("rag.get_snapshot", question(timestamp))
    assert set(result) == {"snapshot", "feature_version", "data_age_seconds"}
    assert result["snapshot"] == msgspec.to_builtins(corridor.state_at(AT_MS).snapshot(0))
    assert set(result["snapshot"]) == set(MarketSnapshot.__struct_fields__)
    assert None not in result["snapshot"].values()
    assert result["feature_version"] == "v2_5m4h"


async def test_stats_count_points_and_queries(corridor: Corridor, rag: RpcClient) -> None:
    before = await rag.call("rag.stats")
    assert before["ready"] is True
    assert before["index"]["symbols"] == [
        {
            "symbol": symbol,
            "points": POINTS,
            "first_timestamp_ms": WARM_MS,
            "last_timestamp_ms": END_MS - DAY_MS,
            "without_open_interest": 0,
            "without_funding": 0,
        }
        for symbol in SYMBOLS
    ]
    assert before["index"]["collection"]["exchange"] == "simulated"
    assert before["index"]["location"] == str(corridor.index)
    assert [run["run"] for run in before["index"]["runs"]] == [1]
    assert before["market_store"] == str(corridor.store)
    assert (before["queries_answered"], before["queries_refused"]) == (0, 0)
    await ask(rag)
    await refusal(rag, question(symbol="DOGEUSDT"))
    await refusal(rag, question(query_config={"min_similarity": 1}))
    after = await rag.call("rag.stats")
    assert (after["queries_answered"], after["queries_refused"]) == (1, 2)


async def test_an_answer_says_how_old_its_state_is_and_how_far_store_and_index_reach(
    rag: RpcClient,
) -> None:
    metadata = (await ask(rag, OFF_GRID_MS))["metadata"]
    assert metadata["state_age_seconds"] == (OFF_GRID_MS - metadata["state_as_of"]) / 1000 == 525
    assert metadata["store_end"] == OFF_GRID_MS - OFF_GRID_MS % (5 * MINUTE_MS)
    assert metadata["index_end"] == metadata["state_as_of"] - DAY_MS
    assert metadata["warnings"] == []


async def test_without_a_store_an_answer_says_how_far_the_index_reaches(
    storeless: RpcClient, ten: dict[str, float]
) -> None:
    metadata = (await ask(storeless, current_state=ten))["metadata"]
    assert (metadata["store_end"], metadata["index_end"]) == (None, AT_MS - DAY_MS)


async def test_a_stale_index_is_named_in_the_answer_in_a_refusal_and_in_the_stats(
    corridor: Corridor, tmp_path: Path
) -> None:
    ends_ms = AT_MS - 6 * DAY_MS
    settings = corridor.settings(index__path=tmp_path / "index")
    job = Job(settings, {}, END_MS)
    await asyncio.to_thread(ingest_from_store, job, [], WARM_MS, ends_ms)
    said = (
        f"the index ends at {iso8601(ends_ms)}, this query could see states up to "
        f"{iso8601(AT_MS - DAY_MS)}; ingest the newer ones with rag-ingest"
    )
    async with answering(corridor, index__path=tmp_path / "index") as client:
        metadata = (await ask(client))["metadata"]
        assert metadata["warnings"] == [said]
        assert metadata["index_end"] == ends_ms
        # What the index lacks by a day or less is what a daily ingestion leaves.
        assert (await ask(client, ends_ms + 2 * DAY_MS))["metadata"]["warnings"] == []
        error = await refusal(client, question(query_config={"lookback_days": 2}))
        assert said in error.data["suggestion"]
        for fresh in (await client.call("rag.stats"))["freshness"]:
            assert (fresh["index_end"], fresh["store_end"]) == (ends_ms, END_MS)
            assert fresh["index_behind_seconds"] == (END_MS - DAY_MS - ends_ms) / 1000


async def test_stats_tell_the_age_of_the_newest_state(corridor: Corridor) -> None:
    later_ms = END_MS + 3 * HOUR_MS
    async with query_server(corridor.settings(), {}, lambda: later_ms) as server:
        await server.start()
        async with await RpcClient.connect(*server.address) as client:
            freshness = (await client.call("rag.stats"))["freshness"]
        await server.stop()
    ages = [{row["series"]: row["age_seconds"] for row in one.pop("series")} for one in freshness]
    hours = {"candles_4h": 3, "candles_5m": 3, "funding": 11, "open_interest": 4}
    assert ages == [{series: 3600 * h for series, h in hours.items()} for _ in SYMBOLS]
    assert freshness == [
        {
            "symbol": symbol,
            "index_end": END_MS - DAY_MS,
            "store_end": END_MS,
            "state_as_of": END_MS,
            "state_age_seconds": 3 * 3600,
            "index_behind_seconds": 0,
        }
        for symbol in SYMBOLS
    ]


async def test_a_remedy_is_named_only_for_a_filter_that_was_applied(rag: RpcClient) -> None:
    config = {"min_similarity": 0.999, "include_regime_filters": False}
    suggestion = (await refusal(rag, question(query_config=config))).data["suggestion"]
    assert "min_similarity (0.999)" in suggestion
    assert "include_regime_filters" not in suggestion


async def test_stats_of_a_server_without_a_store_name_none(storeless: RpcClient) -> None:
    assert (await storeless.call("rag.stats"))["market_store"] is None


def references(document: Any) -> set[str]:
    """Every `$ref` in a document."""
    if isinstance(document, list):
        return {ref for item in document for ref in references(item)}
    if isinstance(document, dict):
        own = {document["$ref"]} if isinstance(document.get("$ref"), str) else set()
        return own | {ref for item in document.values() for ref in references(item)}
    return set()


async def test_discovery_lists_every_method_with_its_schemas(rag: RpcClient) -> None:
    document = await rag.call("rpc.discover")
    methods = {method["name"]: method for method in document["methods"]}
    assert set(methods) == {
        *("rag.query_patterns", "rag.query_batch", "rag.get_snapshot", "rag.stats"),
        *("rag.get_candles", "rag.get_funding", "rag.get_open_interest"),
        *("rag.cohort_open", "rag.cohort_refine", "rag.cohort_rank"),
        *("rag.list_decisions", "rag.get_decision"),
        "rag.forecast_quality",
        *("rag.compare_states", "rag.series_report", "rag.list_evaluations", "rag.paper_account"),
        *("rag.subscribe", "rag.unsubscribe", "admin.reload"),
        *("rpc.ping", "rpc.authenticate", "rpc.discover"),
    }
    parameters = {p["name"]: p["required"] for p in methods["rag.query_patterns"]["params"]}
    assert parameters == {
        "symbol": True,
        "timestamp": True,
        "current_state": False,
        "query_config": False,
        "timeout_ms": False,
    }
    moment = [p["name"] for p in methods["rag.get_snapshot"]["params"]]
    assert moment == ["symbol", "timestamp", "timeout_ms"]
    codes = {ref["$ref"].rpartition("/")[2] for ref in methods["rag.query_patterns"]["errors"]}
    assert {"-32602", "-32001", "-32002", "-32003", "-32004", "-32005"} <= codes

    schemas = document["components"]["schemas"]
    assert set(schemas["CurrentState"]["required"]) == set(REQUIRED_STATE)
    assert schemas["CurrentState"]["properties"]["rsi_7"]["maximum"] == 100
    for reference in references(document):
        here: Any = document
        for part in reference.removeprefix("#/").split("/"):
            here = here[part]
        assert isinstance(here, dict)
    assert "#/components/schemas/QueryPatternsResult" in references(document)


async def test_many_queries_at_once_get_the_answers_they_get_alone(rag: RpcClient) -> None:
    times = [AT_MS - n * 7 * QUARTER_MS for n in range(10)]
    alone = [without_durations(await ask(rag, at)) for at in times]
    together = await asyncio.gather(*(ask(rag, at) for at in times))
    assert [without_durations(answer) for answer in together] == alone
