"""Market states to vectors of a text model: a sentence of the state, encoded by a transformer.

The model runs here, from files that are here already: loading never asks a network. Vectors of
two models, or of two wordings, have different space ids and never mix, whatever their dimension.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Final, Protocol

import msgspec
import numpy as np
import structlog

from llm_trader.arrays import Vectors
from llm_trader.embedding import model_folder
from llm_trader.embedding.config import TextConfig
from llm_trader.embedding.fastembed_models import TEXT_MODEL_LIBRARIES, OpenedModel, open_model
from llm_trader.errors import ConfigurationError, EmbeddingError
from llm_trader.foreign_errors import raised_inside
from llm_trader.snapshot.document import TEMPLATE_VERSION, Form, sentences
from llm_trader.snapshot.table import SnapshotTable

_NORM_TOLERANCE: Final = 1e-3
_PROBE: Final = "RSI(7) is strong at 62.0. Trend is up. Funding is 0.0100%, longs pay."
_PROBE_COMPANION: Final = "Price is down."
_SAME_VECTOR_COSINE: Final = 0.9999

_log = structlog.get_logger(__name__)

Done = Callable[[int], None]


def _unwatched(_: int) -> None:
    pass


class SentenceEncoder(Protocol):
    """A text model. `version` says all that decides a vector: files, precision, pooling, limit."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def dimension(self) -> int: ...

    def encode(self, sentences: Sequence[str], done: Done = ...) -> Vectors:
        """Vectors of shape (n, dimension) and norm 1, in the order of the sentences. Blocks.

        `done` is told after each batch how many more sentences were encoded. Raises
        EmbeddingError where the model gives numbers that are not finite.
        """
        ...


class TextSpace:
    """The vector space of one model and one wording, which `model` tells."""

    def __init__(self, encoder: SentenceEncoder, form: Form) -> None:
        self.form: Form = form
        self.model = f"{encoder.name} {encoder.version}, {form} {TEMPLATE_VERSION}"
        self.dimension = encoder.dimension
        described = [encoder.name, encoder.version, encoder.dimension, TEMPLATE_VERSION, form]
        self.space_id = "text-" + hashlib.sha256(msgspec.json.encode(described)).hexdigest()[:12]
        self._encoder = encoder

    def embed(self, table: SnapshotTable, done: Done = _unwatched) -> Vectors:
        """Vectors of shape (n, dimension); a sentence that occurs twice is encoded once.

        `done` is told how many more rows are ready. Raises EmbeddingError where nothing is known
        of a row.
        """
        texts = sentences(table, self.form)
        silent = texts.count("")
        if silent:
            raise EmbeddingError(
                f"{silent} of {len(texts)} states know nothing that can be told in a sentence; "
                "embed complete states only"
            )
        row_of = {sentence: row for row, sentence in enumerate(dict.fromkeys(texts))}
        if len(row_of) < len(texts):
            done(len(texts) - len(row_of))
        vectors = self.encode(list(row_of), done)
        return vectors[[row_of[sentence] for sentence in texts]]

    def sentence(self, table: SnapshotTable) -> str:
        """The sentence of a table of one row. Raises EmbeddingError when nothing is known."""
        (sentence,) = sentences(table, self.form)
        if not sentence:
            raise EmbeddingError(
                "the state says nothing that can be told in a sentence; send at least an RSI, or "
                "price changes"
            )
        return sentence

    def encode(self, texts: Sequence[str], done: Done = _unwatched) -> Vectors:
        """The encoder's vectors, checked: shape (n, dimension), finite, norm 1."""
        vectors = self._encoder.encode(texts, done)
        name, shape = self._encoder.name, (len(texts), self.dimension)
        if vectors.shape != shape:
            raise EmbeddingError(f"{name} gave the shape {vectors.shape}, not {shape}")
        if not are_unit(vectors):
            raise EmbeddingError(f"{name} gave vectors that are not finite, of norm 1")
        return vectors


def are_unit(vectors: Vectors) -> bool:
    """Whether each vector (last axis) is finite and of norm 1."""
    norms = np.linalg.norm(vectors, axis=-1)
    return bool((np.abs(norms - 1) < _NORM_TOLERANCE).all())  # false for NaN too


class FastEmbedEncoder:
    """A transformer in ONNX Runtime, by way of FastEmbed. Made by `load`."""

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
                f"{self.name} has {opened.dimension} dimensions, the model in {opened.folder} has "
                f"{self.dimension}: it is another one"
            )

    @classmethod
    def load(cls, config: TextConfig) -> FastEmbedEncoder:
        """A model that FastEmbed lists, from its cache or a folder; or any other from a folder.

        Raises ConfigurationError, and never waits for a network, where the `text` extra or the
        model is missing, or the files are not a model's.
        """
        opened = open_model(config.model, config.model_path, config.cache_dir)
        return cls(opened, threads=config.threads, batch_size=config.batch_size)

    def encode(self, sentences: Sequence[str], done: Done = _unwatched) -> Vectors:
        """As `SentenceEncoder` says; batches of like length run in `threads` threads."""
        vectors = np.empty((len(sentences), self.dimension), np.float32)
        by_length = sorted(range(len(sentences)), key=lambda i: len(sentences[i]))
        batches = [
            by_length[start : start + self._batch_size]
            for start in range(0, len(by_length), self._batch_size)
        ]

        def run(rows: list[int]) -> int:
            vectors[rows] = self._batch([sentences[row] for row in rows])
            return len(rows)

        with closing(_in_threads(run, batches, self._threads)) as counts:
            for count in counts:
                done(count)
        return vectors

    def token_counts(self, sentences: Sequence[str]) -> list[int]:
        """How many tokens of each sentence the model reads; none where it has no tokenizer."""
        if self._tokenizer is None:
            return []
        encoded = self._tokenizer.encode_batch(list(sentences))
        return [sum(encoding.attention_mask) for encoding in encoded]

    def _batch(self, batch: list[str]) -> Vectors:
        self._warn_of_truncation(batch)
        raw = np.asarray(list(self._embedding.embed(batch, batch_size=len(batch))), np.float32)
        norms = np.linalg.norm(raw, axis=1, keepdims=True)
        if not (np.isfinite(norms).all() and norms.all()):
            raise EmbeddingError(f"{self.name} gave vectors that are not finite, or are 0")
        vectors: Vectors = raw / norms
        return vectors

    def _warn_of_truncation(self, batch: list[str]) -> None:
        # A token is at least one character.
        limit = self.max_tokens
        if limit is None or self._truncation_warned or max(map(len, batch)) < limit - 2:
            return
        for text, encoded in zip(batch, self._tokenizer.encode_batch(batch), strict=True):
            if encoded.overflowing:
                self._truncation_warned = True
                _log.warning("sentence_truncated", model=self.name, max_tokens=limit, sentence=text)
                return

    def _probe_dimension(self) -> int:
        """The dimension, by encoding a sentence alone and beside another."""
        try:
            (alone,) = self._batch([_PROBE])
            in_batch = self._batch([_PROBE, _PROBE_COMPANION])[0]
        except EmbeddingError:
            raise
        except Exception as error:
            if not raised_inside(error, TEXT_MODEL_LIBRARIES):
                raise
            raise ConfigurationError(
                f"{self.name} cannot encode a sentence, its files may be those of another model: "
                f"{error}"
            ) from error
        if alone @ in_batch < _SAME_VECTOR_COSINE:
            _log.warning("vector_depends_on_batch", model=self.name, cosine=float(alone @ in_batch))
        return len(alone)


def _in_threads(
    run: Callable[[list[int]], int], batches: list[list[int]], threads: int
) -> Generator[int, None, None]:
    if threads == 1 or len(batches) <= 1:
        yield from map(run, batches)
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix="encode")
    try:
        yield from pool.map(run, batches)
    finally:
        # Who stops in the middle waits for the running batches, not for all that are queued.
        pool.shutdown(cancel_futures=True)
