"""One forecast is judged and served: at every query of a walk both have the same numbers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest

from llm_trader.app.evaluation import search_of
from llm_trader.embedding.text import TextSpace
from llm_trader.embedding.text_cache import QueryTexts
from llm_trader.evaluation.forecast.ensembles import HorizonOutcomes, forecast_quantiles
from llm_trader.evaluation.forecast.skills import WalkForward, score_forecasts, walk_forward
from llm_trader.evaluation.plan import DEFAULT_RULES, Scale
from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.index.points import STATE, TEXT, PointTable
from llm_trader.retrieval.answer import Evidence, HorizonEvidence
from llm_trader.retrieval.evidence import Neighbourhood
from llm_trader.retrieval.forecast import NEIGHBOURS, WEIGHT_OF_NEIGHBOURS
from llm_trader.retrieval.reference import QUANTILE_LEVELS
from llm_trader.retrieval.reference_forecasts import random_rows
from llm_trader.retrieval.regime import REGIME_FIELDS, regime_ranges
from llm_trader.retrieval.retriever import Retriever
from llm_trader.retrieval.search_spec import QueryVectors, SearchSpec
from llm_trader.timeframe import HORIZONS, HOUR_MS, M5
from tests.embedding.encoders import HashedWords
from tests.evaluation.small_market import made_market
from tests.retrieval.builders import COLLECTION, SPACE, state_of

TEXTS = TextSpace(HashedWords(), "compact")
HELD = msgspec.structs.replace(
    COLLECTION, text_space_id=TEXTS.space_id, text_dimension=TEXTS.dimension
)
# From before there are enough neighbours to the end of the market.
ASKED = np.arange(350, 5900, 331)
VECTORS: tuple[QueryVectors, ...] = ("state", "text", "hybrid")


class Served(NamedTuple):
    """What the server found and said at one time."""

    neighbours: Neighbourhood
    horizons: dict[str, HorizonEvidence]


class NotingRetriever(Retriever):
    """The server's, which keeps the neighbours of its last forecast."""

    noted: Neighbourhood

    def _evidence(self, query: Any, found: Any, *more: Any) -> Evidence:
        self.noted = found.neighbours
        return super()._evidence(query, found, *more)


@cache
def points() -> PointTable:
    market = made_market()
    vectors = {STATE: market.points.vectors[STATE], TEXT: TEXTS.embed(market.states)}
    return replace(market.points, vectors=vectors)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedIndex]:
    path: Path = tmp_path_factory.mktemp("served") / "index"
    with EmbeddedIndex.create_or_open(path, HELD) as opened:
        asyncio.run(opened.upsert(points()))
        yield opened


async def served(index: EmbeddedIndex, spec: SearchSpec) -> list[Served]:
    texts = QueryTexts(TEXTS)
    retriever = NotingRetriever(index, SPACE, texts)
    found = []
    for row in ASKED.tolist():
        as_of_ms = int(points().timestamp_ms[row])
        answer = await retriever.query(state_of(points(), row, as_of_ms), as_of_ms, spec)
        found.append(Served(retriever.noted, answer.evidence.horizons))
    await texts.aclose()
    return found


def judged(spec: SearchSpec) -> WalkForward:
    queries = points().take(ASKED)
    return walk_forward(points(), queries, search_of(spec), intraday=M5, step_ms=HOUR_MS, seed=0)


@pytest.mark.parametrize(
    ("vector", "filters"),
    [
        ("state", True),
        ("text", False),
        ("hybrid", True),
        pytest.param("state", False, marks=pytest.mark.soak),
        pytest.param("text", True, marks=pytest.mark.soak),
        pytest.param("hybrid", False, marks=pytest.mark.soak),
    ],
)
async def test_what_is_judged_at_each_query_is_what_the_server_says_there(
    index: EmbeddedIndex, vector: QueryVectors, filters: bool
) -> None:
    spec = SearchSpec(
        vector=vector, lookback_days=40, include_regime_filters=filters, min_similarity=0
    )
    of_server, walk = await served(index, spec), judged(spec)
    complete = walk.neighbours.complete
    for row, (neighbours, _) in enumerate(of_server):
        of_walk = walk.neighbours.rows[row]
        by_time = np.argsort(of_walk)[np.count_nonzero(of_walk < 0) :]
        rows = of_walk[by_time]
        stamps = neighbours.points.timestamp_ms[neighbours.rows]
        assert np.array_equal(points().timestamp_ms[rows], stamps)
        similarity = walk.neighbours.similarity[row][by_time]
        np.testing.assert_allclose(similarity, neighbours.similarity, atol=1e-6)
        assert complete[row] == (len(rows) == NEIGHBOURS)
    assert 0 < complete.sum() < len(complete)
    for scored in score_forecasts(walk, DEFAULT_RULES):
        forecasts, name = scored.forecasts, scored.horizon
        for row, (_, horizons) in enumerate(of_server):
            told = horizons[name].forecast
            assert told is not None
            assert horizons[name].expected_volatility_pct == forecasts.scale_pct[row]
            of_query = [column[row] for column in forecasts[:4]]
            if not complete[row]:
                assert told.weight_of_neighbours == 0
                assert np.isnan(of_query).all()
                continue
            assert told.weight_of_neighbours == WEIGHT_OF_NEIGHBOURS[name]
            expected = [told.p_up, *(told.quantiles[level - 1] for level in (10, 50, 90))]
            assert of_query == pytest.approx(expected, rel=1e-12, abs=1e-12)


async def test_the_references_of_served_forecasts_are_those_that_are_judged(
    index: EmbeddedIndex,
) -> None:
    spec = SearchSpec(lookback_days=40, min_similarity=0)
    walk, retriever = judged(spec), Retriever(index, SPACE)
    served, drawn = [], np.full_like(walk.neighbours.rows, -1)
    for row, asked in enumerate(ASKED.tolist()):
        as_of_ms = int(points().timestamp_ms[asked])
        state = state_of(points(), asked, as_of_ms)
        answer = await retriever.query(state, as_of_ms, spec, with_references=True)
        assert answer.references is not None
        served.append(answer.references)
        first, last = int(walk.random.first[row]), int(walk.random.last[row])
        regime = [float(state.column(name)[0]) for name in REGIME_FIELDS]
        ranges = tuple(regime_ranges(*regime).values())
        rows = random_rows(points().take(slice(first, last)), ranges, NEIGHBOURS, as_of_ms)
        drawn[row, : len(rows)] = first + rows
    random = walk.random._replace(rows=drawn)
    # The evaluation draws others, but as many, of the same states.
    assert np.array_equal(random.complete, walk.random.complete)
    assert 0 < random.complete.sum() < len(served)
    for place, (name, rule) in enumerate(DEFAULT_RULES.items()):
        in_units: dict[Scale, HorizonOutcomes] = {
            scale: HorizonOutcomes(walk.points, walk.queries, walk.neighbours, name, scale)
            for scale in ("expected", "last_24h")
        }
        alone = msgspec.structs.replace(rule, weight_of_neighbours=0.0)
        expected, last_24h = in_units["expected"], in_units["last_24h"]
        of_random = forecast_quantiles(expected, random, rule, QUANTILE_LEVELS)
        of_window = forecast_quantiles(last_24h, walk.neighbours, alone, QUANTILE_LEVELS)
        for row in np.flatnonzero(random.complete):
            rescaled = of_window[row] * last_24h.scale_pct[row]
            assert served[row].rescaled is not None
            assert served[row].rescaled[place] == pytest.approx(rescaled, rel=1e-12, abs=1e-12)
            mixed = of_random[row] * expected.scale_pct[row]
            assert served[row].random[place] == pytest.approx(mixed, rel=1e-12, abs=1e-12)


def test_the_rules_that_are_judged_by_default_are_those_of_the_server() -> None:
    assert {name: of.weight_of_neighbours for name, of in DEFAULT_RULES.items()} == (
        WEIGHT_OF_NEIGHBOURS
    )
    assert {(of.scale, of.kernel) for of in DEFAULT_RULES.values()} == {("expected", 0.0)}
    assert list(DEFAULT_RULES) == list(HORIZONS)
