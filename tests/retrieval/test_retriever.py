from __future__ import annotations

import uuid
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.embedding.state import StateSpace
from llm_trader.errors import ConfigurationError, EmbeddingError, SymbolNotFoundError
from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.index.points import STATE, PointTable, point_id
from llm_trader.retrieval.answer import Answer
from llm_trader.retrieval.episodes import earliest_episodes
from llm_trader.retrieval.reference import BaseRates
from llm_trader.retrieval.retriever import Retriever
from llm_trader.retrieval.search_spec import SearchSpec
from llm_trader.retrieval.statistics import OUTCOME_ROWS
from llm_trader.snapshot.outcome import LABELS
from llm_trader.snapshot.table import SnapshotTable
from llm_trader.timeframe import DAY_MS, HORIZONS, HOUR_MS, M3, M5, iso8601
from tests.index.builders import SLOT_MS, START_MS, SYMBOL, at, stored
from tests.retrieval.builders import (
    SPACE,
    TEN_FIELDS,
    comparable,
    index_of,
    of_symbol,
    outcomes_at,
    past,
    points_of,
    state_of,
    states_at,
    varied,
)
from tests.retrieval.conftest import SLOTS

# Late enough to see all of `past_points`.
LATE_MS = int(at([SLOTS])[0]) + DAY_MS
UNFILTERED = SearchSpec(include_regime_filters=False)

configs = st.builds(
    SearchSpec,
    lookback_days=st.sampled_from([1, 5, 90]),
    top_k=st.integers(1, 50),
    min_similarity=st.sampled_from([0.0, 0.45, 0.6, 0.7, 0.99]),
    include_regime_filters=st.booleans(),
    min_gap_hours=st.sampled_from([0.0, 0.25, 1.0, 4.0, 30.0]),
    evidence_k=st.integers(10, 80),
)
seeds = st.integers(0, 2**32)
times = st.integers(START_MS + 2 * DAY_MS, LATE_MS)
fields = st.sampled_from([(), TEN_FIELDS])


def drawn_state(seed: int, as_of_ms: int, names: tuple[str, ...] = ()) -> SnapshotTable:
    states = states_at(np.array([as_of_ms]), seed)
    if not names:
        return states
    values = {name: float(states.column(name)[0]) for name in names}
    return SnapshotTable.of_fields(SYMBOL, M5, as_of_ms, values)


def exact_similarity(state: SnapshotTable, points: PointTable) -> np.ndarray:
    """The weighted mean of cos Δθ over the features that the state has, feature by feature."""
    z = SPACE.standardise(state)[:, 0]
    visible = np.flatnonzero(np.isfinite(z))
    theta = np.pi / 2 * np.tanh(z[visible])
    blocks = (
        points.vectors[STATE]
        .astype(np.float64)
        .reshape(len(points), len(SPACE.features), 2)[:, visible]
    )
    angles = np.arctan2(blocks[:, :, 1], blocks[:, :, 0])
    weights = SPACE.weights[visible]
    return (np.cos(angles - theta) @ weights) / weights.sum()


def eligible(
    state: SnapshotTable, points: PointTable, as_of_ms: int, config: SearchSpec
) -> PointTable:
    """The points that the window and the regime of a state admit, told plainly."""
    kept = points.timestamp_ms >= as_of_ms - config.lookback_days * DAY_MS
    kept &= points.timestamp_ms + DAY_MS <= as_of_ms
    if config.include_regime_filters:
        delta, funding = (float(state.column(n)[0]) for n in ("oi_delta_pct", "funding_rate"))
        if abs(delta) > 5:
            kept &= np.abs(points.column("oi_delta_pct") - delta) <= 10
        if abs(funding) > 0.0001:
            kept &= np.sign(points.column("funding_rate")) == np.sign(funding)
    return points.take(kept)


@given(seed=seeds, as_of_ms=times, config=configs, names=fields)
async def test_matches_are_the_nearest_states_far_enough_apart(
    past_index: EmbeddedIndex,
    past_points: PointTable,
    seed: int,
    as_of_ms: int,
    config: SearchSpec,
    names: tuple[str, ...],
) -> None:
    state = drawn_state(seed, as_of_ms, names)
    answer = await Retriever(past_index, SPACE).query(state, as_of_ms, config)
    points = eligible(state, past_points, as_of_ms, config)
    assert answer.points_eligible == len(points)
    similar = dict(
        zip(points.timestamp_ms.tolist(), exact_similarity(state, points).tolist(), strict=True)
    )
    shown = {match.timestamp: match.similarity for match in answer.matches}
    assert shown == pytest.approx({stamp: similar[stamp] for stamp in shown}, abs=1e-5)
    in_order = [match.similarity for match in answer.matches]
    assert in_order == sorted(in_order, reverse=True)
    assert all(config.min_similarity <= s <= 1 for s in in_order)
    assert len(shown) == len(answer.matches) <= config.top_k
    gap_ms = config.min_gap_hours * HOUR_MS
    stamps = sorted(shown)
    assert all(b - a >= gap_ms for a, b in pairwise(stamps))
    # Every state left out is less similar than all matches, or near a match that is more so.
    least = min(in_order) if len(shown) == config.top_k else config.min_similarity
    for stamp, similarity in similar.items():
        if stamp not in shown and similarity > least + 1e-5:
            closer = [s for t, s in shown.items() if abs(t - stamp) < gap_ms]
            assert closer
            assert max(closer) >= similarity - 1e-5


@given(seed=seeds, as_of_ms=times, config=configs)
async def test_the_filters_told_are_those_applied(
    past_index: EmbeddedIndex,
    past_points: PointTable,
    seed: int,
    as_of_ms: int,
    config: SearchSpec,
) -> None:
    state = drawn_state(seed, as_of_ms)
    answer = await Retriever(past_index, SPACE).query(state, as_of_ms, config)
    delta, funding = (float(state.column(n)[0]) for n in ("oi_delta_pct", "funding_rate"))
    expected = ["symbol", "timerange", "resolved_at"]
    if config.include_regime_filters:
        expected += ["oi_delta"] * (abs(delta) > 5) + ["funding_sign"] * (abs(funding) > 0.0001)
    assert answer.filters_applied == expected
    assert answer.points_eligible == len(eligible(state, past_points, as_of_ms, config))
    for match in answer.matches:
        if "oi_delta" in expected:
            assert abs(match.market_state.oi_delta_pct - delta) <= 10
        if "funding_sign" in expected:
            assert match.market_state.funding_rate * funding > 0


async def test_each_filter_is_seen_to_be_applied(past_index: EmbeddedIndex) -> None:
    plain = varied(drawn_state(1, LATE_MS), oi_delta_pct=0.0, funding_rate=0.0)
    retriever = Retriever(past_index, SPACE)
    answers = {}
    for name, fields_of in {
        "none": {},
        "oi_delta": {"oi_delta_pct": 7.0},
        "funding_sign": {"funding_rate": -0.0002},
    }.items():
        answer = await retriever.query(varied(plain, **fields_of), LATE_MS, SearchSpec())
        answers[name] = answer
    assert answers["none"].points_eligible == SLOTS
    for name in ("oi_delta", "funding_sign"):
        assert answers[name].filters_applied[3:] == [name]
        assert 0 < answers[name].points_eligible < SLOTS


@given(row=st.integers(0, SLOTS - 1))
async def test_a_match_tells_the_point_it_is(
    past_index: EmbeddedIndex, past_points: PointTable, row: int
) -> None:
    as_of_ms = LATE_MS
    state = state_of(past_points, row, as_of_ms)
    answer = await Retriever(past_index, SPACE).query(state, as_of_ms, UNFILTERED)
    first = answer.matches[0]
    stamp = int(past_points.timestamp_ms[row])
    assert (first.timestamp, first.resolved_at) == (stamp, stamp + DAY_MS)
    assert first.similarity == pytest.approx(1, abs=1e-6)
    assert first.date == iso8601(stamp)
    assert first.id == point_id(SYMBOL, stamp, SPACE.feature_version)
    assert uuid.UUID(first.id).version == 5
    for name in ("rsi_7", "rsi_14", "macd", "ema_ratio", "oi_delta_pct", "funding_rate"):
        assert getattr(first.market_state, name) == past_points.column(name)[row]
    for name in (*(f"outcome_{h}" for h in HORIZONS), "max_runup_1h", "max_drawdown_1h"):
        assert getattr(first.outcomes, name) == past_points.column(name)[row]
    assert first.outcomes.hit_stop_loss == (past_points.column("max_drawdown_1h")[row] <= -2)
    assert first.outcomes.hit_take_profit == (past_points.column("max_runup_1h")[row] >= 3)
    barrier = ("none", "stop", "target")[int(past_points.column("first_barrier")[row])]
    assert first.outcomes.first_barrier == barrier
    assert first.similarity_percentile == 100


@given(row=st.integers(0, SLOTS - 1))
async def test_a_query_of_the_ten_fields_of_old_finds_its_own_point_first(
    past_index: EmbeddedIndex, past_points: PointTable, row: int
) -> None:
    # The hour of the day is known from the time of a query, so it is asked at the same hour.
    stamp = int(past_points.timestamp_ms[row])
    as_of_ms = LATE_MS + (stamp - LATE_MS) % DAY_MS
    state = state_of(past_points, row, as_of_ms, *TEN_FIELDS)
    answer = await Retriever(past_index, SPACE).query(state, as_of_ms, UNFILTERED)
    assert answer.matches[0].timestamp == stamp
    assert answer.matches[0].similarity == pytest.approx(1, abs=1e-6)
    assert answer.matches[0].similarity <= 1
    assert {"return_1h", "volatility_24h", "price_slope"} <= set(answer.features_missing)
    assert not {"rsi_7", "oi_delta_pct", "hour_sine"} & set(answer.features_missing)
    assert answer.evidence.horizons["4h"].rescaled is None


@given(seed=seeds, low=configs, high=configs)
async def test_what_is_shown_does_not_change_the_evidence(
    past_index: EmbeddedIndex, seed: int, low: SearchSpec, high: SearchSpec
) -> None:
    shown = {"top_k": high.top_k, "min_similarity": high.min_similarity}
    retriever = Retriever(past_index, SPACE)
    state = drawn_state(seed, LATE_MS)
    low_answer = await retriever.query(state, LATE_MS, low)
    high_answer = await retriever.query(state, LATE_MS, msgspec.structs.replace(low, **shown))
    assert low_answer.evidence == high_answer.evidence
    assert low_answer.points_eligible == high_answer.points_eligible


async def test_evidence_is_of_states_that_are_not_similar_enough_to_be_shown(
    past_index: EmbeddedIndex, past_points: PointTable
) -> None:
    state = drawn_state(4, LATE_MS)
    config = SearchSpec(min_similarity=0.999, include_regime_filters=False)
    answer = await Retriever(past_index, SPACE).query(state, LATE_MS, config)
    assert answer.matches == []
    assert answer.statistics.total_matches == 0
    assert answer.statistics.outcome_4h.mean is None
    assert answer.statistics.outcome_4h.win_rate is None
    assert answer.evidence.episodes == 50
    assert answer.evidence.base_rate_points == SLOTS
    base = BaseRates.of(past_points)
    assert answer.evidence.horizons["1h"].mean.base_rate == base.mean[1]
    assert answer.evidence.similarity_range[1] < 0.999


@given(seed=seeds)
async def test_evidence_sums_up_the_earliest_of_the_nearest_episodes(
    past_index: EmbeddedIndex, past_points: PointTable, seed: int
) -> None:
    state = drawn_state(seed, LATE_MS)
    config = SearchSpec(include_regime_filters=False, evidence_k=30, lookback_days=365)
    evidence = (await Retriever(past_index, SPACE).query(state, LATE_MS, config)).evidence
    visible = past_points.take(past_points.resolved_at_ms <= LATE_MS)
    similarity = visible.vectors[STATE] @ SPACE.embed_query(state).vector
    nearest = np.argsort(-similarity, kind="stable")
    chosen = nearest[earliest_episodes(visible.timestamp_ms[nearest], 4 * HOUR_MS, 30)]
    assert evidence.episodes == 30
    assert evidence.similarity_range == pytest.approx(
        (similarity[chosen].min(), similarity[chosen].max()), abs=1e-6
    )
    assert evidence.similarity_mean == pytest.approx(similarity[chosen].mean(), abs=1e-6)
    for name in HORIZONS:
        outcomes = visible.column(f"outcome_{name}")[chosen]
        assert evidence.horizons[name].mean.value == pytest.approx(np.mean(outcomes))
        assert evidence.horizons[name].p50.value == pytest.approx(np.median(outcomes))
    volatility = float(state.column("realized_volatility_24h")[0])
    then = visible.column("realized_volatility_24h")[chosen]
    scaled = visible.column("outcome_24h")[chosen] * volatility / then
    assert evidence.horizons["24h"].rescaled.mean == pytest.approx(scaled.mean())


async def test_a_few_episodes_far_apart_are_found_among_many_near_ones() -> None:
    # A thousand near twins within hours, and the rest unlike them: more hits must be fetched.
    times = at(range(3000))
    states = states_at(times, 5)
    twins = np.repeat(states.scalars[:, 1000:1001], 1000, axis=1)
    states.scalars[:, 1000:2000] = twins
    points = points_of(states, outcomes_at(3000, 5))
    as_of_ms = int(times[-1]) + DAY_MS
    state = state_of(points, 1000, as_of_ms)
    config = SearchSpec(top_k=50, min_similarity=0.0, include_regime_filters=False)
    async with index_of(points) as index:
        answer = await Retriever(index, SPACE).query(state, as_of_ms, config)
    assert len(answer.matches) == answer.evidence.episodes == 50
    stamps = sorted(match.timestamp for match in answer.matches)
    assert min(np.diff(stamps)) >= 4 * HOUR_MS
    # Of equally similar ones the oldest is first, and then each that is four hours later.
    expected = [int(t) for t in at(range(1000, 2000, 16))[:50]]
    assert [match.timestamp for match in answer.matches] == expected


async def test_novelty_does_not_depend_on_the_regime_filters(past_index: EmbeddedIndex) -> None:
    differed = 0
    retriever = Retriever(past_index, SPACE)
    for seed in range(20):
        state = varied(drawn_state(seed, LATE_MS), oi_delta_pct=9.0, funding_rate=-0.0003)
        filtered = await retriever.query(state, LATE_MS, SearchSpec(min_similarity=0.0))
        free = await retriever.query(
            state, LATE_MS, SearchSpec(min_similarity=0.0, include_regime_filters=False)
        )
        assert len(filtered.filters_applied) == 5
        assert filtered.evidence.novelty == free.evidence.novelty
        assert free.evidence.novelty.nearest_similarity == free.matches[0].similarity
        differed += filtered.matches[0].timestamp != free.matches[0].timestamp
    assert differed > 5


async def test_a_state_of_old_is_common_and_one_of_another_world_is_novel(
    past_index: EmbeddedIndex, past_points: PointTable
) -> None:
    retriever = Retriever(past_index, SPACE)
    visible = await retriever.query(state_of(past_points, 700, LATE_MS), LATE_MS, UNFILTERED)
    extremes = {"rsi_7": 100.0, "rsi_14": 0.0, "price_slope": 50.0, "ema_20_slope": -50.0}
    extremes |= {"macd_slope": 50.0, "rsi_7_slope": -900.0, "rsi_14_slope": 900.0}
    extremes |= {"volume_ratio": 1e4, "oi_delta_pct": 90.0, "funding_rate": -0.02}
    extremes |= {"ema_ratio": 2.0, "macd_4h_slope": 9.0, "rsi_14_4h_slope": -90.0}
    strange = varied(state_of(past_points, 700, LATE_MS), **extremes)
    novel = await retriever.query(strange, LATE_MS, UNFILTERED)
    assert visible.evidence.novelty.percentile == 0
    assert novel.evidence.novelty.percentile == 100
    assert novel.evidence.verdict == "none"
    assert "unlike the past" in novel.evidence.reason
    assert visible.evidence.novelty.reference_states == 128


async def test_a_window_without_points_is_no_evidence_and_no_error(
    past_index: EmbeddedIndex,
) -> None:
    retriever = Retriever(past_index, SPACE)
    for as_of_ms in (START_MS, START_MS + DAY_MS - 1, LATE_MS + 400 * DAY_MS):
        answer = await retriever.query(drawn_state(1, as_of_ms), as_of_ms, SearchSpec())
        assert answer.matches == []
        assert answer.points_eligible == 0
        assert answer.evidence.verdict == "none"
        assert answer.evidence.reason.startswith("the lookback reaches no past state")
        assert answer.evidence.base_rate_points == 0
        assert answer.evidence.horizons == {}
        assert answer.statistics.avg_similarity is None


async def test_filters_that_no_point_passes_are_no_evidence_but_tell_the_window(
    past_index: EmbeddedIndex,
) -> None:
    state = varied(drawn_state(1, LATE_MS), oi_delta_pct=500.0)
    answer = await Retriever(past_index, SPACE).query(state, LATE_MS, SearchSpec())
    assert "oi_delta" in answer.filters_applied
    assert (answer.points_eligible, answer.matches) == (0, [])
    assert answer.evidence.verdict == "none"
    assert answer.evidence.reason == (
        "none of the 2000 past states known by then passes the filters"
    )
    assert answer.evidence.base_rate_points == SLOTS


async def test_the_first_resolved_point_alone_is_an_answer_without_a_verdict(
    past_index: EmbeddedIndex,
) -> None:
    as_of_ms = START_MS + DAY_MS
    answer = await Retriever(past_index, SPACE).query(
        drawn_state(1, as_of_ms), as_of_ms, SearchSpec(min_similarity=0.0)
    )
    assert answer.points_eligible in (0, 1)
    unfiltered = await Retriever(past_index, SPACE).query(
        drawn_state(1, as_of_ms),
        as_of_ms,
        SearchSpec(min_similarity=0.0, include_regime_filters=False),
    )
    assert [match.timestamp for match in unfiltered.matches] == [START_MS]
    assert unfiltered.matches[0].similarity_percentile is None
    assert unfiltered.evidence.verdict == "none"
    assert unfiltered.evidence.novelty is None
    assert unfiltered.evidence.episodes == unfiltered.evidence.base_rate_points == 1
    assert b"NaN" not in msgspec.json.encode(unfiltered)


@given(seed=seeds, as_of_ms=times, config=configs)
async def test_the_same_query_has_the_same_answer_from_a_used_and_a_fresh_retriever(
    past_index: EmbeddedIndex, seed: int, as_of_ms: int, config: SearchSpec
) -> None:
    state = drawn_state(seed, as_of_ms)
    used = Retriever(past_index, SPACE)
    first = await used.query(state, as_of_ms, config)
    again = await used.query(state, as_of_ms, config)
    fresh = await Retriever(past_index, SPACE).query(state, as_of_ms, config)
    assert comparable(first) == comparable(again) == comparable(fresh)


# Values at which one half of a feature's angle is exactly nothing.
CENTRES = [{"hour_of_day": 0.0}, {"oi_delta_pct": 0.0, "rsi_7": 50.0, "price_change_1h": 0.0}]


@pytest.mark.parametrize("centred", CENTRES, ids=["midnight", "standstill"])
async def test_an_answer_does_not_depend_on_what_was_asked_before(
    past_index: EmbeddedIndex, centred: dict[str, float]
) -> None:
    state = drawn_state(3, LATE_MS)
    expected = await Retriever(past_index, SPACE).query(state, LATE_MS, UNFILTERED)
    used = Retriever(past_index, SPACE)
    await used.query(varied(drawn_state(9, LATE_MS), **centred), LATE_MS, UNFILTERED)
    after = await used.query(state, LATE_MS, UNFILTERED)
    assert comparable(after) == comparable(expected)


async def test_an_answer_does_not_depend_on_queries_of_fewer_fields_before_it(
    past_index: EmbeddedIndex,
) -> None:
    state = drawn_state(3, LATE_MS)
    expected = await Retriever(past_index, SPACE).query(state, LATE_MS, UNFILTERED)
    used = Retriever(past_index, SPACE)
    await used.query(drawn_state(3, LATE_MS, TEN_FIELDS), LATE_MS, UNFILTERED)
    after = await used.query(state, LATE_MS, UNFILTERED)
    assert comparable(after) == comparable(expected)


async def test_newly_written_points_are_found_by_the_next_query() -> None:
    points = past(range(600), seed=6)
    as_of_ms = int(points.timestamp_ms[-1]) + 3 * DAY_MS
    state = drawn_state(77, as_of_ms)
    twin_values = np.concatenate([state.scalars[:, 0], points.values[-len(LABELS) :, 5]])
    vector = SPACE.embed(state)[0]

    def twin(stamp: int) -> PointTable:
        stamps = np.array([stamp])
        return PointTable.checked(SYMBOL, stamps, twin_values[:, None], {STATE: vector}, 2)

    async with index_of(points) as index:
        retriever = Retriever(index, SPACE)
        earlier = await retriever.query(state, as_of_ms, UNFILTERED)
        inside = START_MS + 300 * SLOT_MS + 1000  # between two points
        await index.upsert(twin(inside))
        after = await retriever.query(state, as_of_ms, UNFILTERED)
        behind = int(points.timestamp_ms[-1]) + DAY_MS
        await index.upsert(twin(behind))
        at_last = await retriever.query(state, as_of_ms, UNFILTERED)
        fresh = await Retriever(index, SPACE).query(state, as_of_ms, UNFILTERED)
    assert not earlier.matches or earlier.matches[0].similarity < 0.99
    assert after.matches[0].timestamp == inside
    assert after.matches[0].similarity == pytest.approx(1, abs=1e-6)
    assert [match.timestamp for match in at_last.matches[:2]] == [inside, behind]
    counts = [a.evidence.base_rate_points for a in (earlier, after, at_last)]
    assert counts == [600, 601, 602]
    assert comparable(at_last) == comparable(fresh)


async def test_points_replaced_by_a_later_run_count_from_the_next_query() -> None:
    points = past(range(600), seed=6)
    as_of_ms = int(points.timestamp_ms[-1]) + DAY_MS
    state = drawn_state(77, as_of_ms)
    values = points.values.copy()
    values[OUTCOME_ROWS] += 10
    corrected = PointTable.checked(
        SYMBOL, points.timestamp_ms, values, {STATE: points.vectors[STATE][::-1]}, 2
    )
    async with index_of(points) as index:
        retriever = Retriever(index, SPACE)
        earlier = await retriever.query(state, as_of_ms, UNFILTERED)
        await index.upsert(corrected)
        after = await retriever.query(state, as_of_ms, UNFILTERED)
        fresh = await Retriever(index, SPACE).query(state, as_of_ms, UNFILTERED)
    rates = [a.evidence.horizons["4h"].mean.base_rate for a in (earlier, after)]
    assert rates[1] == pytest.approx(rates[0] + 10)
    assert comparable(after) == comparable(fresh)


async def test_symbols_do_not_mix_in_an_answer() -> None:
    bitcoin, ether = past(range(300), seed=1), past(range(300), seed=2)
    as_of_ms = int(bitcoin.timestamp_ms[-1]) + DAY_MS
    async with index_of(bitcoin, of_symbol(ether, "ETHUSDT")) as index:
        retriever = Retriever(index, SPACE)
        answers: list[Answer] = []
        for points in (bitcoin, of_symbol(ether, "ETHUSDT")):
            state = state_of(points, 40, as_of_ms)
            answers.append(await retriever.query(state, as_of_ms, UNFILTERED))
    for answer, points in zip(answers, (bitcoin, ether), strict=True):
        assert answer.matches[0].similarity == pytest.approx(1, abs=1e-6)
        assert answer.evidence.horizons["1h"].mean.base_rate == pytest.approx(
            points.column("outcome_1h").mean()
        )
    assert answers[0].matches[0].id != answers[1].matches[0].id


async def test_a_symbol_without_points_is_refused_with_those_there_are(
    past_index: EmbeddedIndex,
) -> None:
    plain = drawn_state(1, LATE_MS)
    state = SnapshotTable("XRPUSDT", M5, plain.as_of_ms, plain.scalars, plain.series)
    with pytest.raises(SymbolNotFoundError, match="available: BTCUSDT"):
        await Retriever(past_index, SPACE).query(state, LATE_MS, SearchSpec())


async def test_a_state_that_says_too_little_is_refused(past_index: EmbeddedIndex) -> None:
    state = SnapshotTable.of_fields(SYMBOL, M5, LATE_MS, {"price": 100.0, "rsi_7": 30.0})
    with pytest.raises(EmbeddingError, match=r"too few known fields.*send more"):
        await Retriever(past_index, SPACE).query(state, LATE_MS, SearchSpec())


def test_an_index_of_another_space_is_refused_with_both_ids(past_index: EmbeddedIndex) -> None:
    other = StateSpace(M3)
    with pytest.raises(ConfigurationError, match=f"{SPACE.space_id}.*{other.space_id}"):
        Retriever(past_index, other)


async def test_only_the_horizons_asked_for_are_in_the_evidence(past_index: EmbeddedIndex) -> None:
    config = SearchSpec(horizons=("4h",), include_regime_filters=False)
    answer = await Retriever(past_index, SPACE).query(drawn_state(1, LATE_MS), LATE_MS, config)
    assert list(answer.evidence.horizons) == ["4h"]
    assert len(await stored(past_index)) == SLOTS


async def test_a_query_tells_the_ends_of_its_stages_in_order(past_index: EmbeddedIndex) -> None:
    ended: list[str] = []
    state = drawn_state(0, LATE_MS)
    await Retriever(past_index, SPACE).query(state, LATE_MS, SearchSpec(), ended.append)
    assert list(dict.fromkeys(ended)) == ["embed", "search", "select", "evidence"]
    assert ended.count("evidence") == 1
