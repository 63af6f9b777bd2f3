"""Turns market states into text vectors: the sentence of a state, encoded by a transformer.

The model runs locally, from local files; loading never uses the network. Two models or two forms
of the sentence have different space ids, so their vectors never mix.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

import msgspec
import numpy as np
import structlog

from llm_trader.arrays import Vectors
from llm_trader.embedding import model_folder
from llm_trader.embedding.config import TextConfig
from llm_trader.embedding.fastembed_models import OpenedModel, configuration_errors, open_model
from llm_trader.errors import ConfigurationError, EmbeddingError
from llm_trader.snapshot.document import TEMPLATE_VERSION, Form, sentences
from llm_trader.snapshot.table import SnapshotTable

# The rounding of half precision, in which some models compute.
_NORM_TOLERANCE: Final = 1e-3
_PROBE: Final = "RSI(7) is strong at 62.0. Trend is up. Funding is 0.0100%, longs pay."
_PROBE_COMPANION: Final = "Price is down."
# A quantised model may depend on the other sentences of its batch; float rounding stays above this.
_SAME_VECTOR_COSINE: Final = 0.9999

_log = structlog.get_logger(__name__)

Done = Callable[[int], None]


class SentenceEncoder(Protocol):
    """A text model. `version` covers all that determines a vector: files, precision, pooling."""

    name: str
    version: str
    dimension: int

    def encode(self, sentences: Sequence[str], done: Done = ...) -> Vectors:
        """Vectors of shape (n, dimension) and norm 1, in the order of the sentences. Blocks.

        Calls `done` after each batch with the number of its sentences. Raises EmbeddingError if
        the model returns numbers that are not finite.
        """


class TextSpace:
    """The vector space of one text model and one form of the sentence; `model` names both."""

    def __init__(self, encoder: SentenceEncoder, form: Form) -> None:
        self.form: Form = form
        self.model = f"{encoder.name} {encoder.version}, {form} {TEMPLATE_VERSION}"
        self.dimension = encoder.dimension
        described = [encoder.name, encoder.version, encoder.dimension, TEMPLATE_VERSION, form]
        self.space_id = "text-" + hashlib.sha256(msgspec.json.encode(described)).hexdigest()[:12]
        self._encoder = encoder

    def embed(self, table: SnapshotTable, done: Done = lambda count: None) -> Vectors:
        """Vectors of shape (n, dimension); a repeated sentence is encoded once.

        Calls `done` with the number of new rows. Raises EmbeddingError if a row has no known fact.
        """
        texts = sentences(table, self.form)
        silent = texts.count("")
        if silent:
            raise EmbeddingError(
                f"{silent} of {len(texts)} states have no field that a sentence mentions; embed "
                "complete states only"
            )
        row_of = {sentence: row for row, sentence in enumerate(dict.fromkeys(texts))}
        if len(row_of) < len(texts):
            done(len(texts) - len(row_of))
        vectors = self.encode(list(row_of), done)
        return vectors[[row_of[sentence] for sentence in texts]]

    def sentence(self, table: SnapshotTable) -> str:
        """The sentence of a one-row table. Raises EmbeddingError if no fact is known."""
        (sentence,) = sentences(table, self.form)
        if not sentence:
            raise EmbeddingError(
                "the state has no field that a sentence mentions; send at least an RSI or price "
                "changes"
            )
        return sentence

    def encode(self, texts: Sequence[str], done: Done = lambda count: None) -> Vectors:
        """The encoder's vectors, shape (n, dimension), after a check of shape and norm."""
        vectors = self._encoder.encode(texts, done)
        name, shape = self._encoder.name, (len(texts), self.dimension)
        if vectors.shape != shape:
            raise EmbeddingError(f"{name} returned the shape {vectors.shape}, not {shape}")
        if not are_unit(vectors):
            raise EmbeddingError(f"{name} returned vectors that are not finite and of norm 1")
        return vectors


def are_unit(vectors: Vectors) -> bool:
    """Whether each vector (last axis) is finite and of norm 1."""
    norms = np.linalg.norm(vectors, axis=-1)
    return bool((np.abs(norms - 1) < _NORM_TOLERANCE).all())  # false for NaN too


class FastEmbedEncoder:
    """A transformer that FastEmbed runs in ONNX Runtime. Use `load` to create one."""

    def __init__(self, opened: OpenedModel, *, threads: int, batch_size: int) -> None:
        self.name = opened.name
        self._embedding = opened.embedding
        self._tokenizer = opened.tokenizer
        self._threads = threads
        self._batch_size = batch_size
        self._truncation_warned = False
        truncation = opened.tokenizer.truncation if opened.tokenizer else None
        self.max_tokens: int | None = truncation["max_length"] if truncation else None
        self.digest = model_folder.files_digest(opened.folder, opened.graph)
        precision = model_folder.precision_of(opened.folder, opened.graph)
        self.version = f"{self.digest} {precision} {opened.pooling} {self.max_tokens}"
        self.dimension = self._probe_dimension()
        if opened.dimension not in (None, self.dimension):
            raise ConfigurationError(
                f"{self.name} has {opened.dimension} dimensions, but the model in {opened.folder} "
                f"has {self.dimension}; name the folder of the right model"
            )

    @classmethod
    def load(cls, config: TextConfig) -> FastEmbedEncoder:
        """Loads the model of the config. Raises like `open_model`, and never uses the network."""
        opened = open_model(config.model, config.model_path, config.cache_dir)
        return cls(opened, threads=config.threads, batch_size=config.batch_size)

    def encode(self, sentences: Sequence[str], done: Done = lambda count: None) -> Vectors:
        """Like `SentenceEncoder.encode`. Batches of similar length run in `threads` threads."""
        vectors = np.empty((len(sentences), self.dimension), np.float32)
        by_length = sorted(range(len(sentences)), key=lambda i: len(sentences[i]))
        starts = range(0, len(by_length), self._batch_size)
        batches = [by_length[start : start + self._batch_size] for start in starts]

        def run(rows: list[int]) -> int:
            vectors[rows] = self._batch([sentences[row] for row in rows])
            return len(rows)

        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="encode")
        try:
            # A single batch, such as a query, does without a thread of its own.
            for count in (map if len(batches) <= 1 else pool.map)(run, batches):
                done(count)
        finally:
            # A caller that stops early waits for the running batches, not for the queued ones.
            pool.shutdown(cancel_futures=True)
        return vectors

    def token_counts(self, sentences: Sequence[str]) -> list[int]:
        """The number of tokens that the model reads of each sentence; empty without a tokenizer."""
        if self._tokenizer is None:
            return []
        encoded = self._tokenizer.encode_batch(list(sentences))
        return [sum(encoding.attention_mask) for encoding in encoded]

    def _batch(self, batch: list[str]) -> Vectors:
        self._warn_of_truncation(batch)
        raw = np.asarray(list(self._embedding.embed(batch, batch_size=len(batch))), np.float32)
        norms = np.linalg.norm(raw, axis=1, keepdims=True)
        if not (np.isfinite(norms).all() and norms.all()):
            raise EmbeddingError(f"{self.name} returned vectors that are not finite, or are 0")
        vectors: Vectors = raw / norms
        return vectors

    def _warn_of_truncation(self, batch: list[str]) -> None:
        # Tokenizing twice is slow. A token has at least one character, so short texts need no look.
        limit = self.max_tokens
        if limit is None or self._truncation_warned or max(map(len, batch)) < limit - 2:
            return
        for text, encoded in zip(batch, self._tokenizer.encode_batch(batch), strict=True):
            if encoded.overflowing:
                self._truncation_warned = True
                _log.warning("sentence_truncated", model=self.name, max_tokens=limit, sentence=text)
                return

    def _probe_dimension(self) -> int:
        """The dimension; also checks that a vector does not depend on the rest of its batch."""
        with configuration_errors(
            f"{self.name} cannot encode a sentence", "; check that its files belong together"
        ):
            (single,) = self._batch([_PROBE])
            in_batch = self._batch([_PROBE, _PROBE_COMPANION])[0]
        cosine = float(single @ in_batch)
        if cosine < _SAME_VECTOR_COSINE:
            _log.warning("vector_depends_on_batch", model=self.name, cosine=cosine)
        return len(single)
