from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.snapshot.document import FACTS, Fact, Form, sentences
from llm_trader.snapshot.model import SCALARS
from llm_trader.snapshot.table import SnapshotTable
from llm_trader.timeframe import M5
from tests.embedding.states import FIXED, WIRE_FIELDS, fields_at, of_fields, simulated_states

FORMS: tuple[Form, ...] = ("detailed", "compact")

CRASH = FIXED | {
    "rsi_7": 8.04,
    "rsi_14": 21.96,
    "macd": -420.0,
    "macd_slope": -0.9,
    "ema_ratio": 0.968,
    "oi_delta_pct": -7.25,
    "funding_rate": -0.00031,
    "realized_volatility_4h": 5.6,
    "realized_volatility_24h": 8.0,
    "price_change_1h": -4.0,
    "price_change_4h": -9.126,
    "price_change_24h": 0.0,
    "volume_ratio": 6.0,
}

GOLDEN: dict[tuple[str, Form], str] = {
    ("fixed", "detailed"): (
        "RSI(7) is strong at 62.0, RSI(14) is neutral at 58.0. MACD is slightly above zero at "
        "0.050% of price, falling at -0.030% per hour. Trend is up with 4h EMA20/EMA50 at 1.017. "
        "Open interest is rising at 3.0% from its mean. Funding is 0.0100%, longs pay. "
        "Volatility is moderate at 2.2% over 24h, steady in the last 4h. Price is up 0.30% in 1h, "
        "up 0.90% in 4h, down 1.20% in 24h. Volume is average at 1.2 times its mean."
    ),
    ("fixed", "compact"): (
        "RSI7 62.0 strong, RSI14 58.0 neutral; MACD 0.050% slightly above zero, falling; "
        "trend up 1.017; OI rising 3.0%; funding 0.0100% longs pay; volatility moderate 2.2%, "
        "steady; price up 0.30% 1h, up 0.90% 4h, down 1.20% 24h; volume average 1.2x"
    ),
    ("crash", "detailed"): (
        "RSI(7) is extremely oversold at 8.0, RSI(14) is oversold at 22.0. MACD is far below zero "
        "at -0.700% of price, falling fast at -0.900% per hour. Trend is strongly down with 4h "
        "EMA20/EMA50 at 0.968. Open interest is falling sharply at -7.2% from its mean. Funding "
        "is -0.0310%, shorts pay heavily. Volatility is extreme at 8.0% over 24h, picking up in "
        "the last 4h. Price is down 4.00% in 1h, down 9.13% in 4h, unchanged 0.00% in 24h. Volume "
        "is very heavy at 6.0 times its mean."
    ),
    ("crash", "compact"): (
        "RSI7 8.0 extremely oversold, RSI14 22.0 oversold; MACD -0.700% far below zero, falling "
        "fast; trend strongly down 0.968; OI falling sharply -7.2%; funding -0.0310% shorts pay "
        "heavily; volatility extreme 8.0%, picking up; price down 4.00% 1h, down 9.13% 4h, "
        "unchanged 0.00% 24h; volume very heavy 6.0x"
    ),
    ("wire", "detailed"): (
        "RSI(7) is strong at 62.0, RSI(14) is neutral at 58.0. MACD is slightly above zero at "
        "0.050% of price. Trend is up with 4h EMA20/EMA50 at 1.017. Open interest is rising at "
        "3.0% from its mean. Funding is 0.0100%, longs pay."
    ),
}
STATES = {
    "fixed": FIXED,
    "crash": CRASH,
    "wire": {name: FIXED[name] for name in WIRE_FIELDS},
}

# Words that stand in the detailed sentence where the field is known.
PHRASES = {
    "rsi_7": "RSI(7)",
    "rsi_14": "RSI(14)",
    "macd": "of price",
    "macd_slope": "per hour",
    "ema_ratio": "EMA20/EMA50",
    "oi_delta_pct": "Open interest",
    "funding_rate": "Funding",
    "realized_volatility_24h": "Volatility",
    "realized_volatility_4h": "in the last 4h",
    "price_change_1h": "% in 1h",
    "price_change_4h": "% in 4h",
    "price_change_24h": "% in 24h",
    "volume_ratio": "Volume",
}
OVER = {fact.field: fact.over for fact in FACTS}
# What `ema_ratio` and `oi_delta_pct` would be derived from again.
SOURCES = ("ema_20_4h", "open_interest_latest")
NUMBER = r"-?\b\d+\.\d+"

values = st.one_of(
    st.floats(-1e6, 1e6), st.floats(-2, 2), st.sampled_from([0.0, -0.0, 1e-9, -1e-9, 1e300, 50.0])
)
some_fields = st.dictionaries(st.sampled_from(SCALARS), values)
forms = st.sampled_from(FORMS)


def sentence(fields: dict[str, float], form: Form = "detailed") -> str:
    (only,) = sentences(of_fields(fields), form)
    return only


def alone(fact: Fact, value: float) -> dict[str, float]:
    """Fields of which only this fact knows its words; a value as it would be told."""
    return {fact.field: value / fact.factor} | ({fact.over: 1.0} if fact.over else {})


@pytest.mark.parametrize(("state", "form"), GOLDEN)
def test_a_state_is_told_in_these_words(state: str, form: Form) -> None:
    assert sentence(STATES[state], form) == GOLDEN[state, form]


@pytest.mark.parametrize("form", FORMS)
def test_nothing_known_is_nothing_told(form: Form) -> None:
    assert sentences(SnapshotTable.unknown("BTCUSDT", M5, np.array([0, 1])), form) == ["", ""]
    assert sentence({"price": 60_000.0, "atr_14_4h": 800.0}, form) == ""


@given(some_fields, forms)
def test_no_sentence_holds_a_number_that_is_none(fields: dict[str, float], form: Form) -> None:
    told = sentence(fields, form)
    assert "nan" not in told
    assert "inf" not in told
    assert not re.search(r"-0(\.0+)?(?![.\d])", told)
    assert len(told) < 1000


@given(st.integers(0, 9000), st.sets(st.sampled_from(sorted(PHRASES))))
def test_what_is_missing_is_left_out_with_its_words(row: int, missing: set[str]) -> None:
    fields = fields_at(simulated_states(), row)
    fields |= dict.fromkeys((*missing, *SOURCES), math.nan)
    told = sentence(fields)
    for name, phrase in PHRASES.items():
        lost = name in missing or OVER.get(name) in missing
        assert (phrase in told) == (not lost), name
    assert not re.search(r"(is|,|\.)\.|, ,|  ", told)


@given(st.lists(st.integers(0, 9000), min_size=1, max_size=8), forms)
def test_a_row_is_told_the_same_whatever_stands_beside_it(rows: list[int], form: Form) -> None:
    table = simulated_states()
    together = sentences(table.take(np.array(rows)), form)
    assert together == [sentences(table.take(np.array([row])), form)[0] for row in rows]


@given(st.integers(0, 9000), forms)
def test_a_state_sent_as_a_query_is_told_as_it_was_at_ingestion(row: int, form: Form) -> None:
    table = simulated_states().take(np.array([row]))
    assert sentence(fields_at(table, 0), form) == sentences(table, form)[0]


@given(st.integers(0, 9000), st.floats(1e-4, 1e4), forms)
def test_the_price_level_is_not_told(row: int, times: float, form: Form) -> None:
    quoted = ("price", "macd", "ema_20", "ema_20_4h", "ema_50_4h", "atr_3_4h", "atr_14_4h")
    fields = fields_at(simulated_states(), row)
    # A power of two scales without rounding.
    scale = 2.0 ** round(math.log2(times))
    scaled = fields | {name: fields[name] * scale for name in (*quoted, "macd_4h")}
    assert sentence(scaled, form) == sentence(fields, form)


@pytest.mark.parametrize("form", FORMS)
def test_neither_the_symbol_nor_the_time_is_told(form: Form) -> None:
    table = of_fields(FIXED)
    other = SnapshotTable(
        "ETHUSDT", table.intraday, table.as_of_ms + 77, table.scalars, table.series
    )
    assert sentences(table, form) == sentences(other, form)


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.field)
def test_the_words_change_at_the_bands(fact: Fact) -> None:
    step = 10.0**-fact.digits
    for limit, below, above in zip(
        fact.bands.limits, fact.bands.words[:-1], fact.bands.words[1:], strict=True
    ):
        at = math.ceil(limit / step - 1e-9) * step
        assert below in sentence(alone(fact, at - step))
        assert above in sentence(alone(fact, at))
        assert below not in sentence(alone(fact, at)).replace(above, "")


@given(st.sampled_from(FACTS), st.floats(-20, 120))
def test_the_words_follow_from_the_number_that_is_told(fact: Fact, value: float) -> None:
    (told,) = re.findall(NUMBER, sentence(alone(fact, value))) or ["0"]
    if "{0}" in fact.detailed:
        assert sentence(alone(fact, float(told))) == sentence(alone(fact, value))


def test_each_number_is_told_with_its_own_sign() -> None:
    told = sentence({"price_change_1h": -0.004, "price_change_4h": 0.006, "funding_rate": -1e-9})
    assert told == "Funding is 0.0000%, balanced. Price is unchanged 0.00% in 1h, up 0.01% in 4h."
