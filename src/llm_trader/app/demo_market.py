"""A simulated market that goes on with the clock: what has closed by now is in the store."""

from __future__ import annotations

from collections.abc import Sequence

from llm_trader.app.ingestion import ingest_from_store
from llm_trader.app.job import Job
from llm_trader.app.market_data import written_store
from llm_trader.market.history import MarketHistory
from llm_trader.market.simulation import EXCHANGE, simulate
from llm_trader.market.store import MarketStore
from llm_trader.timeframe import DAY_MS, M3, Millis

# Nobody watches a demo for longer.
_DAYS_AHEAD = 7


class GrowingMarket:
    """Simulated series of some days before `now_ms` and some after it, for a store to grow by."""

    def __init__(
        self, job: Job, symbols: Sequence[str], *, now_ms: Millis, days: int, seed: int
    ) -> None:
        self._job = job
        self.start_ms = now_ms // DAY_MS * DAY_MS - days * DAY_MS
        whole_days = days + 1 + _DAYS_AHEAD
        self._histories = [
            simulate(symbol, start_ms=self.start_ms, days=whole_days, seed=seed)
            for symbol in symbols
        ]
        self._source = f"simulation, seed {seed}"
        self._written_ms: Millis | None = None

    def grow(self, now_ms: Millis) -> None:
        """Write what has become known since the last time."""
        with written_store(self._job.settings.market, EXCHANGE) as store:
            for history in self._histories:
                known = history.known_at(now_ms)
                for candles in (known.intraday, known.four_hour):
                    # Those that were open when it last wrote begin before that.
                    start_ms = self._written_ms and self._written_ms - candles.timeframe.ms
                    rows = candles.between(start_ms, None)
                    if len(rows):
                        store.write(history.symbol, rows, self._source, written_at_ms=now_ms)
                self._write_samples(store, known, now_ms)
        self._written_ms = now_ms

    def _write_samples(self, store: MarketStore, known: MarketHistory, now_ms: Millis) -> None:
        funding = known.funding.between(self._written_ms, None)
        interest = known.open_interest.between(self._written_ms, None)
        if len(funding):
            store.write(known.symbol, funding, self._source, written_at_ms=now_ms)
        if len(interest):
            store.write(
                known.symbol,
                interest,
                self._source,
                written_at_ms=now_ms,
                interval_ms=known.open_interest_interval_ms,
            )

    def index(self, now_ms: Millis) -> None:
        """Add the states whose outcomes are known by now."""
        last_ms = M3.floor(now_ms)
        ingest_from_store(self._job._replace(now_ms=now_ms), [], self.start_ms, last_ms)
