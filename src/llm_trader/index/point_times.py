"""The times of stored points: all that who adds points needs to know of those that are there."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from llm_trader.arrays import Times


@dataclass(slots=True)
class PointTimes:
    """By symbol, increasing."""

    symbols: dict[str, Times] = field(default_factory=dict)

    def of(self, symbol: str) -> Times:
        return self.symbols.get(symbol, np.empty(0, np.int64))

    def add(self, symbol: str, timestamp_ms: Times) -> None:
        self.symbols[symbol] = np.union1d(self.of(symbol), timestamp_ms)

    def remove(self, symbol: str, timestamp_ms: Times) -> None:
        left = np.setdiff1d(self.of(symbol), timestamp_ms, assume_unique=True)
        if len(left):
            self.symbols[symbol] = left
        else:
            self.symbols.pop(symbol, None)
