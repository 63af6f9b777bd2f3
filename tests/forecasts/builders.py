"""Journals of forecasts that were not served."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from llm_trader.forecasts.config import ForecastsConfig
from llm_trader.forecasts.journal import FORECASTS, ForecastJournal, ForecastLine
from llm_trader.retrieval.answer import (
    Answer,
    Estimate,
    Evidence,
    Forecast,
    HorizonEvidence,
    ReferenceForecasts,
)
from llm_trader.retrieval.reference import QUANTILE_LEVELS
from llm_trader.storage.chain import verification
from llm_trader.storage.chain.verification import ChainsReport
from llm_trader.timeframe import HORIZONS, MINUTE_MS, Millis

NOW_MS = 1_735_689_600_000
QUARTER_MS = 15 * MINUTE_MS
SYMBOL = "BTCUSDT"


class Clock:
    def __init__(self, now_ms: Millis = NOW_MS) -> None:
        self.now_ms = now_ms

    def __call__(self) -> Millis:
        return self.now_ms


def answer(spread: float = 1.0, *, with_references: bool = False) -> Answer:
    """Forecasts from -spread to spread at all horizons, beside base rates twice as wide, and with
    references three and four times as wide.
    """
    levels = np.arange(1, 100) / 100
    forecast = Forecast(((2 * levels - 1) * spread).tolist(), 0.0, 0.5, 0.3)
    rates = [
        Estimate(0.0, None, None, float(2 * level - 1) * 2 * spread) for level in QUANTILE_LEVELS
    ]
    middle = Estimate(0.0, None, None, 0.0)
    horizon = HorizonEvidence(10.0, middle, middle, *rates, None, forecast=forecast)
    made: dict[str, Any] = dict.fromkeys(HORIZONS, horizon)
    evidence = Evidence("none", "", 1, 0.9, 1, None, None, None, None, made)
    alone, rescaled, random = (
        [((2 * QUANTILE_LEVELS - 1) * width * spread).tolist()] * len(HORIZONS)
        for width in (1.5, 3.0, 4.0)
    )
    references = ReferenceForecasts(rescaled, random) if with_references else None
    compared: dict[str, Any] = {"without_neighbours": alone, "references": references}
    return Answer([], None, evidence, [], [], 0, 0, 0, **compared)  # type: ignore[arg-type]


@contextmanager
def writing(folder: Path, clock: Clock, *, max_bytes: int = 8000) -> Iterator[ForecastJournal]:
    """Files of a few lines."""
    journal = ForecastJournal(folder, now_ms=clock, config=ForecastsConfig(keep_files=0))
    journal._chain._max_bytes = max_bytes  # a real limit is at least a MiB
    try:
        yield journal
    finally:
        journal.close()


def verify(folder: Path) -> ChainsReport:
    return verification.verify(FORECASTS, folder)


def all_lines(folder: Path) -> list[ForecastLine]:
    """The forecasts as they stand in the files, those that repeat others included."""
    paths = [path for paths in FORECASTS.chains_of(folder).values() for path in paths]
    sealed = [FORECASTS.unseal(raw) for path in paths for raw in path.read_bytes().splitlines()]
    lines = [one.line for one in sealed if one is not None]
    return [line for line in lines if line.event == "forecast"]
