"""A text encoder without a model: each word, hashed, points into one direction."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from llm_trader.arrays import Vectors


class HashedWords:
    """Sums random directions of the sentence's words: more words in common, more alike.

    Deterministic, also between processes. `encoded` lists every sentence it was given; `gate`,
    where set, holds encoding up until it is opened.
    """

    def __init__(
        self, dimension: int = 32, name: str = "hashed-words", version: str = "1", batch: int = 8
    ) -> None:
        self.name = name
        self.version = version
        self.dimension = dimension
        self.encoded: list[str] = []
        self.gate: threading.Event | None = None
        self._batch = batch

    def encode(
        self, sentences: Sequence[str], done: Callable[[int], None] = lambda _: None
    ) -> Vectors:
        vectors = np.zeros((len(sentences), self.dimension), np.float32)
        for start in range(0, len(sentences), self._batch):
            if self.gate is not None:
                self.gate.wait(60)
            batch = sentences[start : start + self._batch]
            self.encoded += batch
            for row, sentence in enumerate(batch, start):
                total = np.sum([self._direction(word) for word in sentence.split()], axis=0)
                vectors[row] = total / np.linalg.norm(total)
            done(len(batch))
        return vectors

    def _direction(self, word: str) -> Vectors:
        return _direction(f"{self.name} {self.version} {word}", self.dimension)


@cache
def _direction(seed: str, dimension: int) -> Vectors:
    digest = hashlib.sha256(seed.encode()).digest()
    draw = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    return draw.standard_normal(dimension).astype(np.float32)
