"""A process that ingests again and again is one run, and tries nothing twice in vain."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_trader.index import ingestion
from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.index.ingestion import EarlierRuns, IngestReport, Spaces, ingest
from llm_trader.market.store import MarketStore
from llm_trader.timeframe import DAY_MS, HOUR_MS
from tests.index.builders import SYMBOL, same_content, stored
from tests.index.markets import (
    COLLECTION,
    END_MS,
    NOW_MS,
    SPACE,
    WARM_MS,
    ingested,
    make_store,
    market,
    plan,
    write,
)

HOLE_MS = END_MS - 5 * DAY_MS


async def test_only_what_can_have_become_possible_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history, tried = market(), []
    make_points = ingestion.make_points

    def counted(*arguments: object) -> object:
        tried.extend(arguments[2].tolist())  # type: ignore[attr-defined]
        return make_points(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(ingestion, "make_points", counted)
    path, earlier = make_store(tmp_path / "store"), EarlierRuns()
    with (
        MarketStore.open(path, write=True) as store,
        EmbeddedIndex.create_or_open(tmp_path / "index", COLLECTION) as index,
    ):

        async def again() -> IngestReport:
            tried.clear()
            spaces, whole = Spaces(SPACE), plan(start_ms=WARM_MS - 5 * DAY_MS)
            arguments = (store, index, spaces, [SYMBOL], whole)
            (report,) = await ingest(*arguments, build_id="t", now_ms=NOW_MS, earlier=earlier)
            return report

        write(store, history.known_at(HOLE_MS))
        assert (await again()).added > 0
        assert len(tried) > 5 * 96  # also those without a warm-up, in vain
        report = await again()
        assert (tried, report.added, report.refused) == ([], 0, {})

        # The candles of an hour are missing, then a day goes on.
        after = history.known_at(HOLE_MS + DAY_MS)
        late = after.intraday.between(HOLE_MS + HOUR_MS, None)
        store.write(SYMBOL, late, "feed", written_at_ms=NOW_MS)
        report = await again()
        assert 0 < len(tried) <= 2 * 96
        assert min(tried) >= HOLE_MS - DAY_MS
        assert report.added < len(tried)

        write(store, history)
        assert (await again()).added > 0
        assert min(tried) > HOLE_MS - 2 * DAY_MS
        followed = await stored(index)
        assert {run.run for run in (await index.info()).runs} == {1}
    with EmbeddedIndex.create_or_open(tmp_path / "afterwards", COLLECTION) as index:
        await ingested(path, index)
        assert same_content(followed, await stored(index))
