"""Which candles of a stream are final: whatever comes in whatever order, what is stored is true."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from llm_trader.market.absent_spans import Span
from llm_trader.market.collecting.candle_closing import CandleCloser, CandleValues
from llm_trader.timeframe import M3, Millis

T0: Millis = 1_700_000_100_000 - 1_700_000_100_000 % M3.ms
LATER = T0 + 30 * M3.ms


def candle(number: int, share: float = 1.0) -> CandleValues:
    """The candle of that number when a share of it has gone; all of it at 1."""
    top, volume = 100.0 + number + 5 * share, 40.0 * share
    return CandleValues(100.0 + number, top, 100.0 + number - share, top - 0.5 * share, volume)


def open_ms(number: int) -> Millis:
    return T0 + number * M3.ms


@dataclass
class Kept:
    """A store that is fed as the collector does, and an exchange that can be asked."""

    closer: CandleCloser = field(default_factory=lambda: CandleCloser(M3, T0))
    stored: dict[Millis, CandleValues] = field(default_factory=dict)
    absent: frozenset[int] = frozenset()

    def hear(self, number: int, values: CandleValues) -> None:
        self.closer.update(open_ms(number), values, LATER)

    def store_closed(self) -> None:
        closed = self.closer.closed()
        self.stored |= dict(closed)
        self.closer.stored_from_stream(closed)

    def ask(self, closed_ms: Millis) -> Span | None:
        span = self.closer.contradicted(closed_ms) or self.closer.unconfirmed(closed_ms)
        if span is None:
            return None
        numbers = range((span.start_ms - T0) // M3.ms, (span.end_ms - T0) // M3.ms)
        self.stored |= {open_ms(n): candle(n) for n in numbers if n not in self.absent}
        self.closer.confirmed(span, max(self.stored, default=T0 - M3.ms) + M3.ms)
        self.store_closed()
        return span

    def settle(self, closed_ms: Millis) -> None:
        """Ask until nothing is open, or the exchange has no more to say."""
        for _ in range(60):
            before = self.closer.next_ms, self.closer.contradicted(closed_ms)
            if self.ask(closed_ms) is None:
                return
            if before == (self.closer.next_ms, self.closer.contradicted(closed_ms)):
                return
        raise AssertionError("it asks again and again")


def test_a_candle_is_stored_once_a_later_one_has_begun() -> None:
    kept = Kept()
    kept.hear(0, candle(0, 0.5))
    kept.hear(0, candle(0))
    kept.store_closed()
    assert kept.stored == {}
    kept.hear(1, candle(1, 0.1))
    kept.store_closed()
    assert kept.stored == {open_ms(0): candle(0)}


def test_a_candle_that_nothing_follows_is_asked_for_after_its_end() -> None:
    kept = Kept()
    kept.hear(0, candle(0, 0.9))
    assert kept.closer.unconfirmed(open_ms(1) - 1) is None
    assert kept.ask(open_ms(1)) == Span(T0, open_ms(1))
    assert kept.stored == {open_ms(0): candle(0)}
    assert kept.ask(open_ms(1)) is None


def test_a_hole_is_asked_for_before_later_candles_are_taken() -> None:
    kept = Kept()
    kept.hear(0, candle(0))
    for number in (3, 4):
        kept.hear(number, candle(number))
    kept.store_closed()
    assert list(kept.stored) == [open_ms(0)]
    assert kept.ask(open_ms(3)) == Span(open_ms(1), open_ms(3))
    assert list(kept.stored) == [open_ms(n) for n in range(4)]


def test_what_the_exchange_does_not_have_is_left_behind_when_a_later_candle_has_closed() -> None:
    kept = Kept(absent=frozenset({1}))
    kept.hear(0, candle(0))
    kept.hear(2, candle(2))
    kept.store_closed()
    kept.ask(open_ms(2))
    assert kept.closer.next_ms == open_ms(1)
    kept.hear(3, candle(3, 0.1))
    kept.ask(open_ms(2))
    assert list(kept.stored) == [open_ms(0), open_ms(2)]


def test_what_was_not_asked_for_is_not_left_behind() -> None:
    kept = Kept(absent=frozenset({0}))
    kept.hear(2, candle(2))
    kept.hear(3, candle(3))
    assert kept.ask(open_ms(1)) == Span(open_ms(0), open_ms(1))
    assert kept.ask(open_ms(3)) == Span(open_ms(1), open_ms(3))
    assert list(kept.stored) == [open_ms(1), open_ms(2)]


def test_a_stored_candle_is_never_altered_by_the_stream_but_asked_for_once() -> None:
    kept = Kept()
    kept.hear(0, candle(0))
    kept.hear(1, candle(1))
    kept.store_closed()
    kept.hear(0, candle(0, 0.7))
    assert kept.stored[T0] == candle(0)
    assert kept.closer.contradicted(open_ms(1)) == Span(T0, open_ms(1))
    assert kept.ask(open_ms(1)) == Span(T0, open_ms(1))
    kept.hear(0, candle(0, 0.6))
    assert kept.closer.contradicted(open_ms(1)) is None


def test_a_candle_that_shrinks_is_not_believed() -> None:
    kept = Kept()
    for share in (0.9, 0.4):
        kept.hear(0, candle(0, share))
    kept.hear(1, candle(1, 0.1))
    kept.store_closed()
    assert kept.stored == {}
    kept.ask(open_ms(1))
    assert kept.stored == {T0: candle(0)}


def test_what_was_in_progress_when_a_connection_was_lost_is_not_believed() -> None:
    kept = Kept()
    kept.hear(0, candle(0, 0.9))
    kept.closer.disconnected()
    kept.hear(1, candle(1, 0.1))
    kept.store_closed()
    assert kept.stored == {}
    kept.ask(open_ms(1))
    assert kept.stored == {T0: candle(0)}


def test_times_off_the_grid_or_in_the_future_are_rejected() -> None:
    closer = CandleCloser(M3, T0)
    assert not closer.update(T0 + 1, candle(0), T0)
    assert not closer.update(T0 + 10 * M3.ms, candle(10), T0)
    assert closer.rejected == 2
    closer.update(T0, candle(0), T0)
    assert closer.closed() == []


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("hear"), st.integers(0, 12), st.sampled_from((0.1, 0.5, 0.9, 1.0))),
        st.tuples(st.just("store"), st.just(0), st.just(0.0)),
        st.tuples(st.just("ask"), st.integers(0, 12), st.just(0.0)),
        st.tuples(st.just("lost"), st.just(0), st.just(0.0)),
    ),
    max_size=60,
)


@given(EVENTS, st.frozensets(st.integers(0, 12), max_size=2))
def test_in_the_end_the_store_has_what_the_exchange_has(
    events: list[tuple[str, int, float]], absent: frozenset[int]
) -> None:
    """Updates in any order, repeated, left out, with losses: false candles do not stay."""
    kept = Kept(absent=absent)
    for kind, number, share in events:
        if kind == "hear" and number not in absent:
            kept.hear(number, candle(number, share))
        elif kind == "store":
            kept.store_closed()
        elif kind == "ask":
            kept.ask(open_ms(number))
        elif kind == "lost":
            kept.closer.disconnected()
    # What the stream shows last of each candle is the end of it, as TCP keeps the order.
    for number in range(13):
        if number not in absent:
            kept.hear(number, candle(number))
    kept.store_closed()
    kept.hear(13, candle(13, 0.1))
    kept.store_closed()
    kept.settle(open_ms(13))
    expected = {open_ms(n): candle(n) for n in range(13) if n not in absent}
    assert {time_ms: v for time_ms, v in kept.stored.items() if time_ms < open_ms(13)} == expected
