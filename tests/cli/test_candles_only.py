"""A market of which only candles are known, and one with open interest for a part of the time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from llm_trader.cli import options
from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.index.points import STATE
from llm_trader.market.history import MarketHistory
from llm_trader.market.simulation import simulate
from llm_trader.market.store import MarketStore
from llm_trader.serving.wire import REQUIRED_STATE
from llm_trader.snapshot.model import OPTIONAL_FIELDS
from llm_trader.timeframe import DAY_MS, HOUR_MS, M5, MINUTE_MS, iso8601
from tests.cli.conftest import Typing
from tests.cli.corridor import START_MS, SYMBOL, Corridor, answering, write
from tests.index import qdrant_stub
from tests.index.builders import stored
from tests.market.builders import EMPTY_FUNDING, EMPTY_OPEN_INTEREST

DAYS = 26
END_MS = START_MS + DAYS * DAY_MS
# Warm after 20 days, and the outcomes of the last day are not known yet.
STATES = (DAYS - 21) * 96 + 1
AS_OF_MS = END_MS - 6 * HOUR_MS


@dataclass(frozen=True)
class Site:
    store: Path
    index: Path

    @property
    def paths(self) -> str:
        return f"--store {self.store} --index {self.index}"


def whole() -> MarketHistory:
    return simulate(SYMBOL, start_ms=START_MS, days=DAYS, seed=7, timeframe=M5)


def candles_only() -> MarketHistory:
    return replace(whole(), funding=EMPTY_FUNDING, open_interest=EMPTY_OPEN_INTEREST)


def make_site(folder: Path, history: MarketHistory) -> Site:
    with MarketStore.open(folder / "store", write=True, exchange="simulated") as store:
        if len(history.funding):
            write(store, history)
        else:
            for candles in (history.intraday, history.four_hour):
                store.write(SYMBOL, candles, "simulated", written_at_ms=END_MS)
    return Site(folder / "store", folder / "index")


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "now_ms", lambda: END_MS)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path, candles_only())


def ingest(typed: Typing, site: Site, more: str = "--json") -> Any:
    ran = typed(f"rag-ingest --start {DAYS} {site.paths} {more}")
    assert ran.code == 0
    return ran.json[0] if "--json" in more else ran.out


def answers(
    site: Site, history: MarketHistory, *calls: tuple[str, dict[str, Any] | None], **settings: Any
) -> list[Any]:
    """The answers of a server of the site to calls, in their order."""

    async def ask() -> list[Any]:
        corridor = Corridor(site.store, site.index, {SYMBOL: history})
        async with answering(corridor, **settings) as client:
            return [await client.call(*call) for call in calls]

    return asyncio.run(ask())


def query(as_of_ms: int = AS_OF_MS, **config: Any) -> tuple[str, dict[str, Any]]:
    config = {"min_similarity": 0, **config}
    params = {"symbol": SYMBOL, "timestamp": as_of_ms, "query_config": config}
    return "rag.query_patterns", params


def test_candles_alone_give_all_states_and_it_is_said_what_these_lack(
    typed: Typing, site: Site
) -> None:
    told = ingest(typed, site)
    assert told["added"] == STATES
    assert (told["without_open_interest"], told["without_funding"]) == (STATES, STATES)
    assert "no fresh open interest" not in told["refused"]
    again = ingest(typed, site)
    assert (again["added"], again["already_there"]) == (0, STATES)
    assert (again["without_open_interest"], again["without_funding"]) == (0, 0)
    info = typed(f"llm-trader index info --index {site.index}")
    assert f"{SYMBOL}: {STATES} states without open interest" in info.out
    assert f"{SYMBOL}: {STATES} states without funding" in info.out


def test_the_printed_report_of_an_ingestion_counts_what_lacks_something(
    typed: Typing, site: Site
) -> None:
    shown = ingest(typed, site, "")
    assert f"{SYMBOL}: {STATES} written without open interest, compared over the rest" in shown
    assert f"{SYMBOL}: {STATES} written without funding, compared over the rest" in shown


def test_the_states_of_candles_alone_are_those_of_the_whole_market_but_for_what_they_lack(
    typed: Typing, site: Site, tmp_path: Path
) -> None:
    other = make_site(tmp_path / "whole", whole())
    ingest(typed, site)
    complete = ingest(typed, other)
    assert (complete["without_open_interest"], complete["without_funding"]) == (0, 0)

    def points(index: Path) -> Any:
        with EmbeddedIndex.open(index) as opened:
            return asyncio.run(stored(opened, SYMBOL))

    lacking, full = points(site.index), points(other.index)
    assert lacking.timestamp_ms.tolist() == full.timestamp_ms.tolist()
    unknown = {"open_interest_latest", "open_interest_avg_24h", "oi_delta_pct", "funding_rate"}
    for name in ("price", "rsi_14", "expected_volatility_24h", "outcome_4h", "atr_14_4h"):
        assert lacking.column(name).tobytes() == full.column(name).tobytes()
    for name in unknown:
        assert not any(value == value for value in lacking.column(name).tolist())
    norms = (lacking.vectors[STATE].astype(float) ** 2).sum(axis=1)
    assert norms.tolist() == pytest.approx([1] * STATES, abs=1e-6)


def test_a_server_answers_from_candles_alone_and_says_what_is_missing(
    typed: Typing, site: Site
) -> None:
    ingest(typed, site)
    answer, stats = answers(site, candles_only(), query(), ("rag.stats", None))
    metadata, evidence = answer["metadata"], answer["evidence"]
    assert metadata["features_missing"] == ["oi_delta_pct", "funding_rate"]
    (warning,) = metadata["warnings"]
    assert warning == (
        f"the state of {iso8601(AS_OF_MS)} lacks open interest and funding, and is compared without"
    )
    assert metadata["points_eligible"] > 300
    assert evidence["horizons"]["1h"]["forecast"] is not None
    assert evidence["episodes_compared_in_part"] == evidence["episodes"] > 5
    for match in answer["matches"]:
        assert match["market_state"]["oi_delta_pct"] is None
        assert match["market_state"]["funding_rate"] is None
        assert match["compared_share"] == pytest.approx(31 / 33)
        assert match["similarity_percentile"] is not None
        assert -1 <= match["similarity"] <= 1
    (extent,) = stats["index"]["symbols"]
    assert extent["without_open_interest"] == extent["without_funding"] == STATES
    (fresh,) = stats["freshness"]
    assert fresh["state_as_of"] == END_MS


def test_a_client_of_such_a_market_sends_null_for_what_there_is_not(
    typed: Typing, site: Site
) -> None:
    ingest(typed, site)
    corridor = Corridor(site.store, site.index, {SYMBOL: candles_only()})
    sent: dict[str, Any] = corridor.fields_at(AS_OF_MS, *REQUIRED_STATE)
    sent |= {name: None for name, value in sent.items() if value != value}
    unknown = {name for name, value in sent.items() if value is None}
    assert unknown == OPTIONAL_FIELDS.intersection(REQUIRED_STATE)
    method, params = query()
    with_state = method, {**params, "current_state": sent}
    own, of_store = answers(site, candles_only(), with_state, query())
    assert own["metadata"]["state_source"] == "request+store"
    assert not OPTIONAL_FIELDS.intersection(own["metadata"]["fields_completed"])
    assert own["metadata"]["features_missing"] == ["oi_delta_pct", "funding_rate"]
    assert own["matches"] == of_store["matches"]


def test_no_answer_from_candles_alone_leaks(typed: Typing, site: Site) -> None:
    ingest(typed, site)
    ran = typed(f"llm-trader leak-check --samples 3 {site.paths} --json")
    assert ran.code == 0
    assert (ran.json["queries"], ran.json["leaks"]) == (3, [])
    assert ran.json["matches_checked"] > 20


@pytest.mark.filterwarnings("ignore:Api key is used")
@pytest.mark.soak
def test_points_that_lack_something_are_migrated_to_qdrant_and_answer_the_same(
    typed: Typing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site(tmp_path, partly())
    told = ingest(typed, site)
    assert 0 < told["without_open_interest"] < STATES
    with qdrant_stub.start() as stub:
        monkeypatch.setenv("LLM_TRADER_INDEX__QDRANT__GRPC_PORT", str(stub.grpc_port))
        places = f"--index {site.index} --qdrant-url {stub.url}"
        ran = typed(f"llm-trader index migrate --from embedded --to qdrant {places} --json")
        assert (ran.code, ran.json["problems"]) == (0, [])
        agreement = ran.json["agreement"]
        assert agreement["identical"] == agreement["questions"] == 50
        info = typed(f"llm-trader index info --qdrant-url {stub.url} --json").json["info"]
    (extent,) = info["symbols"]
    assert extent["without_open_interest"] == told["without_open_interest"]


def partly() -> MarketHistory:
    """Open interest from the middle of the indexed time on, and funding throughout."""
    history = whole()
    first_ms = START_MS + 22 * DAY_MS + 12 * HOUR_MS
    return replace(history, open_interest=history.open_interest.between(first_ms, None))


def test_states_with_open_interest_and_without_are_found_side_by_side(
    typed: Typing, tmp_path: Path
) -> None:
    site = make_site(tmp_path, partly())
    ingest(typed, site)
    unfiltered = query(top_k=50, min_gap_hours=0, include_regime_filters=False)
    answer, filtered = answers(site, partly(), unfiltered, query(top_k=50, min_gap_hours=0))
    assert answer["metadata"]["features_missing"] == []
    assert answer["metadata"]["warnings"] == []
    shares = sorted({match["compared_share"] for match in answer["matches"]})
    assert shares == pytest.approx([32 / 33, 1.0])
    assert 0 < answer["evidence"]["episodes_compared_in_part"] < answer["evidence"]["episodes"]
    for match in answer["matches"]:
        lacks = match["market_state"]["oi_delta_pct"] is None
        assert lacks == (match["compared_share"] < 1)
        assert match["market_state"]["funding_rate"] is not None
    if "oi_delta" in filtered["metadata"]["filters_applied"]:
        assert all(m["market_state"]["oi_delta_pct"] is not None for m in filtered["matches"])


def test_a_state_without_open_interest_takes_the_place_of_an_older_one_and_says_so(
    typed: Typing, tmp_path: Path
) -> None:
    history = whole()
    interest_ends_ms = END_MS - 3 * HOUR_MS
    history = replace(history, open_interest=history.open_interest.between(None, interest_ends_ms))
    site = make_site(tmp_path, history)
    ingest(typed, site)
    moment = "rag.get_snapshot", {"symbol": SYMBOL, "timestamp": END_MS}
    allowed = {"serving__max_data_age_minutes": 240}
    answer, got = answers(site, history, query(END_MS), moment, **allowed)
    metadata, snapshot = answer["metadata"], got["snapshot"]
    assert (metadata["state_as_of"], metadata["features_missing"]) == (END_MS, ["oi_delta_pct"])
    (warning,) = metadata["warnings"]
    assert "lacks open interest, and is compared without; the newest state that" in warning
    assert (snapshot["timestamp"], snapshot["open_interest_latest"]) == (END_MS, None)
    corridor = Corridor(site.store, site.index, {SYMBOL: history})
    times = range(END_MS, END_MS - 4 * HOUR_MS, -15 * MINUTE_MS)
    complete_ms = next(time for time in times if corridor.state_at(time).complete()[0])
    assert warning.endswith(f"lacks nothing is of {iso8601(complete_ms)}")
