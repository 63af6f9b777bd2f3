from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from llm_trader.llm.prompt.evidence import evidence_lines
from llm_trader.llm.prompt.render import (
    ARMS,
    TEMPLATE_VERSION,
    Prompt,
    PromptOptions,
    render_both,
    render_prompt,
)
from llm_trader.llm.prompt.retrieved import Retrieved
from llm_trader.llm.providers.protocol import Message
from llm_trader.retrieval.evidence import no_evidence
from llm_trader.snapshot.model import SCALARS, SERIES, MarketSnapshot
from llm_trader.timeframe import DAY_MS
from tests.llm.prompt.examples import NAMES, estimated_tokens, example

MASKED = PromptOptions(masked=True)
RAG = example("rag")
SNAPSHOT = RAG.snapshot
assert RAG.result is not None
RETRIEVED: Retrieved = RAG.result
QUOTE_FIELDS = (
    *("price", "macd", "ema_20", "ema_20_4h", "ema_50_4h", "atr_3_4h", "atr_14_4h", "macd_4h"),
    *("mid_prices", "ema_20_values", "macd_values", "macd_4h_values"),
)
NUMBERS = st.none() | st.floats(allow_nan=True, allow_infinity=True)


def rag(
    snapshot: MarketSnapshot = SNAPSHOT,
    retrieved: Retrieved | None = RETRIEVED,
    options: PromptOptions = RAG.options,
) -> Prompt:
    return render_prompt("rag", snapshot, retrieved, options)


def line_with(prompt: Prompt, start: str) -> str:
    (line,) = (line for line in prompt.user.split("\n") if line.startswith(start))
    return line


def scaled(factor: float) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    for name in QUOTE_FIELDS:
        value = getattr(SNAPSHOT, name)
        changed[name] = [v * factor for v in value] if isinstance(value, list) else value * factor
    return changed


# --- The examples


@pytest.mark.parametrize("name", NAMES)
def test_both_prompts_of_a_state_are_those_of_the_arms(name: str) -> None:
    given = example(name)
    for arm, prompt in zip(
        ARMS, render_both(given.snapshot, given.result, given.options), strict=True
    ):
        assert prompt == render_prompt(arm, given.snapshot, given.result, given.options)


@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_is_that_of_its_example_to_the_byte(name: str) -> None:
    given = example(name)
    prompt = render_prompt(given.arm, given.snapshot, given.result, given.options)
    expected = given.prompt
    assert prompt.system == "\n".join(expected.system)
    assert prompt.user == "\n".join(expected.user)
    assert (prompt.has_evidence, prompt.template_version) == (
        expected.has_evidence,
        expected.template_version,
    )


def test_a_prompt_of_the_default_size_has_under_1600_tokens() -> None:
    # The longest reasons have some 240 characters.
    longest = replace(RETRIEVED.evidence, reason="over 24h the price rose " * 10)
    prompt = rag(retrieved=replace(RETRIEVED, evidence=longest))
    assert 1_400 < estimated_tokens(prompt.system) + estimated_tokens(prompt.user) < 1_600


# --- Two arms that differ in the evidence alone


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("options", [PromptOptions(), MASKED])
def test_the_arms_are_the_same_to_the_byte_but_for_the_section_of_the_evidence(
    name: str, options: PromptOptions
) -> None:
    given = example(name)
    assert given.result is not None
    with_it, without = (render_prompt(arm, given.snapshot, given.result, options) for arm in ARMS)
    lines = evidence_lines(given.result, given.snapshot.timestamp, given.snapshot.price)
    section = "\n".join(lines) + "\n\n" if lines else ""
    before, after = with_it.user.split(section) if section else (with_it.user, "")
    assert without.user == before + after
    assert with_it.system == without.system
    assert (with_it.has_evidence, without.has_evidence) == (bool(section), False)
    assert before.endswith("\n\n") or not section


@pytest.mark.parametrize(
    "nothing", [None, Retrieved([], no_evidence("no past state in the window", 0))]
)
def test_without_evidence_the_prompt_says_nothing_of_it(nothing: Retrieved | None) -> None:
    prompt = rag(retrieved=nothing)
    assert prompt.user == render_prompt("baseline", SNAPSHOT, RETRIEVED).user
    assert (prompt.arm, prompt.has_evidence) == ("rag", False)
    for word in ("evidence", "similar", "past", "verdict", "base rate", "expected now"):
        assert word not in (prompt.system + prompt.user).lower()


def test_evidence_without_a_match_shows_its_figures_and_no_state() -> None:
    prompt = rag(retrieved=replace(RETRIEVED, matches=[]))
    assert prompt.has_evidence
    assert "verdict: weak" in prompt.user
    assert "nearest states" not in prompt.user


# --- The section of the evidence


def test_the_evidence_has_its_figures_beside_base_rates() -> None:
    prompt = rag()
    assert line_with(prompt, "4h: ") == (
        "4h: 0.91, -1.10 to +1.16 | +0.05 [+0.01] 56 [51] | 1.08 42"
    )
    assert line_with(prompt, "first within 24h").endswith(
        "stop (-2%) 33 [29], target (+3%) 18 [16]"
    )
    assert line_with(prompt, "verdict: ") == (
        'verdict: weak, because "over 4h the price moved 1.31 times as far as usual, 3.0 standard '
        'errors away; by chance fewer than 1 in 10 queries show that much"'
    )
    assert line_with(prompt, "50 separate episodes among 8544 states")


def test_a_match_has_its_state_and_its_outcomes() -> None:
    assert line_with(rag(), "14.0 0.90: ") == (
        "14.0 0.90: 59 55 +0.035 1.013 +0.7 +0.010 -> +0.07 +0.22 +0.44 +1.00; +0.52 -0.31; none"
    )


def test_bands_without_a_calibration_are_those_of_the_forecast_and_said_to_be() -> None:
    plain = replace(RETRIEVED, evidence=replace(RETRIEVED.evidence, calibrated=False))
    prompt = rag(retrieved=plain)
    forecast = RETRIEVED.evidence.horizons["4h"].forecast
    assert forecast is not None
    low, high = forecast.quantiles[9], forecast.quantiles[89]
    assert f"4h: 0.91, {low:+.2f} to {high:+.2f} |" in prompt.user
    assert "80% band (not calibrated)" in prompt.user
    assert "80% band (calibrated)" in rag().user


def test_two_lines_say_how_to_read_it() -> None:
    lines = rag().user.split("\n")
    start = lines.index("EVIDENCE from similar past states of this market")
    assert lines[start + 1].startswith("How to read it: ")
    assert lines[start + 3].startswith("verdict: ")


# --- What a model may not learn from a prompt


@given(st.integers(-10_000, 10_000))
def test_times_are_relative_so_another_date_gives_the_same_text(days: int) -> None:
    shift_ms = days * DAY_MS
    matches = [
        replace(match, timestamp=match.timestamp + shift_ms, date="2031-05-05T00:00:00Z")
        for match in RETRIEVED.matches
    ]
    moved = replace(SNAPSHOT, timestamp=SNAPSHOT.timestamp + shift_ms)
    assert rag(moved, replace(RETRIEVED, matches=matches)) == rag()


def test_a_masked_prompt_is_the_same_for_another_symbol_at_another_price() -> None:
    # A power of two, by which numbers are multiplied exactly.
    other = replace(SNAPSHOT, symbol="ETHUSDT", **scaled(1 / 16))
    matches = [
        replace(m, market_state=replace(m.market_state, macd=m.market_state.macd / 16))
        for m in RETRIEVED.matches
    ]
    masked = rag(options=MASKED)
    assert rag(other, replace(RETRIEVED, matches=matches), MASKED) == masked
    assert "BTC" not in masked.user
    assert "43251" in rag().user
    assert "43251" not in masked.user


def test_masking_changes_the_first_line_and_nothing_else() -> None:
    plain, masked = rag().user.split("\n"), rag(options=MASKED).user.split("\n")
    assert plain[0] == 'MARKET of the perpetual future "BTCUSDT", price 43251'
    assert masked[0] == 'MARKET of the perpetual future "ASSET", price 100.00'
    assert plain[1:] == masked[1:]


# --- Hostile and missing input


def worded(symbol: str, reason: str, word: str) -> Prompt:
    first = RETRIEVED.matches[0]
    match = replace(first, date=word, outcomes=replace(first.outcomes, first_barrier=word))
    evidence = replace(RETRIEVED.evidence, reason=reason, verdict=word)
    return rag(replace(SNAPSHOT, symbol=symbol), Retrieved([match], evidence))


@given(
    st.text(max_size=2_000),
    st.text(max_size=2_000),
    st.text(max_size=50).filter(lambda word: word not in ("none", "weak", "stop", "target")),
)
def test_foreign_text_stays_in_its_line_and_in_quotes(symbol: str, reason: str, word: str) -> None:
    hostile, tame = worded(symbol, reason, word), worded("", "", "?")
    assert hostile.system == tame.system
    assert re.sub(r'"[^"\n]*"', '""', hostile.user) == tame.user
    assert len(hostile.user) < len(tame.user) + 400


@given(
    st.fixed_dictionaries(dict.fromkeys(SCALARS, NUMBERS)),
    st.fixed_dictionaries(dict.fromkeys(SERIES, st.none() | st.lists(NUMBERS, max_size=12))),
    st.booleans(),
)
def test_any_numbers_give_a_prompt_of_bounded_size(
    scalars: dict[str, Any], series: dict[str, Any], masked: bool
) -> None:
    snapshot = MarketSnapshot(symbol="BTCUSDT", timestamp=0, **scalars, **series)
    prompt = rag(snapshot, options=PromptOptions(masked=masked))
    assert len(prompt.user) < 6_000
    assert "nan" not in prompt.user
    assert "inf" not in prompt.user.replace("informative", "")


def test_a_state_without_anything_known_says_so() -> None:
    prompt = rag(MarketSnapshot(symbol="BTCUSDT", timestamp=0, price=None))
    assert line_with(prompt, "MARKET").endswith("price n/a")
    assert line_with(prompt, "change") == "change 1h n/a, 4h n/a, 24h n/a"
    assert line_with(prompt, "RSI(7)") == "RSI(7) n/a"


def test_ever_so_many_matches_are_shown_up_to_the_fifty_that_a_query_may_ask_for() -> None:
    many = replace(RETRIEVED, matches=RETRIEVED.matches * 2_000)
    assert rag(retrieved=many).user.count(" -> ") == 51  # one is the heading's


# --- What the record and the providers get


def test_the_digest_is_of_both_texts() -> None:
    prompt = rag()
    assert prompt.digest == rag().digest
    assert len(prompt.digest) == 64
    others = [
        render_prompt("baseline", SNAPSHOT, None),
        rag(options=PromptOptions(longest_hold_hours=8)),
        rag(replace(SNAPSHOT, rsi_7=40.0)),
    ]
    assert len({prompt.digest, *(other.digest for other in others)}) == 4


def test_a_prompt_is_one_message_and_names_its_template() -> None:
    prompt = rag()
    assert prompt.messages == (Message("user", prompt.user),)
    assert prompt.template_version == TEMPLATE_VERSION


def test_the_system_text_is_the_same_for_every_state_and_names_the_terms_of_the_trade() -> None:
    assert rag(replace(SNAPSHOT, symbol="ETHUSDT", price=1.0)).system == rag().system
    other = rag(options=PromptOptions(longest_hold_hours=24, round_trip_cost_pct=0.2)).system
    assert "after 24 hours" in other
    assert "cost 0.20 %" in other


def test_a_prompt_survives_the_json_of_a_workflow() -> None:
    encoded = msgspec.json.encode(rag())
    assert msgspec.json.decode(encoded, type=Prompt) == rag()
